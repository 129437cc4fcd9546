//! What a server says of the methods of its typed services.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use bellrope::{
    CallError, Client,
    client::Style,
    service::{SCHEMA, Schema},
};
use bellrope_terminal::output;
use serde_json::json;

/// How long a server may take to say what a method is.
const PATIENCE: Duration = Duration::from_secs(10);

/// The schema of a method. `None` if the server knows none: it is called with bytes.
pub(crate) fn of(client: &Client, method: &str) -> anyhow::Result<Option<Schema>> {
    let types = client.message_types();
    // A server without typed services does not have it.
    if method == SCHEMA || types.iter().all(|(name, _)| name != SCHEMA) {
        return Ok(None);
    }
    let is_bytes = matches!(client.codec(method), Ok(None)) && says_codecs(client, &types);
    if is_bytes { Ok(None) } else { ask(client, method) }
}

/// Whether the server tells what payloads are, so that what it does not tell of is called with bytes. One of wire version 1.0
/// tells it of nothing.
fn says_codecs(client: &Client, types: &[(String, Style)]) -> bool {
    types.iter().any(|(name, _)| matches!(client.codec(name), Ok(Some(_))))
}

fn ask(client: &Client, method: &str) -> anyhow::Result<Option<Schema>> {
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
    let types = client.message_types();
    if types.iter().all(|(name, _)| name != SCHEMA) {
        return Ok(BTreeMap::new());
    }
    let says_codecs = says_codecs(client, &types);
    let may_have_one = |name: &str| name != SCHEMA && !(says_codecs && matches!(client.codec(name), Ok(None)));
    let asked = types.into_iter().filter(|(name, _)| may_have_one(name));
    let described = asked.filter_map(|(name, style)| match ask(client, &name) {
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
#[derive(Debug, serde::Serialize)]
pub(crate) struct Described {
    #[serde(serialize_with = "serialize_style")]
    pub(crate) style: Style,
    #[serde(flatten)]
    pub(crate) schema: Schema,
}

fn serialize_style<S: serde::Serializer>(style: &Style, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(word(*style))
}

/// The same as another version may have printed it.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Printed {
    style: String,
    #[serde(flatten)]
    pub(crate) schema: Schema,
}

impl Printed {
    /// The method. `None` if its style is not known here, which is said.
    pub(crate) fn described(self, method: &str) -> Option<Described> {
        let Self { style: said, schema } = self;
        let styles = [Style::Unary, Style::ServerStream, Style::ClientStream, Style::Duplex];
        let style = styles.into_iter().find(|style| word(*style) == said);
        if style.is_none() {
            let said: String = said.chars().take(MOST_LETTERS).collect();
            let (method, said) = (method.escape_debug(), said.escape_debug());
            output::note(format_args!("left out: {method} has the style {said}, which this version does not know"));
        }
        style.map(|style| Described { style, schema })
    }
}

/// The most letters of a style that is not known.
const MOST_LETTERS: usize = 64;
