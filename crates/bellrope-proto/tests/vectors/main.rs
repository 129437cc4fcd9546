//! The test vectors of docs/wire.md: made by the code that ships, so that docs/vectors/ says what it does, and compared
//! with what is there. With `BELLROPE_WRITE_VECTORS=1` they are written anew.

mod bytes;
mod conversations;
mod handshake;
mod lost;
mod metadata;
mod ring;
mod streams;
mod table;
mod version_1_0;
mod violations;

use std::{fs, path::Path};

use serde_json::Value;

/// Compares a file of vectors with what the code makes, or writes it.
fn check(name: &str, made: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/vectors").join(name);
    if std::env::var_os("BELLROPE_WRITE_VECTORS").is_some() {
        fs::write(&path, format!("{made:#}\n")).unwrap();
    }
    let kept: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(&kept, made, "{name} is not what the code makes; BELLROPE_WRITE_VECTORS=1 writes it anew");
}

#[test]
fn the_handshake_is_that_of_the_vectors() {
    check("handshake.json", &handshake::vectors());
}

#[test]
fn pages_and_changes_of_the_table_are_those_of_the_vectors() {
    check("table.json", &table::vectors());
}

#[test]
fn metadata_of_calls_are_those_of_the_vectors() {
    check("metadata.json", &metadata::vectors());
}

#[test]
fn both_ends_say_what_those_of_version_1_0_said() {
    version_1_0::replay();
}

#[test]
fn records_and_error_codes_are_those_of_the_vectors() {
    check("records.json", &bytes::records());
    check("errors.json", &bytes::errors());
}

#[test]
fn credit_and_parts_are_those_of_the_vectors() {
    check("credit.json", &streams::credit());
    check("parts.json", &streams::parts());
}

#[test]
fn every_rule_of_the_vectors_is_told_apart_at_both_ends() {
    check("violations.json", &violations::vectors());
}

#[test]
fn calls_of_a_lost_server_end_as_in_the_vectors() {
    check("lost.json", &lost::vectors());
}

#[test]
fn whole_calls_travel_as_in_the_vectors() {
    check("conversations.json", &conversations::vectors());
}

#[test]
fn a_ring_looks_as_in_the_vectors_after_every_step() {
    check("ring.json", &ring::vectors());
    check("ring_compact.json", &ring::compact_vectors());
}
