//! What callers say of their calls beyond the requests.

use bellrope::{
    AsyncClient, CallError, Client, Server,
    client::{CallOptions, ClientConfig, Connection, Metadata, Transport},
};
use bellrope_proto::{frame::Kind, handshake::METADATA};
use bellrope_testkit::{raw_stream::StreamPeer, support::eventually};
use tempfile::TempDir;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn told(metadata: Option<&Metadata>, len: usize) -> Vec<u8> {
    let Some(metadata) = metadata else { return format!("nothing of {len}").into_bytes() };
    let trace = metadata.trace_context().map(|trace| trace.to_string());
    let own = metadata.own_value(3).map(<[u8]>::len);
    format!("{trace:?} {:?} {:?} {own:?} of {len}", metadata.session_text(), metadata.caller_text()).into_bytes()
}

/// A server whose handlers answer with what is said of their calls.
fn telling() -> (Server, std::path::PathBuf, TempDir) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let server = Server::builder()
        .unary("unary", |call, reply| {
            reply.put(&told(call.metadata(), call.payload().len()));
            Ok(())
        })
        .in_place("in_place", |call| {
            let len = call.message().len();
            *call.message() = told(call.metadata(), len);
            Ok(())
        })
        .unary_async("async", |call| async move { Ok(told(call.metadata(), call.payload().len())) })
        .unary_blocking("blocking", |call| Ok(told(call.metadata(), call.payload().len())))
        .server_stream("stream", |call, mut chunks| async move {
            Ok(chunks.send(told(call.metadata(), call.payload().len())).await?)
        })
        .client_stream("upload", |call, mut chunks| async move {
            while chunks.next().await.is_some() {}
            Ok(told(call.metadata(), call.payload().len()))
        })
        .duplex("duplex", |call, _, mut chunks| async move {
            Ok(chunks.send(told(call.metadata(), call.payload().len())).await?)
        })
        .unary("echo", |call, reply| {
            reply.put(call.payload());
            Ok(())
        })
        .bind(&path)
        .unwrap();
    (server, path, home)
}

fn metadata() -> Metadata {
    let said = Metadata::new().trace(PARENT.parse().unwrap()).unwrap().session("window 3").unwrap();
    said.caller("a test").unwrap().own(3, &[0; 100]).unwrap()
}

fn answer(len: usize) -> String {
    format!("Some({PARENT:?}) Some(\"window 3\") Some(\"a test\") Some(100) of {len}")
}

#[test]
fn every_form_of_call_says_them_over_both_transports_whatever_its_size() {
    let (_server, path, _home) = telling();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = CallOptions::new().metadata(metadata());
    for transport in [Transport::Shm, Transport::Stream] {
        let config = ClientConfig::new(&path).transport(transport);
        let client = Client::with(config.clone()).unwrap();
        for len in [0, 64, 65_280, 65_281, 65_536, 300_000] {
            let payload = vec![7; len];
            for name in ["unary", "in_place", "async", "blocking"] {
                let said = client.call_with(name, &payload, &options).unwrap();
                assert_eq!(String::from_utf8(said).unwrap(), answer(len), "{name} over {transport:?}");
                assert_eq!(client.call(name, &payload).unwrap(), format!("nothing of {len}").as_bytes());
            }
            let mut stream = client.stream_with("stream", &payload, &options).unwrap();
            assert_eq!(stream.next().unwrap().unwrap(), answer(len).as_bytes());
            let upload = client.client_stream_with("upload", &payload, &options).unwrap();
            assert_eq!(upload.finish().unwrap(), answer(len).as_bytes());
            let (_sink, mut stream) = client.duplex_with("duplex", &payload, &options).unwrap();
            assert_eq!(stream.next().unwrap().unwrap(), answer(len).as_bytes());

            let mut connection = Connection::with(&config).unwrap();
            let mut reply = Vec::new();
            connection.call_with("unary", &payload, &mut reply, &options).unwrap();
            assert_eq!(reply, answer(len).as_bytes());
            connection.submit_with("unary", &payload, &options).unwrap();
            connection.wait(&mut reply).unwrap().outcome.unwrap();
            assert_eq!(reply, answer(len).as_bytes());
            runtime.block_on(async {
                let client = AsyncClient::with(config.clone()).await.unwrap();
                assert_eq!(client.call_with("async", &payload, &options).await.unwrap(), answer(len).as_bytes());
                let mut stream = client.stream_with("stream", &payload, &options).await.unwrap();
                assert_eq!(stream.next().await.unwrap().unwrap(), answer(len).as_bytes());
            });
        }
        let late = client.client_stream("upload", b"").unwrap().finish_with(&options).unwrap_err();
        assert!(matches!(&late, CallError::UnusableOption { option: "metadata", .. }), "{late}");
    }
}

#[test]
fn whoever_did_not_ask_may_not_say_them_and_a_block_that_cannot_be_closes_its_connection_alone() {
    let (server, path, _home) = telling();
    let good = [4, 0, 2, 2, b'm', b'e', b'x'];
    let mut asked = StreamPeer::try_to_connect_with(&path, "asked", METADATA).unwrap();
    asked.send(Kind::Described, asked.number("unary"), 1, None, &good);
    assert_eq!(asked.answer_to(1).payload, b"None Some(\"me\") None None of 1");
    let hostile = [
        (0, &good[..]),
        (METADATA, b""),
        (METADATA, &[1]),
        (METADATA, &[0, 0]),
        (METADATA, &[3, 0, 2, 0]),
        (METADATA, &[2, 0, 2, 1]),
        (METADATA, &[4, 0, 3, 0, 2, 0]),
        (METADATA, &[255; 400]),
    ];
    for (violations, (features, block)) in (1..).zip(hostile) {
        let mut peer = StreamPeer::try_to_connect_with(&path, "hostile", features).unwrap();
        peer.send(Kind::Described, peer.number("unary"), 1, None, block);
        assert!(peer.becomes_hung_up(), "{block:?}");
        eventually("it is counted", || server.metrics().snapshot().violations == violations);
        asked.is_served();
    }
    // What means nothing is passed over, and so is what is of a newer version.
    asked.send(Kind::Described, asked.number("unary"), 2, None, &[8, 0, 1, 0, 2, 1, 0xFF, 99, 1, 0, b'x']);
    assert_eq!(asked.answer_to(2).payload, b"None None None None of 1");
}
