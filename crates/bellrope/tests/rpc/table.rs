//! The table of message types: large ones, and those that change.

use std::time::Duration;

use bellrope::{
    AsyncClient, CallError, Client, Server,
    client::{ClientConfig, Connection, Style, Transport},
    server::{BindError, ServerBuilder, ServerConfig},
};
use bellrope_proto::{
    frame::{ErrorCode, Kind},
    handshake::{MAX_BODY, MAX_TYPES, TABLE},
};
use bellrope_testkit::{
    raw_stream::StreamPeer,
    support::{builder, eventually},
};
use tempfile::TempDir;

const TRANSPORTS: [Transport; 2] = [Transport::Shm, Transport::Stream];

/// The name of a type, so long that a socket does not take many of them at once.
fn name(number: usize) -> String {
    format!("Service.{number:0>240}")
}

/// A server with `echo` and many types that answer with their numbers.
fn many(count: usize) -> ServerBuilder {
    (1..count).fold(Server::builder().in_place("echo", |_| Ok(())), |builder, number| {
        builder.unary(&name(number), move |_, reply| {
            reply.put(number.to_string().as_bytes());
            Ok(())
        })
    })
}

fn bind(builder: ServerBuilder) -> (Server, std::path::PathBuf, TempDir) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    (builder.bind(&path).unwrap(), path, home)
}

fn over(transport: Transport, path: &std::path::Path) -> ClientConfig {
    ClientConfig::new(path).transport(transport)
}

#[test]
fn a_table_of_4096_types_is_known_whole_over_both_transports() {
    let (_server, path, _home) = bind(many(MAX_TYPES));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for transport in TRANSPORTS {
        let client = Client::with(over(transport, &path)).unwrap();
        assert_eq!(client.message_types().len(), MAX_TYPES);
        for number in [1, 800, 1500, 4000, MAX_TYPES - 1] {
            assert_eq!(client.call(&name(number), b"").unwrap(), number.to_string().as_bytes());
        }
        assert_eq!(client.call("echo", b"ding").unwrap(), b"ding");
        let last = name(MAX_TYPES - 1);
        runtime.block_on(async {
            let client = AsyncClient::with(over(transport, &path)).await.unwrap();
            assert_eq!(client.call(&last, b"").await.unwrap(), b"4095");
        });
        let mut reply = Vec::new();
        Connection::with(&over(transport, &path)).unwrap().call(&last, b"", &mut reply).unwrap();
        assert_eq!(reply, b"4095");
    }
}

#[test]
fn more_types_are_refused_in_words_when_the_server_starts() {
    let home = tempfile::tempdir().unwrap();
    let error = many(MAX_TYPES + 1).bind(home.path().join("run").join("test.sock")).unwrap_err();
    assert!(matches!(&error, BindError::Registry { name: refused, .. } if *refused == name(MAX_TYPES)), "{error}");
    assert!(error.to_string().ends_with("a server has at most 4096 message types"), "{error}");
}

#[test]
fn a_client_that_asks_for_no_pages_gets_what_fits_into_the_answer() {
    let (_server, path, _home) = bind(many(4000));
    let mut peer = StreamPeer::connect(&path, "old");
    let known = peer.welcome.types.len();
    assert!((200..300).contains(&known), "{known}");
    assert!((known - 1) * (name(1).len() + 4) <= MAX_BODY);
    peer.is_served();
    // It may know the numbers from elsewhere.
    peer.send(Kind::Request, 4000, 1, None, b"");
    assert_eq!(peer.answer_to(1).payload, b"3999");
}

#[test]
fn a_client_that_takes_no_pages_is_let_go_and_others_are_served_meanwhile() {
    let config = ServerConfig::default().handshake_timeout(Duration::from_millis(300));
    let (server, path, _home) = bind(many(MAX_TYPES).config(config));
    let peers: Vec<_> = (0..8).map(|_| StreamPeer::try_to_connect_with(&path, "lazy", TABLE).unwrap()).collect();
    let client = Client::connect(&path).unwrap();
    assert_eq!(client.call("echo", b"ding").unwrap(), b"ding");
    assert!(peers.iter().all(StreamPeer::becomes_hung_up));
    eventually("only one is counted", || server.metrics().active_connections() == 1);
    assert_eq!(client.call("echo", b"ding").unwrap(), b"ding");
    // One that goes away by itself leaves nothing behind either.
    drop(StreamPeer::try_to_connect_with(&path, "gone", TABLE).unwrap());
    eventually("only one is counted", || server.metrics().active_connections() == 1);
}

/// A server with handlers of every style, and room for more.
fn changing() -> (Server, std::path::PathBuf, TempDir) {
    bind(builder(&Default::default()).room_for_types(8))
}

fn add(server: &Server, name: &str) {
    let added = name.to_owned();
    let register = |types: ServerBuilder| {
        types.unary_async(name, move |_| {
            let added = added.clone();
            async move { Ok(added.into_bytes()) }
        })
    };
    server.add_types(register).unwrap();
}

#[test]
fn types_that_are_added_and_taken_out_show_at_every_face_of_a_client() {
    let (server, path, _home) = changing();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (round, transport) in TRANSPORTS.into_iter().enumerate() {
        let name = format!("added.{round}");
        let client = Client::with(over(transport, &path)).unwrap();
        let async_client = runtime.block_on(AsyncClient::with(over(transport, &path))).unwrap();
        let mut connection = Connection::with(&over(transport, &path)).unwrap();
        let mut reply = Vec::new();
        assert!(matches!(client.call(&name, b""), Err(CallError::UnknownMessageType { .. })));

        add(&server, &name);
        eventually("the client finds it", || client.message_type(&name).is_ok());
        assert_eq!(client.call(&name, b"").unwrap(), name.as_bytes());
        assert!(client.message_types().contains(&(name.clone(), Style::Unary)));
        eventually("the async client calls it", || runtime.block_on(async_client.call(&name, b"")).is_ok());
        eventually("the connection calls it", || connection.call(&name, b"", &mut reply).is_ok());
        assert_eq!(reply, name.as_bytes());
        let known = client.message_type(&name).unwrap();
        let rows = server.metrics().snapshot().types;
        assert_eq!(rows.iter().find(|row| row.name == name).unwrap().total(), 3);

        assert!(server.remove_type(&name) && !server.remove_type(&name));
        eventually("the client misses it", || client.message_type(&name).is_err());
        assert!(matches!(client.call(known, b""), Err(CallError::MessageTypeGone)));
        eventually("the async client misses it", || {
            let error = runtime.block_on(async_client.call(&name, b"")).unwrap_err();
            matches!(error, CallError::UnknownMessageType { .. })
        });
        // By its number it is not to be had either.
        let mut peer = StreamPeer::connect(&path, "knows the number");
        peer.send(Kind::Request, 20 + round as u16, 1, None, b"");
        let refused = peer.answer_to(1).header;
        assert_eq!((refused.kind, refused.message_type), (Kind::Error, ErrorCode::UnknownMessageType.to_bits()));

        add(&server, &name);
        eventually("it is there again", || client.call(known, b"").is_ok());
        assert_eq!(client.call("echo", b"ding").unwrap(), b"ding");
    }
}

#[test]
fn of_many_changes_that_an_idle_client_does_not_read_it_sees_the_last() {
    for transport in TRANSPORTS {
        let (server, path, _home) = changing();
        let client = Client::with(over(transport, &path)).unwrap();
        assert_eq!(client.call("echo", b"ding").unwrap(), b"ding");
        // Each is a change of its own; together they are more than the ring holds.
        let flickering = "f".repeat(250);
        for _ in 0..1500 {
            add(&server, &flickering);
            assert!(server.remove_type(&flickering));
        }
        add(&server, "last");
        eventually("it knows the last", || client.message_type("last").is_ok());
        eventually("and not the others", || client.message_type(&flickering).is_err());
        assert_eq!(client.call("last", b"").unwrap(), b"last");
        assert_eq!(server.metrics().snapshot().stalled, 0);
    }
}

#[test]
fn types_of_every_style_can_be_added_and_a_number_is_not_given_to_another() {
    let (server, path, _home) = changing();
    let client = Client::connect(&path).unwrap();
    server
        .add_types(|types| {
            types
                .in_place("shout", |call| {
                    call.message().make_ascii_uppercase();
                    Ok(())
                })
                .unary_blocking("blocking", |call| Ok(call.payload().to_vec()))
                .server_stream("twice", |call, mut chunks| async move {
                    chunks.send(call.payload()).await?;
                    Ok(chunks.send(call.payload()).await?)
                })
        })
        .unwrap();
    eventually("it knows them", || client.message_type("twice").is_ok());
    assert_eq!(client.call("shout", b"ding").unwrap(), b"DING");
    assert_eq!(client.call("shout", &vec![b'x'; 1 << 20]).unwrap(), vec![b'X'; 1 << 20]);
    assert_eq!(client.call("blocking", b"ding").unwrap(), b"ding");
    let twice: Vec<_> = client.stream("twice", b"ding").unwrap().map(Result::unwrap).collect();
    assert_eq!(twice, [b"ding", b"ding"]);
    for number in 0..5 {
        let name = format!("short-lived {number}");
        add(&server, &name);
        assert!(server.remove_type(&name));
    }
    let error = server.add_types(|types| types.in_place("one more", |_| Ok(()))).unwrap_err();
    assert!(error.to_string().contains("(room_for_types)"), "{error}");
    let error = server.add_types(|types| types.in_place("echo", |_| Ok(()))).unwrap_err();
    assert!(error.to_string().contains("the name is taken"), "{error}");
}

#[test]
fn a_client_that_did_not_ask_hears_nothing_of_changes() {
    let (server, path, _home) = changing();
    let mut peer = StreamPeer::connect(&path, "old");
    peer.is_served();
    add(&server, "new");
    let client = Client::connect(&path).unwrap();
    eventually("others know it", || client.message_type("new").is_ok());
    // The next record is the answer.
    let number = peer.number("echo");
    peer.send(Kind::Request, number, 7, None, b"ding");
    assert_eq!(peer.next_record().unwrap().payload, b"ding");
}
