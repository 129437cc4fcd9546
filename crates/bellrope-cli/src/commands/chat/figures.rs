//! What an answer took.

use std::time::{Duration, Instant};

use bellrope_gateway::{Chunk, Usage};

/// Times and tokens of an answer.
#[derive(Debug)]
pub(super) struct Figures {
    asked: Instant,
    /// When the first word came, be it of the answer or of the reasoning before it.
    first: Option<Instant>,
    last: Instant,
    usage: Option<Usage>,
}

impl Figures {
    /// Starts the clock: the question is sent now.
    pub(super) fn start() -> Self {
        let asked = Instant::now();
        Self { asked, first: None, last: asked, usage: None }
    }

    /// Takes a chunk in that came just now.
    pub(super) fn take(&mut self, chunk: &Chunk) {
        self.last = Instant::now();
        match chunk {
            Chunk::Text { .. } | Chunk::Reasoning { .. } | Chunk::ToolCall(_) => {
                self.first.get_or_insert(self.last);
            }
            Chunk::Usage(usage) => self.usage = Some(usage.clone()),
            _ => {}
        }
    }

    /// All of it in one line.
    pub(super) fn line(&self) -> String {
        let first = self.first.map(|first| first - self.asked);
        line(self.usage.as_ref(), first, self.last - self.asked)
    }
}

fn line(usage: Option<&Usage>, first: Option<Duration>, whole: Duration) -> String {
    let tokens = match usage {
        Some(usage) => {
            let plural = if usage.input_tokens == 1 { "" } else { "s" };
            format!("{} token{plural} read, {} written", usage.input_tokens, usage.output_tokens)
        }
        None => "not told by the provider".to_owned(),
    };
    let Some(first) = first else { return format!("usage: {tokens}; nothing was said in {}", in_words(whole)) };
    let written = whole.saturating_sub(first).as_secs_f64();
    let rate = match usage {
        Some(usage) if usage.output_tokens > 1 && written > 0.0 => {
            // The first was there when this time began.
            let rate = (usage.output_tokens - 1) as f64 / written;
            let digits = if rate < 10.0 { 1 } else { 0 };
            format!(", {rate:.digits$} tokens/s")
        }
        _ => String::new(),
    };
    format!("usage: {tokens}; first after {}, whole after {}{rate}", in_words(first), in_words(whole))
}

/// A time as people say it.
fn in_words(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.1} s"),
        seconds if seconds >= 0.01 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{:.1} ms", seconds * 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_line_says_tokens_time_to_the_first_and_their_rate() {
        let usage = Usage { input_tokens: 9, output_tokens: 301, ..Usage::default() };
        assert_eq!(
            line(Some(&usage), Some(ms(250)), ms(3250)),
            "usage: 9 tokens read, 301 written; first after 250 ms, whole after 3.2 s, 100 tokens/s"
        );
        let slow = Usage { output_tokens: 3, ..usage };
        assert!(line(Some(&slow), Some(ms(1)), ms(2001)).ends_with(", 1.0 tokens/s"));
    }

    #[test]
    fn what_is_not_known_is_not_made_up() {
        assert_eq!(
            line(None, Some(ms(5)), ms(5)),
            "usage: not told by the provider; first after 5.0 ms, whole after 5.0 ms"
        );
        let usage = Usage { input_tokens: 9, output_tokens: 0, ..Usage::default() };
        assert_eq!(line(Some(&usage), None, ms(40)), "usage: 9 tokens read, 0 written; nothing was said in 40 ms");
    }
}
