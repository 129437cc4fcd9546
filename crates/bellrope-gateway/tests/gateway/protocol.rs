//! docs/protocol.md against the types: every example is read, and is written again as it stands there.

use std::path::Path;

use bellrope_gateway::{
    CancelReport, ChatRequest, ChatResponse, CompletionRequest, EmbedRequest, EmbedResponse, HealthReport,
    MESSAGE_TYPES, ModelList, ProviderError, ResumeRequest, SequencedChunk,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The document, cut at its headings of the second level.
fn sections() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocol.md");
    let text = std::fs::read_to_string(path).unwrap();
    let sections = text.split("\n## ").map(|section| section.split_once('\n').unwrap());
    sections.map(|(title, body)| (title.trim_start_matches("# ").to_owned(), body.to_owned())).collect()
}

fn section(title: &str) -> String {
    let found = sections().into_iter().find(|(name, _)| name == title);
    found.unwrap_or_else(|| panic!("docs/protocol.md has no section {title}")).1
}

/// The JSON examples of a section.
fn examples(title: &str) -> Vec<Value> {
    let body = section(title);
    let blocks = body.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.map(|block| serde_json::from_str(block).unwrap_or_else(|error| panic!("{error} in {block}"))).collect()
}

/// The example as the type writes it once it has read it. What the example leaves out must be what is left out there.
#[track_caller]
fn comes_back<T: Serialize + DeserializeOwned>(example: &Value) {
    let read: T = serde_json::from_value(example.clone()).unwrap_or_else(|error| panic!("{error}: {example}"));
    assert_eq!(serde_json::to_value(read).unwrap(), *example);
}

/// The words in the first column of the tables of a section.
fn documented(title: &str) -> Vec<String> {
    let body = section(title);
    let rows = body.lines().filter_map(|line| line.strip_prefix("| ")).filter_map(|row| row.split(" |").next());
    let words = rows.flat_map(|cell| cell.split(", ")).filter_map(|word| word.strip_prefix('`')?.strip_suffix('`'));
    words.map(str::to_owned).collect()
}

#[test]
fn every_example_is_what_the_types_read_and_write() {
    for example in examples("Chat request") {
        comes_back::<ChatRequest>(&example);
    }
    for mut example in examples("Completion request") {
        // The version is always written, and may be left out.
        example.as_object_mut().unwrap().entry("version").or_insert(1.into());
        comes_back::<CompletionRequest>(&example);
    }
    for example in examples("Answer") {
        comes_back::<ChatResponse>(&example);
    }
    let [resume, cancelled] = &examples("Answers that are kept")[..] else { panic!("two examples") };
    let mut resume = resume.clone();
    resume.as_object_mut().unwrap().insert("version".to_owned(), 1.into());
    comes_back::<ResumeRequest>(&resume);
    comes_back::<CancelReport>(cancelled);
    let [asked, vectors] = &examples("Vectors")[..] else { panic!("two examples") };
    comes_back::<EmbedRequest>(asked);
    comes_back::<EmbedResponse>(vectors);
    for example in examples("Models") {
        comes_back::<ModelList>(&example);
    }
    for example in examples("Health") {
        comes_back::<HealthReport>(&example);
    }
}

#[test]
fn every_kind_of_chunk_has_an_example() {
    let examples = examples("Chunks");
    examples.iter().for_each(comes_back::<SequencedChunk>);
    let mut kinds: Vec<_> = examples.iter().map(|example| example["kind"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            "done",
            "error",
            "logprobs",
            "notice",
            "reasoning",
            "reasoning_details",
            "resumable",
            "text",
            "tool_call",
            "tool_call_extra",
            "usage"
        ]
    );
}

#[test]
fn every_field_of_a_request_has_its_row() {
    let documented = documented("Chat request");
    let example = &examples("Chat request")[0];
    let fields: Vec<_> = example.as_object().unwrap().keys().collect();
    assert_eq!(fields.len(), 10, "the example shows every field of a request: {fields:?}");
    for field in fields {
        assert!(documented.contains(field), "{field} has no row");
    }
    for field in examples("Chat request")[1].as_object().unwrap().keys() {
        assert!(documented.contains(field), "{field} has no row");
    }
    for part in ["text", "image", "reasoning", "tool_use", "tool_result"] {
        assert!(documented.iter().any(|word| word == part), "the part {part} has no row");
    }
}

#[test]
fn every_message_type_and_every_code_is_in_the_document() {
    let types = documented("The messages of the AI gateway");
    assert_eq!(
        types.iter().filter(|word| word.starts_with("ai.")).collect::<Vec<_>>(),
        MESSAGE_TYPES.iter().collect::<Vec<_>>()
    );
    let mut codes = documented("Errors");
    let mut known = ProviderError::CODES.to_vec();
    codes.sort_unstable();
    known.sort_unstable();
    assert_eq!(codes, known);
}
