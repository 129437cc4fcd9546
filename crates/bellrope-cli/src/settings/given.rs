//! What is given as text on the command line and in files.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    time::Duration,
};

/// An address to listen at, given as `HOST:PORT`.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let resolved = text.to_socket_addrs();
    let first = resolved.and_then(|mut all| all.next().ok_or_else(|| io::Error::other("the host has no address")));
    first.map_err(|error| format!("{error}; give HOST:PORT, as in 127.0.0.1:9090"))
}

pub(super) fn address_text(text: &str) -> Result<String, String> {
    address(text).map(|_| text.to_owned())
}

/// A time as people write it: a number and its unit.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let millis = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    millis.map(Duration::from_millis).ok_or_else(|| "give a number with ms, s, m or h, as in 10m".to_owned())
}

pub(super) fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("give KEY=VALUE, as in server.max_in_flight=64")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}
