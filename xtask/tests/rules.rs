//! The repository keeps its rules: what `cargo xtask check` checks, as tests.

use std::path::{Path, PathBuf};

use xtask::{
    arrows, budgets, circles, dependencies, durations, examples, faults, found::Found, lengths, links, names, promises,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository").to_owned()
}

#[track_caller]
fn none(faults: anyhow::Result<Vec<String>>) {
    let faults = faults.expect("the rule can be checked");
    assert!(faults.is_empty(), "{} fault(s):\n{}", faults.len(), faults.join("\n"));
}

#[track_caller]
fn none_found(found: anyhow::Result<Found>) {
    none(found.map(|found| found.faults));
}

#[test]
fn every_dependency_follows_the_table_of_arrows() {
    none(arrows::dependencies_follow_the_table(&root()));
}

#[test]
fn every_crate_has_a_row_and_every_row_a_crate() {
    none(arrows::every_crate_has_a_row(&root()));
}

#[test]
fn what_stands_apart_imports_what_it_is_about_and_is_built_by_nobody_else() {
    none(arrows::what_stands_apart_keeps_apart(&root()));
}

#[test]
fn no_crate_is_a_drawer_for_everything() {
    none(arrows::no_crate_is_a_drawer(&root()));
}

// Fault 6.
#[test]
fn unsafe_code_stands_in_the_shared_memory_crate_alone() {
    none(arrows::unsafe_code_stays_at_home(&root()));
}

#[test]
fn one_file_reads_what_the_kernel_tells_in_files() {
    none(arrows::one_file_reads_proc(&root()));
}

#[test]
fn every_method_that_users_call_is_shown_in_an_example() {
    none_found(examples::check(&root()));
}

#[test]
fn times_are_durations_in_what_users_write() {
    none_found(durations::check(&root()));
}

#[test]
fn no_two_types_have_one_name() {
    none_found(names::check(&root()));
}

#[test]
fn no_file_outgrows_its_bound() {
    none(arrows::no_file_outgrows_its_bound(&root()));
}

#[test]
fn no_crate_has_a_circle_of_files() {
    none_found(circles::check(&root()));
}

#[test]
fn every_promise_names_a_test_in_the_file_it_links_to() {
    none_found(promises::check(&root()));
}

#[test]
fn every_fault_has_a_test_and_every_number_a_fault() {
    none(faults::every_fault_has_a_test(&root()));
}

#[test]
fn the_document_names_the_tests_that_there_are() {
    none(faults::the_document_is_up_to_date(&root()));
}

#[test]
fn every_dependency_has_its_reason_and_every_reason_its_dependency() {
    none(dependencies::every_dependency_has_its_reason(&root()));
}

#[test]
fn a_program_without_spans_has_nothing_of_what_sends_them() {
    none(dependencies::without_spans_nothing_sends_them(&root()));
}

#[test]
fn every_link_leads_somewhere() {
    none_found(links::check(&root()));
}

#[test]
fn no_document_outgrows_its_bound() {
    none_found(lengths::check(&root()));
}

#[test]
fn the_trees_of_crates_keep_their_budgets() {
    none(budgets::crates_within(&root()));
}
