//! What fuzzing found worth keeping, replayed. A corpus is an archive: `scripts/fuzz --pack` writes it.

use std::{panic, path::Path};

use bellrope_fuzz_targets as targets;

/// Bytes of a block of a tar archive.
const BLOCK: usize = 512;

#[test]
fn every_header_of_the_corpus_is_refused_or_means_what_it_says() {
    replay("frame", targets::frame);
}

#[test]
fn every_handshake_of_the_corpus_is_refused_or_means_what_it_says() {
    replay("handshake", targets::handshake);
}

#[test]
fn a_ring_is_a_queue_and_keeps_its_bounds_over_the_corpus() {
    replay("ring", targets::ring);
}

#[test]
fn a_server_keeps_its_bounds_over_the_corpus() {
    replay("server", targets::server);
}

#[test]
fn a_client_ends_each_call_at_most_once_over_the_corpus() {
    replay("client", targets::client);
}

#[test]
fn a_fleet_keeps_its_bounds_over_what_strangers_send_of_the_corpus() {
    replay("fleet", targets::fleet);
}

#[test]
fn every_cut_of_the_corpus_gives_the_same_records() {
    replay("stream", targets::stream);
}

// Fault 53.
#[test]
fn every_cut_of_the_corpus_gives_the_same_events() {
    replay("sse", targets::sse);
}

// Fault 53.
#[test]
fn every_answer_of_the_corpus_ends_at_most_once_and_last() {
    replay("answers", targets::answers);
}

#[test]
fn every_configuration_of_the_corpus_is_refused_in_words_or_means_the_same_when_written_again() {
    replay("config", targets::config);
}

#[test]
fn what_json_reads_of_the_corpus_it_writes_the_same() {
    replay("json", targets::json);
}

#[test]
fn what_postcard_reads_of_the_corpus_it_writes_the_same_and_as_json() {
    replay("postcard", targets::postcard);
}

#[test]
fn every_schema_of_the_corpus_is_refused_or_keeps_its_bounds() {
    replay("schema", targets::schema);
}

/// Runs a property over every input of a corpus, and names those of which it does not hold.
fn replay(corpus: &str, property: fn(&[u8])) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(corpus).with_extension("tar");
    let archive = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let inputs = unpack(&archive);
    assert!(inputs.len() >= 10, "{} holds only {} inputs", path.display(), inputs.len());
    let breaks = |input: &[u8]| panic::catch_unwind(|| property(input)).is_err();
    let broken: Vec<_> = inputs.iter().filter(|(_, input)| breaks(input)).map(|(name, _)| name).collect();
    assert!(broken.is_empty(), "{}: it does not hold of {broken:?}", path.display());
}

/// The files of a plain tar archive: their names and contents.
fn unpack(archive: &[u8]) -> Vec<(String, &[u8])> {
    let text = |field: &[u8]| {
        let field = field.split(|byte| *byte == 0).next().unwrap_or_default();
        std::str::from_utf8(field).unwrap().trim().to_owned()
    };
    let (mut files, mut rest) = (Vec::new(), archive);
    while let Some((header, after)) = rest.split_at_checked(BLOCK).filter(|(header, _)| header[0] != 0) {
        let name = text(&header[..100]);
        assert!(&header[257..262] == b"ustar" && header[156] == b'0', "{name} is no plain file of a plain archive");
        let len = usize::from_str_radix(&text(&header[124..136]), 8).unwrap();
        files.push((name, &after[..len]));
        rest = &after[len.next_multiple_of(BLOCK)..];
    }
    files
}
