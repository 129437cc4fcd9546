//! Every relative link in the documents leads to a file that is there, and to a heading that is there if it names one. Every
//! source file that they name in backquotes is there, too.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::{documents, found::Found, sources};

/// Follows every relative link.
///
/// # Errors
/// A document cannot be read.
pub fn check(root: &Path) -> anyhow::Result<Found> {
    let documents = documents::all(root)?;
    let mut found = Found::default();
    let (mut checked, mut named) = (0, 0);
    let known = sources::files(root, "rs")?;
    for document in &documents {
        let place = document.strip_prefix(root).unwrap_or(document).display();
        let text = sources::text(document)?;
        for (line, link) in links(&text) {
            if is_relative(&link) {
                checked += 1;
                found.faults.extend(fault(document, &link)?.map(|fault| format!("{place}:{line}: {link}: {fault}")));
            }
        }
        // What has changed was once as it says.
        if document.ends_with("CHANGELOG.md") {
            continue;
        }
        for (line, file) in files_named(&text) {
            named += 1;
            if !known.iter().any(|known| known.ends_with(&file)) {
                found.faults.push(format!("{place}:{line}: `{file}`: there is no such file"));
            }
        }
    }
    found.summary = format!("{checked} links and {named} names of source files in {} documents", documents.len());
    Ok(found)
}

fn is_relative(link: &str) -> bool {
    !(link.is_empty() || link.contains("://") || link.starts_with("mailto:") || link.starts_with('/'))
}

/// What is wrong with a link in this document.
fn fault(document: &Path, link: &str) -> anyhow::Result<Option<String>> {
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let target: PathBuf =
        if path.is_empty() { document.to_owned() } else { document.parent().unwrap_or(Path::new("")).join(path) };
    if !target.exists() {
        return Ok(Some("there is no such file".to_owned()));
    }
    let Some(anchor) = anchor else { return Ok(None) };
    if target.extension().is_none_or(|end| end != "md") {
        return Ok(Some("only a document has headings to link to".to_owned()));
    }
    let anchors = anchors(&sources::text(&target)?);
    Ok((!anchors.contains(anchor)).then(|| "there is no such heading".to_owned()))
}

/// The lines of a document outside its code blocks, each with its number.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        (!in_code && !fence).then_some((index + 1, line))
    })
}

/// The same without code in backquotes.
fn prose(text: &str) -> impl Iterator<Item = (usize, String)> {
    lines(text).map(|(number, line)| (number, line.split('`').step_by(2).collect::<Vec<_>>().join("`")))
}

/// The source files that a document names in backquotes, each with its line: `ring/producer.rs`, `a/{b,c}.rs`.
fn files_named(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in lines(text) {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "_-./{},".contains(c);
        let named =
            line.split('`').skip(1).step_by(2).filter(|code| code.ends_with(".rs") && code.chars().all(is_part));
        found.extend(named.flat_map(alternatives).map(|file| (number, file)));
    }
    found
}

/// `a/{b,c}.rs` is `a/b.rs` and `a/c.rs`.
fn alternatives(name: &str) -> Vec<String> {
    let Some((before, rest)) = name.split_once('{') else { return vec![name.to_owned()] };
    let Some((words, after)) = rest.split_once('}') else { return vec![name.to_owned()] };
    words.split(',').flat_map(|word| alternatives(&format!("{before}{word}{after}"))).collect()
}

/// The targets of all links of a document, each with its line: `[text](target)`, `![](target)`, `[label]: target`.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        if let Some((label, target)) = line.strip_prefix('[').and_then(|rest| rest.split_once("]: "))
            && !label.contains(']')
        {
            found.push((number, target.trim().to_owned()));
        }
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        // A title may come after the target.
        let targets = targets.filter_map(|(target, _)| target.split_whitespace().next());
        found.extend(targets.map(|target| (number, target.to_owned())));
    }
    found
}

/// The names that links can give the headings of a document, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut in_code = false;
    for line in text.lines() {
        in_code ^= line.trim_start().starts_with("```");
        let Some(heading) = line.strip_prefix('#').filter(|_| !in_code) else { continue };
        let name: String = heading
            .trim_start_matches('#')
            .trim()
            .chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                '-' | '_' => Some(c),
                c => c.is_alphanumeric().then_some(c),
            })
            .flat_map(char::to_lowercase)
            .collect();
        // The second one of the same name has a number.
        let mut again = (1..).map(|number| format!("{name}-{number}"));
        let mut one = name.clone();
        while !found.insert(one.clone()) {
            one = again.next().unwrap_or_default();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_in_prose_and_not_in_code() {
        let text = "[a](one.md) and ![b](two.png \"title\")\n`[c](no.md)` [`d`](three.rs#x)\n```\n[e](no.md)\n```\n\
                    [label]: four.md\n";
        let targets: Vec<_> = links(text).into_iter().collect();
        let expected = [(1, "one.md"), (1, "two.png"), (2, "three.rs#x"), (6, "four.md")];
        assert_eq!(targets, expected.map(|(line, target)| (line, target.to_owned())));
    }

    #[test]
    fn source_files_are_found_in_backquotes() {
        let text = "see `a/{b,c}/{d,e}.rs`, [`f.rs`](g.rs) and `h::i`, `say j.rs`\n```\n`k.rs`\n```\n";
        let named = files_named(text).into_iter().map(|(_, file)| file).collect::<Vec<_>>();
        assert_eq!(named, ["a/b/d.rs", "a/b/e.rs", "a/c/d.rs", "a/c/e.rs", "f.rs"]);
    }

    #[test]
    fn a_link_leads_to_a_file_and_a_heading() {
        let folder = tempfile::tempdir().unwrap();
        let document = folder.path().join("a.md");
        std::fs::write(&document, "# Whose `word`, and why?\n## Twice\n## Twice\n```\n# no heading\n```\n").unwrap();
        std::fs::write(folder.path().join("b.rs"), "").unwrap();
        for (link, fault_expected) in [
            ("b.rs", None),
            ("a.md#whose-word-and-why", None),
            ("#twice", None),
            ("#twice-1", None),
            ("#twice-2", Some("heading")),
            ("#no-heading", Some("heading")),
            ("b.rs#l1", Some("only a document")),
            ("c.rs", Some("no such file")),
        ] {
            let found = fault(&document, link).unwrap();
            assert_eq!(found.is_some(), fault_expected.is_some(), "{link}: {found:?}");
            assert!(found.is_none_or(|found| found.contains(fault_expected.unwrap())), "{link}");
        }
        assert!(!is_relative("https://example.org/a") && is_relative("../docs"));
    }
}
