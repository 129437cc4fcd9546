//! Replays a corpus of the fuzz targets.

use std::path::Path;

/// Runs a property over every file of a corpus. `manifest_dir` is the folder of the crate that has the corpus:
/// `env!("CARGO_MANIFEST_DIR")` in its tests.
///
/// # Panics
/// If the corpus is missing, or holds fewer than ten files.
pub fn replay(manifest_dir: &str, corpus: &str, property: fn(&[u8])) {
    let folder = Path::new(manifest_dir).join("fuzz/corpus").join(corpus);
    let mut replayed = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        property(&std::fs::read(entry.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed >= 10, "{} holds only {replayed} files", folder.display());
}
