//! A server with typed services of both codecs, for tests of clients in other languages:
//! `cargo run -p bellrope --features service --example typed -- SOCKET`.
//!
//! It prints `ready` as soon as it listens, and ends when its standard input does: a test that dies leaves none behind. The
//! two services of `files` say the same, so that a client is tried with both: `Files` as JSON, `Places` as postcard. `Odd` has names and
//! types that other languages find hard.
#![expect(clippy::print_stdout, reason = "an example says when it listens")]

mod files;

use std::{collections::BTreeMap, io::Read as _};

use bellrope::Server;
use serde::{Deserialize, Serialize};

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

/// Numbers at the ends of their types.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Wide {
    unsigned: u64,
    signed: i64,
    widest: (u128, i128),
    float: f64,
    by_number: BTreeMap<u64, i64>,
}

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
    /// What it is given.
    fn wide(&self, numbers: Wide) -> Wide;
    /// A number that JSON cannot say.
    fn nowhere(&self) -> f64;
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

    fn wide(&self, numbers: Wide) -> Wide {
        numbers
    }

    fn nowhere(&self) -> f64 {
        f64::NAN
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let socket = std::env::args_os().nth(1).ok_or("usage: typed SOCKET")?;
    let _server = Server::builder().service(files::json::Disk).service(files::postcard::Disk).service(Strange);
    let _server = _server.bind(std::path::Path::new(&socket))?;
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
