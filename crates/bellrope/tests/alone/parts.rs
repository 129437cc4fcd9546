//! What a message takes of memory that is given and taken part by part.

use std::{
    fs,
    io::{self, Read as _},
    thread,
};

use bellrope::{Client, Server};
use bellrope_testkit::alone::alone;

/// Bytes of a message: ten times the largest that is given whole.
const SIZE: u64 = 100 << 20;
/// The same of one that has every buffer made and every page touched that is used again.
const WARM_UP: u64 = 4 << 20;
/// KiB that the whole process, server and client, may have needed more than before, at any moment.
const MOST_KB: u64 = 512;

/// The most resident memory that this process had since [`forget_peak`], in KiB.
fn peak_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

#[test]
fn a_hundred_megabytes_pass_through_memory_for_a_few_parts() {
    alone("parts::a_hundred_megabytes_pass_through_memory_for_a_few_parts", || {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("private").join("parts.sock");
        let _server = Server::builder()
            .unary_reader("size", |_, request| Ok(io::copy(request, &mut io::sink())?.to_string().into_bytes()))
            .unary_writer("repeat", |call, reply| {
                let size = String::from_utf8_lossy(call.payload()).parse().unwrap();
                Ok(io::copy(&mut io::repeat(7).take(size), reply).map(drop)?)
            })
            .unary_filter("echo", |_, request, reply| Ok(io::copy(request, reply).map(drop)?))
            .bind(&path)
            .unwrap();
        let client = Client::connect(&path).unwrap();
        let through = |size: u64| {
            let mut request = client.call_writer("size", b"").unwrap();
            io::copy(&mut io::repeat(7).take(size), &mut request).unwrap();
            assert_eq!(request.finish().unwrap(), size.to_string().into_bytes());

            let mut reply = client.call_reader("repeat", size.to_string().as_bytes()).unwrap();
            assert_eq!(io::copy(&mut reply, &mut io::sink()).unwrap(), size);

            let (mut request, mut reply) = client.call_both_ways("echo", b"").unwrap();
            thread::scope(|scope| {
                scope.spawn(move || {
                    io::copy(&mut io::repeat(7).take(size), &mut request).unwrap();
                    request.finish().unwrap();
                });
                assert_eq!(io::copy(&mut reply, &mut io::sink()).unwrap(), size);
            });
        };
        through(WARM_UP);
        forget_peak();
        let before = peak_kb();
        through(SIZE);
        let grown = peak_kb().saturating_sub(before);
        assert!(grown <= MOST_KB, "resident memory grew by {grown} KiB");
    });
}
