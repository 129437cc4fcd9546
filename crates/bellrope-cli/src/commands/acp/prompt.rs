//! What an editor sends as a prompt, as a message to a model.

use agent_client_protocol_schema::v1::{ContentBlock, EmbeddedResourceResource, ImageContent};
use bellrope_gateway::{Content, Part};

use super::files::Files;

/// The message that the blocks of a prompt make. `Err` says what cannot be sent. `files`: those linked to that were read.
///
/// Text stays as it is, what the editor attached is named where it stands, and its contents follow after the text.
pub(super) fn content(blocks: Vec<ContentBlock>, files: &Files) -> Result<Content, String> {
    let (mut text, mut attached, mut images) = (String::new(), String::new(), Vec::new());
    for block in blocks {
        match block {
            ContentBlock::Text(block) => text.push_str(&block.text),
            ContentBlock::ResourceLink(link) => {
                mention(&mut text, &link.name, &link.uri);
                if let Some(contents) = files.get(&link.uri) {
                    attach(&mut attached, &link.uri, contents);
                }
            }
            ContentBlock::Resource(resource) => match resource.resource {
                EmbeddedResourceResource::TextResourceContents(contents) => {
                    let name = contents.uri.rsplit('/').next().unwrap_or(&contents.uri);
                    mention(&mut text, name, &contents.uri);
                    attach(&mut attached, &contents.uri, &contents.text);
                }
                EmbeddedResourceResource::BlobResourceContents(contents) => {
                    return Err(format!("{} is no text; a model cannot read it", contents.uri));
                }
                _ => return Err("an attachment is of a kind that is not known here".to_owned()),
            },
            ContentBlock::Image(image) => images.push(picture(&image)),
            ContentBlock::Audio(_) => return Err("models are not sent sound".to_owned()),
            _ => return Err("a block of the prompt is of a kind that is not known here".to_owned()),
        }
    }
    text.push_str(&attached);
    if images.is_empty() {
        if text.trim().is_empty() {
            return Err("the prompt is empty".to_owned());
        }
        return Ok(Content::Text(text));
    }
    let mut parts = Vec::with_capacity(1 + images.len());
    if !text.trim().is_empty() {
        parts.push(Part::text(text));
    }
    parts.extend(images);
    Ok(Content::Parts(parts))
}

fn mention(text: &mut String, name: &str, uri: &str) {
    text.push_str(&format!("[@{name}]({uri})"));
}

fn attach(attached: &mut String, uri: &str, contents: &str) {
    attached.push_str(&format!("\n\n<resource uri=\"{uri}\">\n{}\n</resource>", contents.trim_end_matches('\n')));
}

/// A picture travels within the message, or is fetched by the provider.
fn picture(image: &ImageContent) -> Part {
    let url = match &image.uri {
        Some(uri) if image.data.is_empty() => uri.clone(),
        _ => format!("data:{};base64,{}", image.mime_type, image.data),
    };
    Part::image(url)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(blocks: Value) -> Result<Content, String> {
        content(serde_json::from_value(blocks).unwrap(), &Files::new())
    }

    #[test]
    fn what_is_attached_is_named_in_the_text_and_follows_it() {
        let message = of(json!([
            {"type": "text", "text": "Compare "},
            {"type": "resource", "resource": {"uri": "file:///src/a.rs", "text": "mod a;\n"}},
            {"type": "text", "text": " with "},
            {"type": "resource_link", "name": "b.rs", "uri": "file:///src/b.rs"},
        ]));
        let expected = "Compare [@a.rs](file:///src/a.rs) with [@b.rs](file:///src/b.rs)\n\n\
                        <resource uri=\"file:///src/a.rs\">\nmod a;\n</resource>";
        assert_eq!(message, Ok(Content::Text(expected.into())));
    }

    #[test]
    fn a_linked_file_that_was_read_follows_the_text() {
        let blocks = json!([{"type": "resource_link", "name": "b.rs", "uri": "file:///b.rs"}]);
        let files = Files::from([("file:///b.rs".to_owned(), "mod b;\n".to_owned())]);
        let message = content(serde_json::from_value(blocks).unwrap(), &files);
        let expected = "[@b.rs](file:///b.rs)\n\n<resource uri=\"file:///b.rs\">\nmod b;\n</resource>";
        assert_eq!(message, Ok(Content::Text(expected.into())));
    }

    #[test]
    fn a_picture_is_a_part_of_its_own() {
        let message = of(json!([
            {"type": "text", "text": "What is it?"},
            {"type": "image", "mimeType": "image/png", "data": "aGk="},
        ]));
        let expected = vec![Part::text("What is it?"), Part::image("data:image/png;base64,aGk=")];
        assert_eq!(message, Ok(Content::Parts(expected)));
        // One that is only named is fetched by the provider; the data, where it is there, is at hand.
        let url = "https://example.com/a.png";
        for (data, expected) in [("", url), ("aGk=", "data:image/png;base64,aGk=")] {
            let message = of(json!([{"type": "image", "mimeType": "image/png", "data": data, "uri": url}]));
            assert_eq!(message, Ok(Content::Parts(vec![Part::image(expected)])));
        }
    }

    #[test]
    fn what_no_model_can_read_is_refused_by_name() {
        let blob = json!([{"type": "resource", "resource": {"uri": "file:///a.bin", "blob": "aGk="}}]);
        assert_eq!(of(blob), Err("file:///a.bin is no text; a model cannot read it".into()));
        assert!(of(json!([{"type": "audio", "mimeType": "audio/wav", "data": "aGk="}])).is_err());
        assert_eq!(of(json!([])), Err("the prompt is empty".into()));
        assert_eq!(of(json!([{"type": "text", "text": " \n"}])), Err("the prompt is empty".into()));
    }
}
