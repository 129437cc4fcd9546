//! Server-sent events, decoded as the bytes come in.
//!
//! The format is that of the HTML standard, section 9.2.6. The decoder takes bytes split anywhere (inside a character, a
//! line end or the byte order mark) and gives the same events for every split. It is bounded in the length of a line and
//! of an event, and allocates only while its buffers grow to the largest event so far.
//!
//! It knows no socket, no clock and no JSON, but for one that squeezes: that keeps on beyond its bounds, without the rest of
//! long strings.

mod squeeze;

use std::mem;

use memchr::memchr2;
use thiserror::Error;

/// The longest line by default, in bytes, its end not counted.
pub const MAX_LINE: usize = 4 * 1024 * 1024;

/// The largest data of one event by default, in bytes.
pub const MAX_EVENT: usize = 4 * 1024 * 1024;

/// What a buffer may keep for the next event, in bytes: an event larger than this is rare and pays for itself.
const KEPT: usize = 64 * 1024;

/// What stays of a string in an event that is too large, in bytes.
const SQUEEZED: usize = 4 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An event, borrowed from its decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SseEvent<'a> {
    /// The name in its `event:` line; `message` without one.
    pub name: &'a str,
    /// Its `data:` lines, joined by line feeds. Never of no lines, though it may be of one empty line.
    pub data: &'a str,
}

/// What a stream of events may not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SseError {
    /// A line is longer than allowed.
    #[error("a line of the event stream is longer than {limit} bytes")]
    LineTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The data of an event is larger than allowed.
    #[error("an event is larger than {limit} bytes")]
    EventTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
}

/// Turns bytes into events.
///
/// ```
/// use bellrope_gateway::sse::SseDecoder;
///
/// let mut decoder = SseDecoder::default();
/// let mut seen = Vec::new();
/// for bytes in ["event: gre", "eting\ndata: Hel", "lo\r", "\n\r\ndata: unfini"] {
///     let mut input = bytes.as_bytes();
///     while decoder.push(&mut input)? {
///         let event = decoder.event();
///         seen.push((event.name.to_owned(), event.data.to_owned()));
///     }
/// }
/// assert_eq!(seen, [("greeting".to_owned(), "Hello".to_owned())]);
/// # Ok::<(), bellrope_gateway::sse::SseError>(())
/// ```
#[derive(Debug)]
pub struct SseDecoder {
    max_line: usize,
    max_event: usize,
    /// A line whose end has not come in yet, without the bytes still in the caller's hands.
    line: Vec<u8>,
    name: String,
    data: String,
    /// Whether `data` holds at least one line.
    has_data: bool,
    /// Whether `name` and `data` are those of an event already handed out, to be cleared before the next line.
    handed_out: bool,
    /// Whether a line feed that comes next belongs to the carriage return before it.
    after_carriage_return: bool,
    /// Whether no line has ended yet, so that a byte order mark may stand ahead.
    at_first_line: bool,
    /// Whether what is too large is squeezed, and not refused.
    squeezes: bool,
    /// How many bytes of the event were left out.
    left_out: usize,
    /// Whether so much of it was that it cannot be read.
    is_lost: bool,
    /// Whether the rest of the line is left out.
    drops_line: bool,
}

impl Default for SseDecoder {
    fn default() -> Self {
        Self::with_limits(MAX_LINE, MAX_EVENT)
    }
}

impl SseDecoder {
    /// A decoder that accepts lines of at most `max_line` bytes and events of at most `max_event` bytes of data.
    pub fn with_limits(max_line: usize, max_event: usize) -> Self {
        Self {
            max_line,
            max_event,
            line: Vec::new(),
            name: String::new(),
            data: String::new(),
            has_data: false,
            handed_out: false,
            after_carriage_return: false,
            at_first_line: true,
            squeezes: false,
            left_out: 0,
            is_lost: false,
            drops_line: false,
        }
    }

    /// One that refuses nothing. Of a line that is too long, which is JSON as a rule, the ends of strings are left out; of one
    /// that is too long even so, all: then its event has no data.
    pub(crate) fn squeezing() -> Self {
        Self { squeezes: true, ..Self::default() }
    }

    /// How many bytes of the event were left out of its strings.
    pub(crate) fn left_out(&self) -> usize {
        self.left_out
    }

    /// Whether all of the event was left out.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Takes bytes off the front of `input` until an event is whole (`true`; see [`SseDecoder::event`]) or no bytes are
    /// left (`false`).
    ///
    /// # Errors
    /// A limit is exceeded. The decoder is of no use after that.
    pub fn push(&mut self, input: &mut &[u8]) -> Result<bool, SseError> {
        self.clear_handed_out();
        while let Some(&first) = input.first() {
            if mem::take(&mut self.after_carriage_return) && first == b'\n' {
                *input = &input[1..];
                continue;
            }
            let Some(end) = memchr2(b'\n', b'\r', input) else {
                self.keep(input)?;
                *input = &[];
                break;
            };
            let (rest_of_line, after) = input.split_at(end);
            self.after_carriage_return = after[0] == b'\r';
            *input = &after[1..];
            if self.end_line(rest_of_line)? {
                self.handed_out = true;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Says that no more bytes will come. `true` if the stream breaks off within an event that has data; then
    /// [`SseDecoder::event`] is as much of it as came in. The standard drops such an event, but some servers end without
    /// the last empty line: whoever calls this must expect data that is cut.
    ///
    /// # Errors
    /// A limit is exceeded.
    pub fn finish(&mut self) -> Result<bool, SseError> {
        self.clear_handed_out();
        if !self.line.is_empty() {
            self.end_line(&[])?;
        }
        if self.is_lost {
            self.data.clear();
        }
        self.handed_out = self.has_data || self.is_lost;
        Ok(self.handed_out)
    }

    /// The event that the last [`SseDecoder::push`] or [`SseDecoder::finish`] announced.
    pub fn event(&self) -> SseEvent<'_> {
        SseEvent { name: if self.name.is_empty() { "message" } else { &self.name }, data: &self.data }
    }

    /// Ends the line that consists of what was kept and `rest`. `true` if that makes an event whole.
    fn end_line(&mut self, rest: &[u8]) -> Result<bool, SseError> {
        // The usual case, without a copy: the whole line lies in the caller's bytes.
        if self.line.is_empty() && rest.len() <= self.max_line && !self.drops_line {
            return self.take_line(rest);
        }
        self.keep(rest)?;
        if mem::take(&mut self.drops_line) {
            return Ok(false);
        }
        let mut line = mem::take(&mut self.line);
        let whole = self.take_line(&line);
        line.clear();
        line.shrink_to(KEPT);
        self.line = line;
        whole
    }

    fn take_line(&mut self, mut line: &[u8]) -> Result<bool, SseError> {
        if mem::take(&mut self.at_first_line) {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        if line.is_empty() {
            if self.is_lost {
                self.left_out += self.data.len();
                self.data.clear();
                return Ok(true);
            }
            if !self.has_data {
                self.name.clear();
            }
            return Ok(self.has_data);
        }
        let (field, value) = match line.iter().position(|&byte| byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &line[line.len()..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => self.add_data(value)?,
            b"event" => {
                self.name.clear();
                push_lossy(&mut self.name, value);
                self.name.shrink_to(KEPT);
            }
            // Comments (no field name), `id` and `retry` (nothing here reconnects) and what is unknown.
            _ => {}
        }
        Ok(false)
    }

    fn add_data(&mut self, value: &[u8]) -> Result<(), SseError> {
        if self.has_data {
            self.data.push('\n');
        }
        self.has_data = true;
        push_lossy(&mut self.data, value);
        if self.data.len() > self.max_event {
            if !self.squeezes {
                return Err(SseError::EventTooLarge { limit: self.max_event });
            }
            self.is_lost = true;
            self.left_out += self.data.len();
            self.data.clear();
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), SseError> {
        if self.drops_line {
            self.left_out += bytes.len();
            return Ok(());
        }
        let is_too_long = bytes.len() > self.max_line.saturating_sub(self.line.len());
        if is_too_long && !self.squeezes {
            return Err(SseError::LineTooLong { limit: self.max_line });
        }
        self.line.extend_from_slice(bytes);
        if is_too_long {
            self.left_out += squeeze::squeeze(&mut self.line, SQUEEZED);
            // What is left has to be worth the work, which is done again when the line is full again.
            if self.line.len() > self.max_line / 2 {
                self.left_out += self.line.len();
                (self.is_lost, self.drops_line, self.line) = (true, true, Vec::new());
            }
        }
        Ok(())
    }

    fn clear_handed_out(&mut self) {
        if mem::take(&mut self.handed_out) {
            (self.has_data, self.is_lost, self.left_out) = (false, false, 0);
            self.name.clear();
            self.data.clear();
            self.data.shrink_to(KEPT);
        }
    }
}

/// Appends bytes as text, with the replacement character for what is not UTF-8, and without an intermediate copy.
fn push_lossy(text: &mut String, bytes: &[u8]) {
    // The usual case, checked many bytes at a time.
    if let Ok(valid) = str::from_utf8(bytes) {
        return text.push_str(valid);
    }
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn events_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<(String, String)>, SseError> {
        let mut decoder = SseDecoder::with_limits(64, 128);
        let mut seen = Vec::new();
        let mut see = |event: SseEvent<'_>| seen.push((event.name.to_owned(), event.data.to_owned()));
        for mut piece in pieces {
            while decoder.push(&mut piece)? {
                see(decoder.event());
            }
        }
        if decoder.finish()? {
            see(decoder.event());
        }
        Ok(seen)
    }

    /// The data of all events, however the input is split.
    #[track_caller]
    fn check(input: &str, expected: &[(&str, &str)]) {
        let owned: Vec<_> = expected.iter().map(|(name, data)| (name.to_string(), data.to_string())).collect();
        assert_eq!(events_of([input.as_bytes()]).unwrap(), owned, "in one piece");
        assert_eq!(events_of(input.as_bytes().chunks(1)).unwrap(), owned, "byte by byte");
        for at in 0..=input.len() {
            let (head, tail) = input.as_bytes().split_at(at);
            assert_eq!(events_of([head, tail]).unwrap(), owned, "split at {at}");
        }
    }

    #[test]
    fn all_three_line_ends_are_understood() {
        for end in ["\n", "\r\n", "\r"] {
            let input = format!("data: a{end}{end}data: b{end}data: c{end}{end}");
            check(&input, &[("message", "a"), ("message", "b\nc")]);
        }
        check("data: a\r\n\rdata: b\n\r", &[("message", "a"), ("message", "b")]);
    }

    #[test]
    fn a_lone_carriage_return_ends_an_event_without_waiting_for_the_next_byte() {
        let mut decoder = SseDecoder::default();
        let mut input: &[u8] = b"data: a\r\r";
        assert!(decoder.push(&mut input).unwrap());
        assert_eq!(decoder.event().data, "a");
    }

    #[test]
    fn characters_split_anywhere_come_out_whole() {
        check("data: grüß Gott 🔔\n\n", &[("message", "grüß Gott 🔔")]);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        assert_eq!(events_of([&b"data: a\xffb\xe2\x82\n\n"[..]]).unwrap()[0].1, "a\u{fffd}b\u{fffd}");
    }

    #[test]
    fn the_byte_order_mark_is_passed_over_at_the_start_only() {
        check("\u{feff}data: a\n\n\u{feff}data: b\n\n", &[("message", "a")]);
        check("\u{feff}\u{feff}data: a\n\n", &[]);
    }

    #[test]
    fn comments_are_passed_over() {
        check(": ping\n\n:\n\ndata: a\n: in between\ndata: b\n\n: end\n\n", &[("message", "a\nb")]);
    }

    #[test]
    fn names_hold_for_one_event() {
        check(
            "event: delta\ndata: 1\n\ndata: 2\n\nevent: x\n\ndata: 3\n\n",
            &[("delta", "1"), ("message", "2"), ("message", "3")],
        );
    }

    #[test]
    fn one_space_after_the_colon_is_no_part_of_the_value() {
        check(
            "data:a\n\ndata:  b \n\ndata\n\ndata:\ndata:\n\n",
            &[("message", "a"), ("message", " b "), ("message", ""), ("message", "\n")],
        );
    }

    #[test]
    fn unknown_fields_are_passed_over() {
        check("id: 7\nretry: 10\nDATA: x\n data: y\ndata: a\n\n", &[("message", "a")]);
    }

    #[test]
    fn an_unfinished_event_is_handed_out_at_the_end_only() {
        check("data: a\n\ndata: b", &[("message", "a"), ("message", "b")]);
        check("data: a\n", &[("message", "a")]);
        check("event: a", &[]);
    }

    #[test]
    fn lines_are_bounded_however_they_come() {
        let line = format!(":{}\n", "x".repeat(63));
        assert!(events_of([line.as_bytes()]).is_ok());
        let line = format!(":{}\n", "x".repeat(64));
        let too_long = Err(SseError::LineTooLong { limit: 64 });
        assert_eq!(events_of([line.as_bytes()]), too_long);
        assert_eq!(events_of(line.as_bytes().chunks(1)), too_long);
        assert_eq!(events_of([[b'x'; 65].as_slice()]), too_long, "without an end");
    }

    #[test]
    fn events_are_bounded_over_their_lines() {
        let lines = "data: 0123456789\n".repeat(12);
        assert_eq!(events_of([lines.as_bytes()]), Err(SseError::EventTooLarge { limit: 128 }));
    }

    #[test]
    fn a_large_event_leaves_no_large_buffers_behind() {
        let mut decoder = SseDecoder::default();
        let event = format!("data: {}\n\n", "x".repeat(1 << 20));
        let (head, tail) = event.as_bytes().split_at(1000);
        for mut piece in [head, tail] {
            if decoder.push(&mut piece).unwrap() {
                assert_eq!(decoder.event().data.len(), 1 << 20);
            }
        }
        assert!(!decoder.push(&mut &b": ping\n"[..]).unwrap());
        assert!(decoder.data.capacity() <= KEPT && decoder.line.capacity() <= KEPT);
    }

    #[test]
    fn one_that_squeezes_reads_on_beyond_its_bounds_and_keeps_within_them() {
        let mut decoder = SseDecoder { squeezes: true, ..SseDecoder::with_limits(16 * 1024, 16 * 1024) };
        let long = format!("data: {{\"b64\":\"{}\",\"usage\":7}}\n\n", "A".repeat(100_000));
        let lost = format!("data: [{}1]\n\n", "1,".repeat(50_000));
        let many = format!("{}\n", "data: 0123456789012345\n".repeat(2_000));
        for piece in [1_000, 300_000] {
            for (text, expected) in
                [(&long, Some("\"usage\":7}")), (&lost, None), (&many, None), (&"data: x\n\n".to_owned(), Some("x"))]
            {
                let mut events = Vec::new();
                for mut piece in text.as_bytes().chunks(piece) {
                    while decoder.push(&mut piece).unwrap() {
                        let (data, is_lost) = (decoder.event().data, decoder.is_lost());
                        events.push((!is_lost).then(|| data.to_owned()));
                        assert!(data.len() < 16 * 1024 && (!is_lost || data.is_empty()));
                        assert_eq!(decoder.left_out() > 30_000, text.len() > 100);
                    }
                    assert!(decoder.line.len() <= 16 * 1024 && decoder.data.len() <= 32 * 1024);
                }
                let [event] = &events[..] else { panic!("{} events", events.len()) };
                assert_eq!(event.is_some(), expected.is_some());
                assert!(event.as_ref().is_none_or(|data| data.ends_with(expected.unwrap())), "{event:?}");
            }
        }
        assert!(!decoder.push(&mut &long.as_bytes()[..90_000]).unwrap());
        assert!(decoder.finish().unwrap() && decoder.event().data.starts_with("{\"b64\":\"A"));
    }

    proptest! {
        /// Bytes that mean something are frequent, so that events, line ends and limits are met.
        // Fault 53.
        #[test]
        fn every_split_gives_the_same_events(
            input in vec(
                prop_oneof![
                    4 => Just(b"data: ".to_vec()), 1 => Just(b"event:".to_vec()), 1 => Just(b":".to_vec()),
                    4 => Just(b"\n".to_vec()), 3 => Just(b"\r".to_vec()), 2 => Just(b"\r\n".to_vec()),
                    1 => Just(BYTE_ORDER_MARK.to_vec()), 2 => Just("🔔".as_bytes().to_vec()),
                    3 => vec(any::<u8>(), 0..20),
                ],
                0..40,
            ),
            cuts in vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let input = input.concat();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([input.len()]) {
                pieces.push(&input[from..cut]);
                from = cut;
            }
            prop_assert_eq!(events_of(pieces), events_of([&input[..]]));
        }
    }
}
