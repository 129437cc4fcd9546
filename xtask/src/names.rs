//! A name means one thing: two types that more than one file may name are not called the same, unless they are the same thing
//! in two places.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    code::{code_only, counted_lines, words},
    found::Found,
    sources,
};

/// Names of more than one type, each with what all of these are.
const SAME: &[(&str, &str)] = &[
    ("AnyArgs", "whatever somebody gives to a command that this program was built without"),
    ("Arguments", "what a method is given: of the macro, and of the code that `generate` writes"),
    ("AsyncUpload", "a call that takes a stream: of bytes, and of a service's items"),
    ("Blame", "who has to act: on a call's error, and on a provider's"),
    ("Counters", "counts since the start: of a server as the bench reads them, and of a fleet"),
    ("Credit", "what a stream may send ahead of its reader: in a ring, and through a fleet"),
    ("FleetArgs", "the arguments of what has to do with a fleet: `serve`, and `bench fleet`"),
    ("KillPoint", "a step after which a test kills the process: of the protocol, and of client and server"),
    ("ListArgs", "the arguments of a command `list`"),
    ("Method", "a method of a service: as it is declared, as clients call it, and as `generate` writes it"),
    ("Outcome", "how what was begun has ended: a request to a provider, and a command"),
    ("Output", "what a method answers with: as it is declared, and as it travels"),
    ("Service", "a service: as it is declared, as it answers, and as `generate` writes it"),
    ("SettingFault", "what is wrong with a setting: of the books, and of a fleet"),
    ("Settings", "the settings of a server: as they are read, and as they hold"),
    ("SharedMemory", "memory of two processes, and what stands in for it in a model"),
    ("State", "what a lock of its file guards"),
    ("Style", "how a message type is called: on the wire, and in a trait"),
    ("TopArgs", "the arguments of a command `top`"),
    ("Translator", "of a wire format's events: each format has its own"),
    ("Transport", "what carries records: as it is on the wire, and as a client may choose"),
    ("Upload", "a call that takes a stream: of bytes, and of a service's items"),
    ("View", "a part of shared memory, and what stands in for it in a model"),
];

/// Crates whose types nobody meets beside the others'.
const APART: [&str; 2] = ["crates/bellrope-peers", "crates/bellrope-testkit"];

/// Every name of a type of a crate that ships has one meaning. What only the files of one folder may name is not looked at.
///
/// # Errors
/// A file cannot be read.
pub fn check(root: &Path) -> anyhow::Result<Found> {
    let mut types = BTreeMap::<String, Vec<PathBuf>>::new();
    for path in sources::files(&root.join("crates"), "rs")? {
        let within = path.strip_prefix(root).unwrap_or(&path);
        let is_test = within.file_name().is_some_and(|name| name == "tests.rs");
        let ships = within.iter().nth(2).is_some_and(|folder| folder == "src");
        if !ships || is_test || APART.iter().any(|apart| within.starts_with(apart)) {
            continue;
        }
        for name in types_of(&sources::text(&path)?) {
            types.entry(name).or_default().push(within.to_owned());
        }
    }
    Ok(Found::new(format!("{} names of types", types.len()), faults(&types, SAME)))
}

/// The types that a source declares for others than the files beside it.
fn types_of(source: &str) -> Vec<String> {
    let code = code_only(source);
    let declared = code.lines().take(counted_lines(source)).filter_map(|line| {
        let line = line.trim_start();
        let line = line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub "))?;
        let mut words = words(line);
        let is_type = matches!(words.next()?, "struct" | "enum" | "trait" | "type" | "union");
        is_type.then(|| words.next().map(str::to_owned))?
    });
    declared.collect()
}

fn faults(types: &BTreeMap<String, Vec<PathBuf>>, same: &[(&str, &str)]) -> Vec<String> {
    let excused = |name: &str| same.iter().any(|(known, _)| *known == name);
    let twice = types.iter().filter(|(name, files)| files.len() > 1 && !excused(name)).map(|(name, files)| {
        let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        format!(
            "{name} is the name of types in {}: rename all but one, or say in SAME ({}) what they all are",
            files.join(", "),
            file!()
        )
    });
    let once = same.iter().filter(|(name, _)| types.get(*name).is_none_or(|files| files.len() < 2));
    let once = once.map(|(name, _)| format!("{name} is the name of one type at most: take it off SAME ({})", file!()));
    twice.chain(once).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_that_others_may_name_are_found() {
        let source = "pub struct A<T>(T);\npub(crate) enum B {\n}\npub(super) struct C;\nstruct D;\n\
                      // pub struct E;\npub type F = u8;\npub fn struct_g() {}\n\
                      #[cfg(test)]\nmod tests {\n    pub(crate) struct H;\n}\n";
        assert_eq!(types_of(source), ["A", "B", "F"]);
    }

    #[test]
    fn a_name_of_two_types_needs_a_word_and_a_word_needs_two_types() {
        let files = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let types = BTreeMap::from([("A".to_owned(), files(&["x.rs", "y.rs"])), ("B".to_owned(), files(&["x.rs"]))]);
        let found = faults(&types, &[]);
        assert!(matches!(&found[..], [only] if only.starts_with("A is the name of types in x.rs, y.rs")), "{found:?}");
        assert!(faults(&types, &[("A", "an A")]).is_empty());
        let found = faults(&types, &[("A", "an A"), ("B", "a B")]);
        assert!(matches!(&found[..], [only] if only.starts_with("B is the name of one type at most")), "{found:?}");
    }
}
