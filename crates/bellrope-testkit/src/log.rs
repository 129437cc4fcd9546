//! What is logged, for tests that are alone in their process with it.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use tracing_subscriber::filter::LevelFilter;

/// Everything that is logged in this process.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Begins to listen, from this level on. Only once in a process.
    ///
    /// # Panics
    /// If something listens already.
    pub fn listen(level: LevelFilter) -> Self {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_max_level(level);
        subscriber.with_writer(move || writer.clone()).with_ansi(false).init();
        log
    }

    /// Whether some line has all of these texts.
    pub fn has(&self, texts: &[&str]) -> bool {
        self.count(texts) > 0
    }

    /// How many lines have all of these texts.
    pub fn count(&self, texts: &[&str]) -> usize {
        let log = String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
        log.lines().filter(|line| texts.iter().all(|text| line.contains(text))).count()
    }
}
