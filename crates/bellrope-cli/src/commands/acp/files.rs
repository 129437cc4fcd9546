//! Files that a prompt links to, read through the editor: it knows what has not been saved.

use std::{collections::HashMap, path::PathBuf};

use agent_client_protocol_schema::v1::{ContentBlock, ReadTextFileRequest, SessionId};
use futures_util::future::join_all;
use serde_json::Value;

use super::{questions::Questions, wire::Editor};
use crate::percent::unescaped;

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope::acp::files";

/// The most links of a prompt that are read, and the most bytes of one file and of all.
const MAX_LINKS: usize = 32;
const MAX_FILE: usize = 1024 * 1024;
const MAX_ALL: usize = 4 * 1024 * 1024;

/// The contents of files, by the address that a link has.
pub(super) type Files = HashMap<String, String>;

/// Reads the files that a prompt links to. One that cannot be read stays a link.
pub(super) async fn read(
    questions: &Questions,
    editor: &Editor,
    session: &SessionId,
    prompt: &[ContentBlock],
) -> Files {
    let links = prompt.iter().filter_map(|block| match block {
        ContentBlock::ResourceLink(link) => Some((link.uri.clone(), path_of(&link.uri)?)),
        _ => None,
    });
    let links: HashMap<_, _> = links.take(MAX_LINKS).collect();
    let asked = links.into_iter().map(async |(uri, path)| {
        // Plain structs: writing them cannot fail.
        let request = serde_json::to_value(ReadTextFileRequest::new(session.clone(), path)).unwrap_or_default();
        let answer = questions.ask(editor, "fs/read_text_file", &request).await;
        let text = answer.and_then(|answer| match answer.get("content") {
            Some(Value::String(text)) if text.len() <= MAX_FILE => Ok(text.clone()),
            Some(Value::String(text)) => Err(format!("it has {} bytes, more than {MAX_FILE}", text.len())),
            _ => Err("the editor gave no text".to_owned()),
        });
        (uri, text)
    });
    let (mut files, mut room) = (Files::new(), MAX_ALL);
    for (uri, text) in join_all(asked).await {
        match text {
            Ok(text) if text.len() <= room => {
                room -= text.len();
                files.insert(uri, text);
            }
            Ok(_) => {
                tracing::warn!(target: TARGET, uri, "a linked file is not read: all have more than {MAX_ALL} bytes");
            }
            Err(why) => tracing::warn!(target: TARGET, uri, "a linked file is not read: {why}"),
        }
    }
    files
}

/// Whether a prompt links to files.
pub(super) fn links(prompt: &[ContentBlock]) -> bool {
    prompt.iter().any(|block| matches!(block, ContentBlock::ResourceLink(link) if path_of(&link.uri).is_some()))
}

/// The file that an address names on this machine.
fn path_of(uri: &str) -> Option<PathBuf> {
    let path = uri.strip_prefix("file://")?;
    let path = path.strip_prefix("localhost").unwrap_or(path);
    let path = path.split(['?', '#']).next().filter(|path| path.starts_with('/'))?;
    Some(unescaped(path).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_this_machines_files_is_a_path() {
        for (uri, path) in [
            ("file:///src/a%20b.rs", Some("/src/a b.rs")),
            ("file://localhost/a", Some("/a")),
            ("file:///a#L1-5", Some("/a")),
            ("file://elsewhere/a", None),
            ("https://host/a", None),
            ("/a", None),
        ] {
            assert_eq!(path_of(uri), path.map(PathBuf::from), "{uri}");
        }
    }
}
