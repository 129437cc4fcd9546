//! Methods that cannot be called from afar.

use std::io;

#[bellrope_macros::service]
trait Receivers {
    fn owned(self) -> u64;
    fn changing(&mut self) -> u64;
    fn none() -> u64;
}

#[bellrope_macros::service]
trait Signatures {
    fn generic<T>(&self, value: T) -> u64;
    fn lifetimes<'a>(&self, value: &'a str) -> u64;
    fn anything(&self, value: impl Into<String>) -> u64;
    fn back(&self, value: &mut String);
    fn nameless(&self, (a, b): (u8, u8)) -> u64;
    fn inside(&self, names: Vec<&str>) -> u64;
    fn bytes_inside(&self, data: Option<&[u8]>) -> u64;
    fn others_inside(&self, count: Option<&u64>) -> u64;
}

#[bellrope_macros::service]
trait Answers {
    fn alias(&self) -> io::Result<u64>;
    fn borrowed(&self) -> &str;
    fn iterator(&self) -> impl Iterator<Item = u64>;
    fn unsaid(&self) -> impl Stream;
}

#[bellrope_macros::service]
trait Styles {
    async fn stream(&self) -> impl Stream<Item = u64>;
    #[blocking]
    async fn both(&self) -> u64;
    fn takes(&self, items: Incoming<u64>) -> u64;
    async fn two(&self, first: Incoming<u64>, second: Incoming<u64>) -> u64;
    #[blocking(5)]
    fn number(&self) -> u64;
    #[name(read)]
    fn named(&self) -> u64;
}

#[bellrope_macros::service]
trait OfEveryType {
    fn into(&self) -> u64;
}

#[bellrope_macros::service]
trait AlsoOfEveryType {
    fn try_into(&self) -> u64;
}

fn main() {}
