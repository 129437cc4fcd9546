//! What the log says of the types of services that nobody could find out.

use std::fmt;

use bellrope::Server;
use bellrope_testkit::{alone::alone, log::Log, support::eventually};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, Visitor},
};
use tracing_subscriber::filter::LevelFilter;

/// Takes texts of 77 bytes alone.
#[derive(Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Secret(String);

impl TryFrom<String> for Secret {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, &'static str> {
        if text.len() == 77 { Ok(Self(text)) } else { Err("it has not 77 bytes") }
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> Self {
        secret.0
    }
}

impl Clone for Secret {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Both are read by one visitor, which is told only when it runs which it is to read.
#[derive(Serialize)]
struct Text(String);

#[derive(Serialize)]
struct Number(u8);

#[derive(Serialize, Deserialize)]
enum Either {
    One(Text),
    Two(Number),
}

struct Item {
    is_text: bool,
}

impl<'de> Visitor<'de> for Item {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an item")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        if self.is_text { String::deserialize(from) } else { u8::deserialize(from).map(|number| number.to_string()) }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_newtype_struct("Item", Item { is_text: true }).map(Self)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = from.deserialize_newtype_struct("Item", Item { is_text: false })?;
        Ok(Self(number.parse().map_err(D::Error::custom)?))
    }
}

#[bellrope::service(codec = "postcard")]
trait Unclear {
    fn keep(&self, secret: Secret);
    fn take(&self, one: Either);
    fn clear(&self, number: u8);
}

struct Host;

#[bellrope::service]
impl Unclear for Host {
    fn keep(&self, _secret: Secret) {}
    fn take(&self, _one: Either) {}
    fn clear(&self, _number: u8) {}
}

/// Whoever serves it learns where callers are protected less.
#[test]
fn the_log_names_the_types_that_could_not_be_tried_or_told_apart() {
    alone("unclear::the_log_names_the_types_that_could_not_be_tried_or_told_apart", name_them);
}

fn name_them() {
    let log = Log::listen(LevelFilter::WARN);
    let home = tempfile::tempdir().unwrap();
    let _server = Server::builder().service(Host).bind(home.path().join("run").join("test.sock")).unwrap();
    let untried = "it could not be tried whether its types are read as they are written: ";
    assert!(log.has(&["Unclear.keep", untried, ".secret takes none of the values"]));
    assert!(log.has(&["ERROR", "Unclear.take", "has no schema: there are two types Item that cannot be told apart"]));
    assert!(!log.has(&["Unclear.clear"]));
}

#[bellrope::service]
trait Slow {
    fn hold(&self, millis: u64);
}

struct Holder;

#[bellrope::service]
impl Slow for Holder {
    fn hold(&self, millis: u64) {
        std::thread::sleep(std::time::Duration::from_millis(millis));
    }
}

/// A method that holds up others is called what its callers call it.
#[test]
fn the_log_names_a_method_that_holds_its_thread_and_says_what_to_make_of_it() {
    alone("unclear::the_log_names_a_method_that_holds_its_thread_and_says_what_to_make_of_it", hold_it);
}

fn hold_it() {
    let log = Log::listen(LevelFilter::WARN);
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let _server = Server::builder().service(Holder).bind(&path).unwrap();
    SlowBlockingClient::connect(&path).unwrap().hold(30).unwrap();
    eventually("it is named", || log.has(&["a handler held its thread", "Slow.hold", "#[blocking] or async"]));
}
