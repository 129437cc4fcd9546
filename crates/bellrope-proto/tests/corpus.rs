//! What fuzzing found worth keeping, replayed.

#[expect(unreachable_pub, reason = "in the crate of the fuzz targets it is public")]
#[path = "../fuzz/src/lib.rs"]
mod properties;

fn replay(corpus: &str, property: fn(&[u8])) {
    bellrope_testkit::replay(env!("CARGO_MANIFEST_DIR"), corpus, property);
}

#[test]
fn every_header_of_the_corpus_is_refused_or_means_what_it_says() {
    replay("frame", properties::frame);
}

#[test]
fn every_handshake_of_the_corpus_is_refused_or_means_what_it_says() {
    replay("handshake", properties::handshake);
}

#[test]
fn a_ring_is_a_queue_and_keeps_its_bounds_over_the_corpus() {
    replay("ring", properties::ring);
}

#[test]
fn a_server_keeps_its_bounds_over_the_corpus() {
    replay("server", properties::server);
}

#[test]
fn a_client_ends_each_call_at_most_once_over_the_corpus() {
    replay("client", properties::client);
}
