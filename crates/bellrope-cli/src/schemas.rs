//! What a server says of the methods of its typed services.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use bellrope::{
    CallError, Client,
    client::Style,
    service::{SCHEMA, Schema},
};
use bellrope_terminal::output;
use serde::Deserialize as _;
use serde_json::json;

/// How long a server may take to say what a method is.
const PATIENCE: Duration = Duration::from_secs(10);

/// The schema of a method. `None` if the server knows none: it is called with bytes.
pub(crate) fn of(client: &Client, method: &str) -> anyhow::Result<Option<Schema>> {
    // A server without typed services does not have it.
    if method == SCHEMA || client.message_types().iter().all(|(name, _)| name != SCHEMA) {
        return Ok(None);
    }
    let question = serde_json::to_vec(&json!({ "method": method }))?;
    match client.call_within(SCHEMA, &question, PATIENCE) {
        Ok(schema) => {
            let schema = Schema::from_json(&schema);
            schema.map(Some).with_context(|| format!("what the server says of {method} cannot be read"))
        }
        // Bytes are described nowhere: our server calls it the caller's mistake to ask, another may say so in its own way.
        Err(CallError::InvalidRequest { text }) => {
            if let Some((_, said)) = text.split_once(&format!("the method {method} has no schema")) {
                output::note(format_args!("left out: {method} has no schema{said}"));
            }
            Ok(None)
        }
        Err(CallError::Handler { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Every method that has a schema, by name.
pub(crate) fn all(client: &Client) -> anyhow::Result<BTreeMap<String, Described>> {
    let described = client.message_types().into_iter().filter_map(|(name, style)| match of(client, &name) {
        Ok(schema) => schema.map(|schema| Ok((name, Described { style, schema }))),
        Err(error) => Some(Err(error)),
    });
    described.collect()
}

/// What a style is called, here and in JSON.
pub(crate) fn word(style: Style) -> &'static str {
    match style {
        Style::Unary => "unary",
        Style::ServerStream => "server_stream",
        Style::ClientStream => "client_stream",
        Style::Duplex => "duplex",
    }
}

/// A method as `bellrope list --schema` prints it.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Described {
    #[serde(serialize_with = "serialize_style", deserialize_with = "deserialize_style")]
    pub(crate) style: Style,
    #[serde(flatten)]
    pub(crate) schema: Schema,
}

fn serialize_style<S: serde::Serializer>(style: &Style, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(word(*style))
}

fn deserialize_style<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Style, D::Error> {
    let said = String::deserialize(deserializer)?;
    let styles = [Style::Unary, Style::ServerStream, Style::ClientStream, Style::Duplex];
    styles
        .into_iter()
        .find(|style| word(*style) == said)
        .ok_or_else(|| serde::de::Error::unknown_variant(&said, &["unary", "server_stream", "client_stream", "duplex"]))
}
