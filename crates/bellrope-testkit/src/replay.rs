//! Replays a corpus of the crate whose test includes this.

use std::path::Path;

/// Runs a property over every file of a corpus.
pub(crate) fn replay(corpus: &str, property: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(corpus);
    let mut replayed = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        property(&std::fs::read(entry.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed >= 10, "{} holds only {replayed} files", folder.display());
}
