//! Source text without what is no code: comments, literals, unit tests at the end.

/// The lines of a file without the `#[cfg(test)] mod tests { ... }` at its end.
pub(crate) fn counted_lines(source: &str) -> usize {
    let code = code_only(source);
    let tests = code.match_indices("#[cfg(").map(|(start, _)| start).find(|&start| {
        let (attribute, after) = split_attribute(&code[start..]);
        words(attribute).any(|word| word == "test") && skip_attributes(after).starts_with("mod tests {")
    });
    code[..tests.unwrap_or(code.len())].lines().count()
}

fn skip_attributes(code: &str) -> &str {
    let code = code.trim_start();
    if code.starts_with("#[") { skip_attributes(split_attribute(code).1) } else { code }
}

/// Cuts `#[...]` off the front of `code`.
fn split_attribute(code: &str) -> (&str, &str) {
    let mut depth = 0_usize;
    let close = code.find(|c| {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        c == ']' && depth == 0
    });
    code.split_at(close.map_or(code.len(), |close| close + 1))
}

/// The words of a line of code.
pub(crate) fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !is_word(c)).filter(|word| !word.is_empty())
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// `source` with comments and literals blanked out; line breaks stay, so a line keeps its number.
pub(crate) fn code_only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while !rest.is_empty() {
        let (length, is_code) = next_piece(rest);
        let (piece, after) = rest.split_at(length);
        if is_code {
            code.push_str(piece);
        } else {
            code.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        rest = after;
    }
    code
}

/// The length in bytes of the comment, literal, word or single character that `rest` starts with, and whether it is
/// code.
fn next_piece(rest: &str) -> (usize, bool) {
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), false);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), false);
    }
    let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    if word > 0 {
        let raw = matches!(&rest[..word], "r" | "br" | "cr").then(|| raw_string(&rest[word..])).flatten();
        return raw.map_or((word, true), |length| (word + length, false));
    }
    let mut chars = rest.chars();
    match (chars.next(), chars.next(), chars.next()) {
        (Some('"'), ..) => (quoted(rest, '"'), false),
        (Some('\''), Some('\\'), _) => (quoted(rest, '\''), false),
        (Some('\''), Some(only), Some('\'')) => (only.len_utf8() + 2, false),
        (first, ..) => (first.map_or(0, char::len_utf8), true),
    }
}

/// The length of a block comment; Rust's may contain others.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of a raw string from its first `#` or `"` on; nothing if this is not one.
fn raw_string(rest: &str) -> Option<usize> {
    let hashes = rest.find(|c| c != '#')?;
    let body = rest[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(body.find(&end).map_or(rest.len(), |close| hashes + 1 + close + end.len()))
}

/// The length of a literal in `quote`s, both included; a backslash hides the character after it.
fn quoted(rest: &str, quote: char) -> usize {
    let mut hidden = false;
    let close = rest.char_indices().skip(1).find(|&(_, c)| {
        let closes = c == quote && !hidden;
        hidden = c == '\\' && !hidden;
        closes
    });
    close.map_or(rest.len(), |(close, _)| close + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code() {
        for (source, expected) in [
            ("a // unsafe\nb", "a b"),
            ("a /* unsafe /* in */ unsafe */ b", "a b"),
            (r#"f("unsafe \" unsafe", x)"#, "f x"),
            ("r#\"unsafe \" \"# y", "y"),
            (r"['\'', '\\', 'u', '\u{7b}'] z", "z"),
            ("fn f<'a>(x: &'a str)", "fn f a x a str"),
            ("#![forbid(unsafe_code)]", "forbid unsafe_code"),
            ("unsafe { f() }", "unsafe f"),
        ] {
            let code = code_only(source);
            assert_eq!(words(&code).collect::<Vec<_>>().join(" "), expected, "{source}");
            assert_eq!(code.lines().count(), source.lines().count(), "{source}");
        }
    }

    #[test]
    fn unit_tests_at_the_end_do_not_count() {
        let tests = "mod tests {\n    #[test]\n    fn t() {}\n}\n";
        assert_eq!(counted_lines("a\nb\n"), 2);
        assert_eq!(counted_lines(&format!("a\n\n#[cfg(test)]\n{tests}")), 2);
        assert_eq!(
            counted_lines(&format!("a\n#[cfg(all(test, not(loom)))]\n#[expect(x, reason = \"]\")]\n{tests}")),
            1
        );
        assert_eq!(counted_lines("#[cfg(test)]\nmod tests;\na\n"), 3);
        assert_eq!(counted_lines(&format!("// #[cfg(test)]\n{tests}")), 5);
    }
}
