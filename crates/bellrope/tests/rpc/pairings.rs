//! Clients and servers of version 1.0 with those of today, in all four pairings.

use std::path::Path;

use bellrope::{
    AsyncClient, CallError, Client,
    client::{CallOptions, ClientConfig, ConnectError, Connection, Metadata, Transport},
    server::ServerConfig,
};
use bellrope_testkit::{
    support::serve,
    version_1_0::{OldClient, OldServer},
};
use tempfile::TempDir;

/// A payload that travels in parts, whatever the ring.
fn large() -> Vec<u8> {
    (0..300_000_u32).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn old_server() -> (OldServer, std::path::PathBuf, TempDir) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("old.sock");
    (OldServer::bind(&path), path, home)
}

/// Has an old client make every form of call.
fn every_form(path: &Path) {
    let mut client = OldClient::connect(path);
    for _ in 0..3 {
        assert_eq!(client.call("echo", b"ding"), [b"ding"]);
        assert_eq!(client.call("echo", &large()), [large()]);
        let counted: Vec<_> = (0..100_u32).map(|number| number.to_le_bytes().to_vec()).collect();
        assert_eq!(client.call("count", b"100"), counted);
        assert_eq!(client.upload("total", &[b"ding", b"", b"dong"]), [b"8"]);
        assert_eq!(client.upload("double", &[b"ding", b"dong"]), [b"dingding", b"dongdong"]);
    }
}

#[test]
fn an_old_client_and_an_old_server() {
    let (_server, path, _home) = old_server();
    every_form(&path);
}

#[test]
fn an_old_client_and_a_new_server() {
    let server = serve(ServerConfig::default());
    every_form(&server.path);
    let mut client = OldClient::connect(&server.path);
    assert_eq!(client.cancel("never"), 6);
    assert_eq!(&client.answer[16..24], &[0; 8], "it asked for no feature and got none");
    assert_eq!(&client.answer[52..56], &[0; 4], "what was reserved is 0");
    let new = Client::connect(&server.path).unwrap();
    let mut names: Vec<_> = new.message_types().into_iter().map(|(name, _)| name).collect();
    let mut known: Vec<_> = client.names().map(str::to_owned).collect();
    names.sort();
    known.sort();
    assert_eq!(known, names);
    assert_eq!(server.server.metrics().snapshot().violations, 0);
}

#[test]
fn a_new_client_and_an_old_server() {
    let (server, path, _home) = old_server();
    let metadata = Metadata::new().session("which it never hears of").unwrap();
    let said = CallOptions::new().metadata(metadata);
    let client = Client::connect(&path).unwrap();
    for options in [&CallOptions::new(), &said] {
        assert_eq!(client.call_with("echo", b"ding", options).unwrap(), b"ding");
        assert_eq!(client.call_with("echo", &large(), options).unwrap(), large());
        assert_eq!(client.stream_with("count", b"100", options).unwrap().count(), 100);
        let mut upload = client.client_stream_with("total", b"", options).unwrap();
        assert!([&b"ding"[..], b"", b"dong"].into_iter().all(|chunk| upload.send(chunk).unwrap()));
        assert_eq!(upload.finish().unwrap(), b"8");
        let (mut sink, mut stream) = client.duplex_with("double", b"", options).unwrap();
        sink.send(b"ding").unwrap();
        assert_eq!(stream.next().unwrap().unwrap(), b"dingding");
        sink.finish();
        assert!(stream.next().is_none());
    }
    assert!(matches!(client.call("new", b""), Err(CallError::UnknownMessageType { .. })));
    let mut reply = Vec::new();
    Connection::connect(&path).unwrap().call_with("echo", b"dong", &mut reply, &said).unwrap();
    assert_eq!(reply, b"dong");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = AsyncClient::connect(&path).await.unwrap();
        assert_eq!(client.call_with("echo", &large(), &said).await.unwrap(), large());
    });
    assert_eq!(server.refused(), 0, "it was never asked for what it does not have");
    let error = Client::with(ClientConfig::new(&path).transport(Transport::Stream)).unwrap_err();
    assert!(matches!(&error, ConnectError::Handshake(_)), "{error}");
    assert!(error.to_string().contains("transport 1 is not supported; 0 (shared memory) is"), "{error}");
}

#[test]
fn a_new_client_and_a_new_server() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    assert_eq!(client.call("echo", &large()).unwrap(), large());
    assert_eq!(client.stream("count", b"100").unwrap().count(), 100);
}
