//! A server with typed services of both codecs, for tests of clients in other languages:
//! `cargo run -p bellrope --features service --example typed -- SOCKET`.
//!
//! It prints `ready` as soon as it listens, and ends when its standard input does: a test that dies leaves none behind. The
//! two traits say the same, so that a client is tried with both: `Files` as JSON, `Places` as postcard. `Odd` has names and
//! types that other languages find hard.
#![expect(clippy::print_stdout, reason = "an example says when it listens")]

use std::{collections::BTreeMap, io::Read as _};

use bellrope::{
    HandlerError, Server,
    service::{Bytes, Incoming, Stream, produce},
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum FileError {
    Missing,
    Denied { path: String },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Part {
    name: String,
    bytes: Bytes<'static>,
    at: Option<(i64, f64)>,
}

macro_rules! files {
    ($service:ident, $codec:literal, $host:ident) => {
        #[bellrope::service(codec = $codec)]
        trait $service {
            /// The size of a file; the largest there is for `huge`.
            fn size(&self, path: &str) -> Result<u64, FileError>;
            /// No argument, no error, no answer.
            fn touch(&self);
            /// What it is given.
            fn same(&self, part: Part) -> Part;
            /// The service speaks, and not the application.
            fn broken(&self) -> Result<u32, HandlerError>;
            /// The parts of a path, then an error.
            fn lines(&self, path: String) -> impl Stream<Item = Result<String, FileError>>;
            /// The bytes of all parts.
            async fn upload(&self, name: &str, parts: Incoming<Part>) -> Result<u64, FileError>;
            /// What was said, in capitals.
            fn edit(&self, said: Incoming<String>) -> impl Stream<Item = String>;
        }

        struct $host;

        #[bellrope::service]
        impl $service for $host {
            fn size(&self, path: &str) -> Result<u64, FileError> {
                match path {
                    "" => Err(FileError::Missing),
                    "huge" => Ok(u64::MAX),
                    "/root" => Err(FileError::Denied { path: path.to_owned() }),
                    _ => Ok(path.len() as u64),
                }
            }

            fn touch(&self) {}

            fn same(&self, part: Part) -> Part {
                part
            }

            fn broken(&self) -> Result<u32, HandlerError> {
                Err(HandlerError::with_code(7, "no disk"))
            }

            fn lines(&self, path: String) -> impl Stream<Item = Result<String, FileError>> {
                produce(async move |lines| {
                    for line in path.split('/') {
                        lines.send(Ok(line.to_owned())).await;
                    }
                    lines.send(Err(FileError::Missing)).await;
                    lines.send(Ok("after it".to_owned())).await;
                })
            }

            async fn upload(&self, name: &str, mut parts: Incoming<Part>) -> Result<u64, FileError> {
                let mut total = name.len() as u64;
                while let Some(part) = parts.next().await {
                    total += part.bytes.len() as u64;
                }
                if total == 0 { Err(FileError::Missing) } else { Ok(total) }
            }

            fn edit(&self, mut said: Incoming<String>) -> impl Stream<Item = String> {
                produce(async move |edited| {
                    while let Some(said) = said.next().await {
                        edited.send(said.to_uppercase()).await;
                    }
                })
            }
        }
    };
}

files!(Files, "json", Disk);
files!(Places, "postcard", Map);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Words {
    from: String,
    class: Option<u8>,
    constructor: bool,
    #[serde(rename = "__proto__")]
    proto: String,
    #[serde(rename = "with-dash")]
    dash: char,
    str: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Named(String),
    Both(u8, i64),
    Branch { left: Box<Tree>, right: Option<Box<Tree>> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Page<T> {
    items: Vec<T>,
    next: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Meters(f64);

/// Called as the class from which all errors come elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Error {
    #[serde(rename = "no \"way\"")]
    NoWay,
}

type Fresh = (BTreeMap<u16, Meters>, (String, Option<bool>));

#[bellrope::service]
trait Odd {
    fn call(&self, from: Option<String>, class: u8) -> Result<u8, Error>;
    fn close(&self, this: Words) -> Words;
    fn then(&self, tree: Tree) -> Tree;
    #[name = "new"]
    fn fresh(&self, depths: BTreeMap<u16, Meters>, pair: (String, Option<bool>)) -> Fresh;
    #[name = "constructor"]
    fn constructed(&self, timeout: Option<u8>) -> Page<u8>;
    #[name = "str"]
    fn text(&self) -> Page<Page<u8>>;
}

struct Strange;

#[bellrope::service]
impl Odd for Strange {
    fn call(&self, from: Option<String>, class: u8) -> Result<u8, Error> {
        if from.is_some() { Ok(class) } else { Err(Error::NoWay) }
    }

    fn close(&self, this: Words) -> Words {
        this
    }

    fn then(&self, tree: Tree) -> Tree {
        tree
    }

    fn fresh(&self, depths: BTreeMap<u16, Meters>, pair: (String, Option<bool>)) -> Fresh {
        (depths, pair)
    }

    fn constructed(&self, timeout: Option<u8>) -> Page<u8> {
        Page { items: timeout.into_iter().collect(), next: None }
    }

    fn text(&self) -> Page<Page<u8>> {
        Page { items: vec![Page { items: vec![7], next: Some(u64::MAX) }], next: None }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let socket = std::env::args_os().nth(1).ok_or("usage: typed SOCKET")?;
    let _server = Server::builder().service(Disk).service(Map).service(Strange).bind(std::path::Path::new(&socket))?;
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
