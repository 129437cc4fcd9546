//! `bellrope call`: JSON in and out for a method of a typed service, raw bytes for everything else.

mod ended;
mod typed;

use std::{
    ffi::OsString,
    io::{self, Write},
    os::unix::ffi::OsStringExt,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use bellrope::status::OPERATOR;
use bellrope::{
    CallError, Client,
    client::{CallOptions, ChunkStream, ConnectError, Style, Transport},
    service::{Codec as _, Json, Postcard},
};
use bellrope_gateway::MESSAGE_TYPES;
use bellrope_terminal::{ApplicationError, Outcome};
use clap::{Args, ValueEnum};

use crate::{input::read_input, logging, schemas, socket, socket::SocketArg};
use ended::error_of;
use typed::{Arguments, TypedCall};

/// Bytes of one chunk that goes to a message type which takes a stream.
const PIECE: usize = 16 * 1024;

const EXAMPLES: &str = r#"Examples:
  bellrope call Files.read '{"path":"notes.txt"}'
  bellrope call echo 'ring the bell'
  bellrope call ai.models
  echo '{"messages":[{"role":"user","content":"Hello"}]}' | bellrope call ai.chat_stream -

A method of a typed service takes its arguments as JSON, whatever its codec is, and each answer or item is printed as a line
of JSON. What it takes as a stream is read from standard input, a line of JSON each. If it answers with its own error, that
is printed on standard error, and the exit code is 3.

A stream of an ai.* type whose last chunk is an error has answered so, too."#;

/// What to call, with what.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CallArgs {
    #[command(flatten)]
    server: SocketArg,
    /// Most seconds until a single answer must be there, connecting included; a stream may take any time once
    /// connected.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    timeout: u32,
    /// What carries the call; auto: shared memory, and the socket where memory cannot be shared.
    #[arg(long, value_enum, default_value_t = Carrier::Auto)]
    transport: Carrier,
    /// Print each answer of a typed method as {"ok": ...}, {"error": ...} (its own error) or {"failure": ...}.
    #[arg(long)]
    json: bool,
    /// Send the bytes that are given, and print those that come, also of a typed method: nothing is read as JSON.
    #[arg(long, conflicts_with = "json")]
    bytes: bool,
    /// The name of the message type, one of those that `bellrope list` shows.
    #[arg(value_name = "TYPE")]
    message_type: String,
    /// The arguments of a typed method as JSON, or the bytes to send; `-` reads them from standard input (the first line, if a
    /// typed method takes a stream), and nothing at all sends none. A message type that takes a stream gets bytes in chunks.
    payload: Option<OsString>,
}

/// The names of transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Carrier {
    Auto,
    Shm,
    Stream,
}

impl From<Carrier> for Transport {
    fn from(carrier: Carrier) -> Self {
        match carrier {
            Carrier::Auto => Self::Auto,
            Carrier::Shm => Self::Shm,
            Carrier::Stream => Self::Stream,
        }
    }
}

/// Prints the reply just as it is, or every chunk of a stream with a line break after it; of a typed method, each answer as
/// a line of JSON.
pub(crate) fn run(args: CallArgs) -> Outcome {
    logging::init("warn")?;
    let arguments = match args.payload {
        Some(payload) if payload == "-" => Arguments::Piped,
        payload => Arguments::Given(payload.unwrap_or_default().into_vec()),
    };
    let late = |error| in_time(error, args.timeout);
    let (timeout, began) = (Duration::from_secs(args.timeout.into()), Instant::now());
    let mut config = args.server.config();
    // A server that is stopped takes connections, and answers nothing: connecting is part of the time.
    (config.connect_timeout, config.call_timeout) = (timeout, timeout);
    config.transport = args.transport.into();
    config.reconnect_timeout = config.reconnect_timeout.min(timeout);
    let client = Client::with(config).map_err(|error| late(error.into()))?;

    let style = client.message_types().into_iter().find(|(known, _)| *known == args.message_type);
    let (is_known, style) = (style.is_some(), style.map_or(Style::Unary, |(_, style)| style));
    // The AI gateway's and the operator's are called with bytes as ever; their schemas are for those who ask for JSON. Every method
    // of a service has a dot in its name, and a server need not be asked about what has none.
    let name = args.message_type.as_str();
    let is_method = !args.bytes && name.contains('.') && !MESSAGE_TYPES.contains(&name) && !name.starts_with(OPERATOR);
    let schema = if is_method || args.json { schemas::of(&client, name)? } else { None };
    if let Some(schema) = schema {
        let options = CallOptions::new().timeout(timeout.saturating_sub(began.elapsed()));
        let (method, json) = (args.message_type, args.json);
        return TypedCall { client, method, style, schema, options, json }.run(arguments, late);
    }
    if is_method {
        refuse_unknown_codec(&client, name)?;
    }
    // That the server has no such type is said by the call.
    ensure!(
        !args.json || !is_known,
        "{} has no schema, so what it answers is bytes; leave --json away",
        args.message_type
    );
    let payload = match arguments {
        Arguments::Piped => read_input()?,
        Arguments::Given(payload) => payload,
    };
    match style {
        Style::Unary => {
            let left = timeout.saturating_sub(began.elapsed());
            let reply = client.call_within(&args.message_type, &payload, left).map_err(late)?;
            print(&reply)
        }
        Style::ServerStream => print_chunks(client.stream(&args.message_type, &payload)?, &args.message_type),
        Style::ClientStream => {
            let mut upload = client.client_stream(&args.message_type, b"")?;
            for piece in payload.chunks(PIECE) {
                if !upload.send(piece).map_err(late)? {
                    break;
                }
            }
            print(&upload.finish().map_err(late)?)
        }
        Style::Duplex => {
            let (mut sink, chunks) = client.duplex(&args.message_type, b"")?;
            // Both ways at once: the server may want its answers read before it takes more.
            std::thread::scope(|scope| {
                let send = move || payload.chunks(PIECE).all(|piece| sink.send(piece).unwrap_or(false));
                std::thread::Builder::new().spawn_scoped(scope, send).context("starting a thread that sends")?;
                print_chunks(chunks, &args.message_type)
            })
        }
    }
}

/// JSON is the bytes of a method that travels as JSON. Of one that travels otherwise and says not how, it would be some other
/// arguments, if it means anything.
fn refuse_unknown_codec(client: &Client, method: &str) -> Outcome {
    // What the server does not have is said by the call.
    let number = client.codec(method).ok().flatten().filter(|codec| *codec != Json::NUMBER);
    let Some(number) = number else { return Ok(()) };
    let codec = if number == Postcard::NUMBER { Postcard::NAME.to_owned() } else { format!("codec {number}") };
    Err(anyhow!(
        "{method} travels as {codec} and the server has no schema of it, so that JSON cannot be sent; with --bytes, what is given \
         is sent as it is"
    ))
}

fn print(reply: &[u8]) -> Outcome {
    let mut stdout = io::stdout().lock();
    stdout.write_all(reply)?;
    Ok(stdout.flush()?)
}

/// Prints chunks as they come, each with a line break after it. The gateway's types end an answer that fails with a chunk
/// that says so; what the chunks of others mean is not known here.
fn print_chunks(chunks: ChunkStream, message_type: &str) -> Outcome {
    let mut stdout = io::stdout().lock();
    let mut last = Vec::new();
    for chunk in chunks {
        last = chunk?;
        stdout.write_all(&last)?;
        stdout.write_all(b"\n")?;
        stdout.flush()?;
    }
    match error_of(message_type, &last) {
        Some(info) => Err(ApplicationError(Some(format!("{}: {}", info.code, info.message))).into()),
        None => Ok(()),
    }
}

/// Says what to do about an answer that was too slow.
fn in_time(error: CallError, timeout: u32) -> anyhow::Error {
    match error {
        CallError::DeadlineExceeded => {
            anyhow!("no answer came within {timeout} s; give it longer with --timeout")
        }
        CallError::Connect(ConnectError::Io { path, source }) if source.kind() == io::ErrorKind::TimedOut => {
            anyhow!(
                "the server at {} let no client in within {timeout} s: it is stopped or overloaded; give it longer with \
                 --timeout",
                path.display()
            )
        }
        error => socket::explain_call(error),
    }
}
