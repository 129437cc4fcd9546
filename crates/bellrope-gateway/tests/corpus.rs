//! What fuzzing found worth keeping, replayed.

#[expect(unreachable_pub, reason = "in the crate of the fuzz targets it is public")]
#[path = "../fuzz/src/lib.rs"]
mod properties;

fn replay(corpus: &str, property: fn(&[u8])) {
    bellrope_testkit::replay(env!("CARGO_MANIFEST_DIR"), corpus, property);
}

// Fault 53.
#[test]
fn every_cut_of_the_corpus_gives_the_same_events() {
    replay("sse", properties::sse);
}

// Fault 53.
#[test]
fn every_answer_of_the_corpus_ends_at_most_once_and_last() {
    replay("answers", properties::answers);
}

#[test]
fn every_configuration_of_the_corpus_is_refused_in_words_or_means_the_same_when_written_again() {
    replay("config", properties::config);
}
