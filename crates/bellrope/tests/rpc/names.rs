//! A name is looked up once, and what was found stays right whatever the next server makes of its types.

use std::path::Path;

use bellrope::{AsyncClient, CallError, Client, Server, client::CallOptions};
use bellrope::{
    client::{Connection, MessageType, Pool, PoolConfig, Retry, Style},
    server::ServerConfig,
};
use bellrope_testkit::support::serve;

/// A server that numbers its types in this order. Each answers with its own name.
fn start(path: &Path, names: &[&'static str]) -> Server {
    let register = |builder: bellrope::server::ServerBuilder, name: &&'static str| {
        let name = *name;
        builder.unary(name, move |_, reply| {
            reply.put(name.as_bytes());
            Ok(())
        })
    };
    names.iter().fold(Server::builder(), register).bind(path).unwrap()
}

const NAMES: [&str; 3] = ["first", "second", "third"];
/// Orders in which every type has another number than in [`NAMES`].
const OTHER_ORDERS: [&[&str]; 2] = [&["third", "first", "second"], &["new", "newer", "second", "third", "first"]];

/// Nothing was sent, or the server that takes its leave has not run it.
fn again() -> CallOptions {
    CallOptions::new().retry(Retry::Idempotent)
}

#[test]
fn what_was_looked_up_stays_right_when_the_next_server_orders_its_types_otherwise() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let mut server = start(&path, &NAMES);
    let client = Client::connect(&path).unwrap();
    let known = NAMES.map(|name| client.message_type(name).unwrap());
    for order in [&NAMES[..]].iter().chain(&OTHER_ORDERS) {
        drop(server);
        server = start(&path, order);
        for _ in 0..2 {
            for (name, known) in NAMES.iter().zip(known) {
                assert_eq!(client.call_with(known, b"", &again()).unwrap(), name.as_bytes(), "{order:?}");
                assert_eq!(client.call_with(name, b"", &again()).unwrap(), name.as_bytes(), "{order:?}");
            }
        }
    }
    drop(server);
    let _server = start(&path, &["second"]);
    let error = client.call_with(known[0], b"", &again()).unwrap_err();
    assert!(matches!(error, CallError::MessageTypeGone) && !error.is_retryable(), "{error}");
    assert!(error.to_string().contains("look it up again"), "{error}");
    assert_eq!(client.call(known[1], b"").unwrap(), b"second");
}

#[test]
fn for_async_clients_too() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut server = start(&path, &NAMES);
    let client = runtime.block_on(AsyncClient::connect(&path)).unwrap();
    let known = NAMES.map(|name| runtime.block_on(client.message_type(name)).unwrap());
    for order in OTHER_ORDERS {
        drop(server);
        server = start(&path, order);
        for (name, known) in NAMES.iter().zip(known) {
            let answer = runtime.block_on(client.call_with(known, b"", &again())).unwrap();
            assert_eq!(answer, name.as_bytes(), "{order:?}");
        }
    }
    drop(server);
    let _server = start(&path, &["second"]);
    let error = runtime.block_on(client.call_with(known[0], b"", &again())).unwrap_err();
    assert!(matches!(error, CallError::MessageTypeGone), "{error}");
}

#[test]
fn what_one_client_looked_up_is_good_for_every_connection_of_the_process() {
    let home = tempfile::tempdir().unwrap();
    let [here, there] = ["here", "there"].map(|name| home.path().join("run").join(name));
    let (_here, _there) = (start(&here, &NAMES), start(&there, OTHER_ORDERS[0]));
    let known = NAMES.map(|name| Client::connect(&here).unwrap().message_type(name).unwrap());
    let mut reply = Vec::new();
    for path in [&here, &there] {
        let pool = Pool::new(PoolConfig::new(path));
        let mut lent = pool.acquire().unwrap();
        for (name, known) in NAMES.iter().zip(known) {
            lent.call(known, b"", &mut reply).unwrap();
            assert_eq!(reply, name.as_bytes());
            lent.submit(known, b"").unwrap();
            lent.wait(&mut reply).unwrap().outcome.unwrap();
            assert_eq!(reply, name.as_bytes());
            assert!(lent.queue(known, b"").unwrap().is_some());
            lent.wait(&mut reply).unwrap().outcome.unwrap();
            assert_eq!(reply, name.as_bytes());
            lent.call(name, b"", &mut reply).unwrap();
            assert_eq!(reply, name.as_bytes(), "by name");
        }
    }
}

#[test]
fn what_was_looked_up_is_called_in_its_own_way_or_refused_with_its_name() {
    let server = serve(ServerConfig::default());
    let client = Client::connect(&server.path).unwrap();
    let mut connection = Connection::connect(&server.path).unwrap();
    let look_up = |name| -> MessageType { client.message_type(name).unwrap() };
    let count = look_up("count");
    assert_eq!(client.stream(count, b"3").unwrap().count(), 3);
    assert_eq!(client.client_stream(look_up("total"), b"12").unwrap().finish().unwrap(), b"2");
    drop(client.duplex(look_up("double"), b"").unwrap());
    let refusals = [
        client.call(count, b"").unwrap_err(),
        connection.call(count, b"", &mut Vec::new()).unwrap_err(),
        connection.submit("count", b"").unwrap_err(),
        connection.queue(count, b"").unwrap_err(),
    ];
    for error in refusals {
        let right = matches!(&error, CallError::WrongStyle { name, style: Style::ServerStream } if name == "count");
        assert!(right, "{error}");
    }
    let error = client.message_type("conut").unwrap_err();
    assert!(matches!(&error, CallError::UnknownMessageType { nearest, .. } if nearest[0] == "count"), "{error}");
}
