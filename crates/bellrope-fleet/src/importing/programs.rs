//! The names of the processes that call.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bellrope::server::OwnedCall;

/// How long a name holds: the system is asked for it once in that time, and not for each call, which takes as long as to send it.
const HOLDS: Duration = Duration::from_secs(1);
/// Most processes whose names are kept.
const MOST: usize = 1024;

/// Names by process.
#[derive(Debug, Default)]
pub(super) struct Programs(Mutex<HashMap<u32, (Instant, Option<String>)>>);

impl Programs {
    /// The name of the process that makes this call.
    pub(super) fn of(&self, call: &OwnedCall) -> Option<String> {
        self.named(call.process()?, Instant::now(), || call.process_name())
    }

    fn named(&self, process: u32, now: Instant, ask: impl FnOnce() -> Option<String>) -> Option<String> {
        let holds = |asked: Instant| now.saturating_duration_since(asked) < HOLDS;
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, name)) = names.get(&process).filter(|(asked, _)| holds(*asked)) {
            return name.clone();
        }
        if names.len() >= MOST {
            names.retain(|_, (asked, _)| holds(*asked));
        }
        let name = ask();
        if names.len() < MOST {
            names.insert(process, (now, name.clone()));
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_asked_for_once_a_second_and_as_many_are_kept_as_may_be() {
        let (programs, start) = (Programs::default(), Instant::now());
        let named = |process, at: Duration, name: &str| programs.named(process, start + at, || Some(name.to_owned()));
        assert_eq!(named(1, Duration::ZERO, "ed"), named(1, HOLDS - Duration::from_millis(1), "vi"));
        assert_eq!(named(1, HOLDS, "vi").as_deref(), Some("vi"));
        for process in 0..2 * MOST as u32 {
            assert_eq!(named(process + 2, HOLDS, "cc").as_deref(), Some("cc"));
        }
        assert_eq!(programs.0.lock().unwrap().len(), MOST);
        named(9_999, 3 * HOLDS, "ed");
        assert_eq!(programs.0.lock().unwrap().len(), 1);
    }
}
