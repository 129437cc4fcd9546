//! A method of a typed service: JSON in, JSON out, whatever its codec is.

use std::{
    io::{self, Write as _},
    sync::mpsc,
};

use anyhow::Context as _;
use bellrope::{
    CallError, Client,
    client::{Blame, CallOptions, CancelToken, ChunkStream, Style},
    service::{Codec as _, Form, Json, Postcard, Schema, Shape},
};
use bellrope_terminal::{ApplicationError, Failed, Outcome, output};
use serde_json::json;

use super::ended::is_error;
use crate::input::{next_line, read_input};

/// The most arguments that are named in an error.
const MAX_NAMES: usize = 16;
/// The most letters of each.
const MAX_LETTERS: usize = 64;

/// A call of a method.
pub(super) struct TypedCall {
    pub(super) client: Client,
    pub(super) method: String,
    pub(super) style: Style,
    pub(super) schema: Schema,
    /// For the answer of a method that gives one.
    pub(super) options: CallOptions,
    pub(super) json: bool,
}

/// Where the arguments are.
pub(super) enum Arguments {
    Given(Vec<u8>),
    /// At the beginning of standard input: all of it, or its first line if items follow.
    Piped,
}

impl TypedCall {
    /// Makes it. Words for errors that are not the application's come from `explain`.
    pub(super) fn run(self, arguments: Arguments, explain: impl Fn(CallError) -> anyhow::Error) -> Outcome {
        let mut shown = Shown { json: self.json, failed: None };
        match self.make(arguments, &mut shown) {
            Ok(()) => {}
            Err(error) => match error.downcast::<CallError>() {
                Ok(error) => {
                    let (blame, is_retryable) = (error.blame(), error.is_retryable());
                    return shown.failure(explain(error), blame, is_retryable);
                }
                Err(error) => {
                    let blame = error.downcast_ref::<Untranslated>().map(|untranslated| untranslated.blame);
                    return match blame {
                        Some(blame) => shown.failure(error, blame, false),
                        None => Err(error),
                    };
                }
            },
        }
        shown.failed.map_or(Ok(()), |error| Err(error.into()))
    }

    fn make(&self, arguments: Arguments, shown: &mut Shown) -> Outcome {
        let streams_up = matches!(self.style, Style::ClientStream | Style::Duplex);
        // Lines of standard input that were read before the items.
        let lines = usize::from(streams_up && matches!(arguments, Arguments::Piped));
        let arguments = match arguments {
            Arguments::Given(arguments) => arguments,
            Arguments::Piped if streams_up => next_line()?.unwrap_or_default(),
            Arguments::Piped => read_input()?,
        };
        let codec = self.schema.codec.as_str();
        if ![Json::NAME, Postcard::NAME].contains(&codec) {
            let codec: String = codec.chars().take(MAX_LETTERS).collect();
            let words = format!(
                "{} travels as {}, a codec that is not known here; with --bytes, what is given is sent as it is",
                self.method,
                codec.escape_debug()
            );
            return Err(Untranslated { words, blame: Blame::Caller }.into());
        }
        let arguments = if arguments.is_empty() { b"{}".to_vec() } else { arguments };
        let request = self.schema.write(&self.schema.request, &arguments).map_err(|error| {
            let takes = arguments_of(&self.schema).map(|names| format!("it takes {names}, and ")).unwrap_or_default();
            let words = format!(
                "{}: the arguments cannot be sent: {error}; {takes}`bellrope list --schema` shows their types",
                self.method
            );
            Untranslated { words, blame: Blame::Caller }
        })?;
        let name = self.method.as_str();
        match self.style {
            Style::Unary => self.show(shown, &self.client.call_with(name, &request, &self.options)?),
            Style::ServerStream => self.show_all(shown, self.client.stream(name, &request)?),
            Style::ClientStream => {
                let mut upload = self.client.client_stream(name, &request)?;
                let mut number = lines;
                while let Some(item) = next_item(&self.method, &self.schema, &mut number)? {
                    if !upload.send(&item)? {
                        break;
                    }
                }
                self.show(shown, &upload.finish_with(&self.options)?)
            }
            Style::Duplex => self.both_ways(shown, &request, lines),
        }
    }

    /// Both ways at once: the server may want its answers read before it takes more.
    fn both_ways(&self, shown: &mut Shown, request: &[u8], lines: usize) -> Outcome {
        let unusable = CancelToken::new();
        let options = CallOptions::new().cancel(&unusable);
        let (mut sink, items) = self.client.duplex_with(self.method.as_str(), request, &options)?;
        let (method, schema) = (self.method.clone(), self.schema.clone());
        let (say, said) = mpsc::channel();
        // The server may end the call while this waits for a line. Then it ends with the program.
        let sending = std::thread::Builder::new().spawn(move || {
            let mut number = lines;
            let sent = loop {
                let item = match next_item(&method, &schema, &mut number) {
                    Ok(Some(item)) => item,
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                };
                match sink.send(&item) {
                    Ok(true) => {}
                    Err(error @ CallError::ChunkTooLarge { .. }) => break Some(error.into()),
                    // What has ended the call is said where its answers are read.
                    Ok(false) | Err(_) => break None,
                }
            };
            if let Some(error) = sent {
                let _ = say.send(error);
                unusable.cancel();
            }
        });
        sending.context("starting a thread that sends")?;
        let shown = self.show_all(shown, items);
        match said.try_recv() {
            Ok(error) => Err(error),
            Err(_) => shown,
        }
    }

    fn show_all(&self, shown: &mut Shown, items: ChunkStream) -> Outcome {
        items.into_iter().try_for_each(|item| self.show(shown, &item?))
    }

    fn show(&self, shown: &mut Shown, answer: &[u8]) -> Outcome {
        let answer = self.schema.read_answer(answer).map_err(|error| {
            let words = format!("what {} answered cannot be read: {error}", self.method);
            Untranslated { words, blame: Blame::Handler }
        })?;
        match answer {
            // A stream of the gateway's has its error among its items.
            Ok(value) if is_error(&self.method, value.as_bytes()) => shown.error(&self.method, &value),
            Ok(value) => shown.value(&value),
            Err(error) => shown.error(&self.method, &error),
        }
    }
}

/// The names of a method's arguments, as they stand in JSON. `None`: they have none.
fn arguments_of(schema: &Schema) -> Option<String> {
    let Shape::Type(place) = &schema.request else { return None };
    let Form::Struct(fields) = &schema.types.get(usize::try_from(*place).ok()?)?.form else { return None };
    // A server may say what it likes.
    let start = |name: &str| name.chars().take(MAX_LETTERS).collect::<String>();
    let names = fields.iter().take(MAX_NAMES).map(|(name, _)| format!("\"{}\": …", start(name).escape_debug()));
    Some(format!("{{{}}}", names.collect::<Vec<_>>().join(", ")))
}

/// What is to be sent next: a line of standard input that is not empty.
fn next_item(method: &str, schema: &Schema, number: &mut usize) -> anyhow::Result<Option<Vec<u8>>> {
    loop {
        *number += 1;
        match next_line()? {
            None => return Ok(None),
            Some(line) if line.is_empty() => {}
            Some(line) => {
                let item = schema.write(&schema.sent, &line);
                let item = item.map_err(|error| Untranslated {
                    words: format!("{method}: line {number} of standard input cannot be sent: {error}"),
                    blame: Blame::Caller,
                })?;
                return Ok(Some(item));
            }
        }
    }
}

/// What is no JSON of the method's, one way or the other.
#[derive(Debug, thiserror::Error)]
#[error("{words}")]
struct Untranslated {
    words: String,
    blame: Blame,
}

/// What was printed.
struct Shown {
    json: bool,
    /// The last error of the application.
    failed: Option<ApplicationError>,
}

impl Shown {
    fn value(&self, value: &str) -> Outcome {
        if self.json { line(&format!("{{\"ok\":{value}}}")) } else { line(value) }
    }

    fn error(&mut self, method: &str, error: &str) -> Outcome {
        if self.json {
            self.failed = Some(ApplicationError(None));
            return line(&format!("{{\"error\":{error}}}"));
        }
        let words = format!("{method} has answered with its own error: {error}");
        // Items may follow it.
        if let Some(ApplicationError(Some(earlier))) = self.failed.replace(ApplicationError(Some(words))) {
            output::note(format_args!("error: {}", output::unsteered(&earlier)));
        }
        Ok(())
    }

    /// Says why there is no answer, to machines as JSON.
    fn failure(&self, error: anyhow::Error, blame: Blame, is_retryable: bool) -> Outcome {
        if !self.json {
            return Err(error);
        }
        let (message, blame) = (bellrope_terminal::in_words(&error), format!("{blame:?}").to_lowercase());
        line(&json!({ "failure": { "message": message, "blame": blame, "retryable": is_retryable } }).to_string())?;
        Err(Failed.into())
    }
}

/// Prints a line at once: the next may be long in coming.
fn line(text: &str) -> Outcome {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    Ok(stdout.flush()?)
}
