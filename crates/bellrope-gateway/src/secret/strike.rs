//! Striking a key out of bytes that a provider sent, however it quotes it there.

use std::sync::Arc;

use bytes::Bytes;
use memchr::memchr3;
use memchr::memmem::Finder;

/// What stands in place of a key.
pub(super) const SHOWN: &str = "[secret]";
/// A shorter key is not looked for: it would match by chance. In bytes.
const MIN_KEY: usize = 6;
/// A shorter key may be a word, such as the name of a local server: it is looked for in errors alone. In bytes.
const DISTINCT: usize = 16;
/// The shortest part of a key in base64 that is looked for, in characters.
const MIN_DIGITS: usize = 8;
/// How many backslashes may stand before a character that is written as a JSON escape: texts of JSON stand in texts of JSON.
const MAX_BACKSLASHES: usize = 4;

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const FOR_URLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Finds a key as it is, with any of its characters as `\u00xx` or `%xx`, and in base64.
#[derive(Debug)]
pub(crate) struct Strike {
    key: Box<[u8]>,
    /// What all base64 of a text with the key in it has, by where in a group of three bytes the key begins.
    digits: Vec<Finder<'static>>,
}

/// Strikes a key out of bytes that come in pieces.
#[derive(Debug)]
pub(crate) struct Striking {
    strike: Arc<Strike>,
    /// What may be the beginning of the key.
    held: Vec<u8>,
}

/// What stands at a place of a text.
enum Found {
    /// The key, up to here.
    Key(usize),
    /// Its beginning, and then the end of the text.
    Begun,
    Nothing,
}

impl Strike {
    /// `None` if the key is too short to be looked for.
    pub(crate) fn new(key: &str) -> Option<Self> {
        let key = key.as_bytes();
        if key.len() < MIN_KEY {
            return None;
        }
        let mut digits: Vec<Vec<u8>> = Vec::new();
        for (shift, alphabet) in [0, 1, 2].into_iter().flat_map(|shift| [(shift, STANDARD), (shift, FOR_URLS)]) {
            let found = base64_within(key, shift, alphabet);
            if found.len() >= MIN_DIGITS && !digits.contains(&found) {
                digits.push(found);
            }
        }
        let digits = digits.iter().map(|digits| Finder::new(digits).into_owned()).collect();
        Some(Self { key: key.into(), digits })
    }

    /// Whether what it finds in an answer is the key, rather than a word that somebody took for one.
    pub(crate) fn is_distinct(&self) -> bool {
        self.key.len() >= DISTINCT
    }

    /// These bytes with `[secret]` in each place of the key. `None` if it stands nowhere.
    pub(crate) fn struck(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut places = Vec::new();
        for digits in &self.digits {
            places.extend(digits.find_iter(bytes).map(|at| (at, at + digits.needle().len())));
        }
        let mut at = 0;
        while let Some(begin) = self.candidate(bytes, at) {
            at = begin + 1;
            if let Found::Key(end) = self.look(bytes, begin) {
                places.push((begin, end));
                at = end;
            }
        }
        if places.is_empty() {
            return None;
        }
        places.sort_unstable();
        let (mut struck, mut at) = (Vec::with_capacity(bytes.len()), 0);
        for (begin, end) in places {
            if begin >= at {
                struck.extend_from_slice(&bytes[at..begin]);
                struck.extend_from_slice(SHOWN.as_bytes());
            }
            at = at.max(end);
        }
        struck.extend_from_slice(&bytes[at..]);
        Some(struck)
    }

    /// Where the last bytes begin that may be the beginning of the key.
    fn begun(&self, bytes: &[u8]) -> usize {
        // No form of a key has a line end, and all whole events end with one.
        let after_line = memchr::memrchr2(b'\n', b'\r', bytes).map_or(0, |at| at + 1);
        let line = &bytes[after_line..];
        let is_begun = |digits: &Finder<'_>| {
            let most = line.len().min(digits.needle().len() - 1);
            (1..=most).rev().find(|len| line.ends_with(&digits.needle()[..*len])).unwrap_or(0)
        };
        let of_digits = self.digits.iter().map(is_begun).max().unwrap_or(0);
        let mut begun = line.len() - of_digits;
        let mut at = 0;
        while let Some(begin) = self.candidate(line, at).filter(|begin| *begin < begun) {
            if matches!(self.look(line, begin), Found::Begun) {
                begun = begin;
            }
            at = begin + 1;
        }
        after_line + begun
    }

    /// The next place where the key may begin.
    fn candidate(&self, bytes: &[u8], from: usize) -> Option<usize> {
        bytes.get(from..).and_then(|rest| memchr3(self.key[0], b'\\', b'%', rest)).map(|at| from + at)
    }

    fn look(&self, bytes: &[u8], mut at: usize) -> Found {
        for &expected in &*self.key {
            match bytes.get(at) {
                None => return Found::Begun,
                Some(&byte) if byte == expected && byte != b'%' => at += 1,
                Some(b'%') => match hex(bytes, at + 1, 2) {
                    Some((value, end)) if value == u32::from(expected) => at = end,
                    None if is_begun(bytes, at + 1, 2) => return Found::Begun,
                    _ if expected == b'%' => at += 1,
                    _ => return Found::Nothing,
                },
                Some(b'\\') => {
                    // Of a long run only so many are looked at from each place, or it would be looked at again and again.
                    let run = bytes[at..].iter().take(MAX_BACKSLASHES + 1);
                    let backslashes = run.take_while(|byte| **byte == b'\\').count();
                    at += backslashes;
                    match bytes.get(at) {
                        _ if backslashes > MAX_BACKSLASHES => return Found::Nothing,
                        None => return Found::Begun,
                        Some(b'u') => match hex(bytes, at + 1, 4) {
                            Some((value, end)) if value == u32::from(expected) => at = end,
                            None if is_begun(bytes, at + 1, 4) => return Found::Begun,
                            _ => return Found::Nothing,
                        },
                        Some(&byte) if byte == expected => at += 1,
                        Some(_) => return Found::Nothing,
                    }
                }
                Some(_) => return Found::Nothing,
            }
        }
        Found::Key(at)
    }
}

impl Striking {
    pub(crate) fn new(strike: Arc<Strike>) -> Self {
        Self { strike, held: Vec::new() }
    }

    /// Takes bytes in; gives what of them, and of those before, is known to hold no part of the key.
    pub(crate) fn take_in(&mut self, bytes: Bytes) -> Bytes {
        let bytes = if self.held.is_empty() {
            bytes
        } else {
            let mut all = std::mem::take(&mut self.held);
            all.extend_from_slice(&bytes);
            all.into()
        };
        let mut bytes = self.strike.struck(&bytes).map_or(bytes, Bytes::from);
        self.held.extend_from_slice(&bytes.split_off(self.strike.begun(&bytes)));
        bytes
    }

    /// What is held, as nothing follows.
    pub(crate) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.held).into()
    }
}

/// The number that so many hexadecimal digits are, and where they end.
fn hex(bytes: &[u8], at: usize, digits: usize) -> Option<(u32, usize)> {
    let text = std::str::from_utf8(bytes.get(at..at + digits)?).ok()?;
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u32::from_str_radix(text, 16).ok()).flatten().map(|value| (value, at + digits))
}

/// Whether the text ends within so many hexadecimal digits.
fn is_begun(bytes: &[u8], at: usize, digits: usize) -> bool {
    let rest = &bytes[at.min(bytes.len())..];
    rest.len() < digits && rest.iter().all(u8::is_ascii_hexdigit)
}

/// The digits that base64 of any text has where `key` stands in it, `shift` bytes after the beginning of a group.
fn base64_within(key: &[u8], shift: usize, alphabet: &[u8; 64]) -> Vec<u8> {
    let mut bytes = vec![0; shift];
    bytes.extend_from_slice(key);
    let (first, last) = ((shift * 8).div_ceil(6), bytes.len() * 8 / 6);
    let six = |at: usize| {
        let bit = at * 6;
        let pair = u16::from(bytes[bit / 8]) << 8 | u16::from(bytes.get(bit / 8 + 1).copied().unwrap_or(0));
        alphabet[usize::from(pair >> (10 - bit % 8) & 63)]
    };
    (first..last).map(six).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "sk-a/b+c%3?>~0123";

    fn strike() -> Strike {
        Strike::new(KEY).unwrap()
    }

    fn struck(text: &str) -> String {
        strike().struck(text.as_bytes()).map_or_else(|| text.to_owned(), |bytes| String::from_utf8(bytes).unwrap())
    }

    /// Base64 of a text, as others write it.
    fn base64(text: &str, alphabet: &[u8; 64]) -> String {
        let digits = base64_within(text.as_bytes(), 0, alphabet);
        let bits = text.len() * 8;
        let rest = (!bits.is_multiple_of(6)).then(|| {
            let last = u32::from(*text.as_bytes().last().unwrap());
            alphabet[(last << (6 - bits % 6) & 63) as usize]
        });
        String::from_utf8(digits.into_iter().chain(rest).collect()).unwrap()
    }

    fn percent(text: &str) -> String {
        text.bytes().map(|byte| format!("%{byte:02x}")).collect()
    }

    /// With what grows with the square of a run this would take hours.
    #[test]
    fn a_long_run_of_backslashes_is_looked_at_once() {
        let run = vec![b'\\'; 1 << 20];
        let long = [&run, KEY.as_bytes()].concat();
        assert_eq!(strike().struck(&run), None);
        let escaped = run.len() - MAX_BACKSLASHES;
        assert_eq!(strike().struck(&long).unwrap().len(), escaped + SHOWN.len());
        let mut striking = Striking::new(Arc::new(strike()));
        let told = striking.take_in(run.clone().into()).len() + striking.rest().len();
        assert_eq!(told, run.len());
    }

    /// The forms in which a key is quoted.
    fn forms() -> Vec<String> {
        let unicode: String = KEY.bytes().map(|byte| format!("\\u{byte:04X}")).collect();
        let mixed: String = KEY
            .bytes()
            .enumerate()
            .map(|(at, byte)| match at % 4 {
                0 => format!("\\\\u{byte:04x}"),
                1 => format!("%{byte:02X}"),
                2 => format!("\\\\\\\\u{byte:04x}"),
                _ => char::from(byte).to_string(),
            })
            .collect();
        vec![KEY.to_owned(), KEY.replace('/', "\\/"), percent(KEY), unicode, mixed]
    }

    #[test]
    fn a_key_is_struck_out_in_every_form_and_nothing_beside_it() {
        for form in forms() {
            let text = format!("{{\"a\":\"sk-\\u0073 %73 {form}\", \"b\":\"{form}{form}\\n\"}}");
            let expected = text.replace(&form, SHOWN);
            assert_eq!(struck(&text), expected, "{form}");
        }
        for before in ["", "a", "ab", "user:", "Bearer "] {
            for (alphabet, after) in [(STANDARD, ""), (FOR_URLS, "x"), (STANDARD, "xy")] {
                let quoted = base64(&format!("{before}{KEY}{after}"), alphabet);
                let text = format!("Basic {quoted}!");
                let told = struck(&text);
                assert!(told.contains(SHOWN) && told.len() < SHOWN.len() + 7 + 14 + 12, "{text}: {told}");
                assert!(told.starts_with("Basic ") && told.ends_with('!'), "{told}");
            }
        }
        for other in [&KEY[1..], &KEY[..KEY.len() - 1], "sk-a/b+c%3?>~0124", "\\u0073k", "%", "\\", ""] {
            assert_eq!(strike().struck(other.as_bytes()), None, "{other}");
        }
        assert!(Strike::new("short").is_none());
        assert_eq!(Strike::new("a\u{20ac}bcde").unwrap().struck("xa\u{20ac}bcde".as_bytes()).unwrap(), b"x[secret]");
    }

    #[test]
    fn what_is_held_for_a_key_is_bounded() {
        let mut striking = Striking::new(Arc::new(strike()));
        for piece in ["\\".repeat(10_000), "sk-".repeat(10_000), "%7".repeat(10_000), KEY[..9].repeat(1_000)] {
            striking.take_in(piece.into());
            assert!(striking.held.len() <= KEY.len() * 10, "{}", striking.held.len());
        }
        assert_eq!(&striking.rest()[..], &KEY.as_bytes()[..9]);
        let whole = Bytes::from_static(b"data: sk-\n\n");
        assert_eq!(striking.take_in(whole.clone()).as_ptr(), whole.as_ptr(), "and nothing is copied for it");
    }

    proptest! {
        /// However the bytes are cut, the same comes out of them as of the whole.
        #[test]
        fn every_split_is_struck_like_the_whole(
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
            parts in proptest::collection::vec((0..7_usize, "[sk\\\\%u0-9\n-]{0,6}"), 1..5),
        ) {
            let mut forms = forms();
            forms.push(base64(&format!("a{KEY}b"), STANDARD));
            forms.push(String::new());
            let text: String = parts.iter().map(|(form, after)| format!("{} {after}", forms[*form])).collect();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.push(text.len());
            cuts.sort_unstable();
            let mut striking = Striking::new(Arc::new(strike()));
            let (mut out, mut from) = (Vec::new(), 0);
            for to in cuts {
                out.extend_from_slice(&striking.take_in(Bytes::copy_from_slice(&text.as_bytes()[from..to])));
                from = to;
            }
            out.extend_from_slice(&striking.rest());
            prop_assert_eq!(String::from_utf8(out).unwrap(), struck(&text));
        }
    }
}
