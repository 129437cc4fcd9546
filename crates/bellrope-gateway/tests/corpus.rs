//! What fuzzing found worth keeping, replayed.

use std::path::Path;

#[expect(unreachable_pub, reason = "in the crate of the fuzz targets it is public")]
#[path = "../fuzz/src/lib.rs"]
mod properties;

/// Runs a property over every file of a corpus.
fn replay(corpus: &str, property: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(corpus);
    let mut replayed = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        property(&std::fs::read(entry.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed >= 10, "{} holds only {replayed} files", folder.display());
}

#[test]
fn every_cut_of_the_corpus_gives_the_same_events() {
    replay("sse", properties::sse);
}

#[test]
fn every_answer_of_the_corpus_ends_at_most_once_and_last() {
    replay("answers", properties::answers);
}
