//! Patterns of message types, and their subjects; and what is a key.

use std::fmt::Write as _;

/// Whether a name is one of those that a pattern means: `*` stands for any characters.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Whether one of the patterns means it.
pub(crate) fn any_matches(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name))
}

/// A name as the last tokens of a subject: what NATS takes for its own is written as `%` and two digits.
pub(crate) fn subject(name: &str) -> String {
    let tokens = name.split('.').all(|token| !token.is_empty());
    let mut subject = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => subject.push(char::from(byte)),
            b'.' if tokens => subject.push('.'),
            other => {
                let _ = write!(subject, "%{other:02x}");
            }
        }
    }
    subject
}

/// A name as the services interface takes names of endpoints.
pub(crate) fn endpoint(name: &str) -> String {
    subject(name).replace(['.', '%'], "_")
}

/// Whether this is the public key of a user or an account.
pub(crate) fn is_public_key(text: &str) -> bool {
    nkeys::KeyPair::from_public_key(text)
        .is_ok_and(|pair| matches!(pair.key_pair_type(), nkeys::KeyPairType::User | nkeys::KeyPairType::Account))
}

/// Most bytes of the name of a server or token.
const MAX_NAME: usize = 64;

/// Whether a text can be the name of a server or token: it travels in a header, which has no blanks at its ends.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && !name.contains(char::is_control) && name.trim() == name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name) in
            [("*", "a"), ("ai.*", "ai.chat"), ("*.read", "Files.read"), ("a*c*e", "abcde"), ("a", "a")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("ai.*", "xi.chat"), ("a", "ab"), ("a*c", "ab"), ("a*a", "a"), ("", "a")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_subject_has_no_wildcards_and_no_empty_tokens() {
        assert_eq!(subject("ai.chat"), "ai.chat");
        assert_eq!(subject("a..b"), "a%2e%2eb");
        assert_eq!(subject("*.>"), "%2a.%3e");
        assert_eq!(subject("two words"), "two%20words");
        assert_eq!(endpoint("ai.chat"), "ai_chat");
    }
}
