//! Every style, through both clients and with both codecs, gives what was sent, and the application's errors whole.

use std::time::Duration;

use crate::files::{FileError, Part};
use bellrope::{
    CallError, Client, Server,
    client::{CallOptions, CancelToken},
    service::ServiceError,
};

fn part(name: &str) -> Part {
    Part { name: name.to_owned(), bytes: vec![7; 300].into(), at: None }
}

macro_rules! styles {
    ($codec:ident, $blocking:ident, $asynchronous:ident) => {
        #[test]
        fn $blocking() {
            use crate::files::$codec::{Disk, FilesBlockingClient};

            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("private").join("files.sock");
            let _server = Server::builder().service(Disk).bind(&path).unwrap();
            let files = FilesBlockingClient::connect(&path).unwrap();
            let options = CallOptions::new().timeout(Duration::from_secs(60));

            assert_eq!(files.size("some/\"file\"\n").unwrap(), 12);
            assert_eq!(files.size_with("four", &options).unwrap(), 4);
            assert_eq!(files.size("").unwrap_err().application(), Some(FileError::Missing));
            files.touch().unwrap();
            let words = ["ding".to_owned(), "dong".to_owned()];
            assert_eq!(
                files.join("\"a\u{1}".into(), &[0, 255], &words, &part("x")).unwrap(),
                "\"a\u{1} [0, 255] ding+dong x"
            );
            assert_eq!(files.index("etc".to_owned(), 2).unwrap(), ["etc", "etc"]);
            let denied = files.index("/root".to_owned(), 2).unwrap_err();
            assert_eq!(denied.application(), Some(FileError::Denied { path: "/root".to_owned() }));
            assert_eq!(files.read("x", Some(u64::MAX)).unwrap(), format!("x:Some({})", u64::MAX));
            assert_eq!(files.read("", None).unwrap_err().application(), Some(FileError::Missing));
            assert_eq!(files.version().unwrap(), 7);

            let mut lines = files.lines("a/b".to_owned()).unwrap();
            assert_eq!(lines.next().unwrap().unwrap(), "a");
            assert_eq!(lines.next().unwrap().unwrap(), "b");
            assert_eq!(lines.next().unwrap().unwrap_err().application(), Some(FileError::Missing));
            assert_eq!(lines.next().unwrap().unwrap(), "after it");
            assert!(lines.next().is_none());

            let mut upload = files.upload("name").unwrap();
            for name in ["a", "b", "c"] {
                assert!(upload.send(&part(name)).unwrap());
            }
            assert_eq!(upload.finish().unwrap(), 904);
            assert_eq!(files.upload("").unwrap().finish().unwrap_err().application(), Some(FileError::Missing));

            let (mut said, mut edited) = files.edit_with(&options).unwrap();
            for word in ["ding", "dong"] {
                assert!(said.send(&word.to_owned()).unwrap());
                assert_eq!(edited.next().unwrap().unwrap(), word.to_uppercase());
            }
            said.finish();
            assert!(edited.next().is_none());
        }

        #[tokio::test]
        async fn $asynchronous() {
            use crate::files::$codec::{Disk, FilesClient};

            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("private").join("files.sock");
            let _server = Server::builder().service(Disk).bind(&path).unwrap();
            let files = FilesClient::connect(&path).await.unwrap();
            let options = CallOptions::new().timeout(Duration::from_secs(60));

            assert_eq!(files.size("some/\"file\"\n").await.unwrap(), 12);
            assert_eq!(files.size_with("four", &options).await.unwrap(), 4);
            assert_eq!(files.size("").await.unwrap_err().application(), Some(FileError::Missing));
            files.touch().await.unwrap();
            let words = ["ding".to_owned(), "dong".to_owned()];
            let joined = files.join("\"a\u{1}".into(), &[0, 255], &words, &part("x")).await.unwrap();
            assert_eq!(joined, "\"a\u{1} [0, 255] ding+dong x");
            assert_eq!(files.index("etc".to_owned(), 2).await.unwrap(), ["etc", "etc"]);
            assert_eq!(files.read("x", None).await.unwrap(), "x:None");
            assert_eq!(files.version().await.unwrap(), 7);

            // A client may be used from any task.
            let there = files.clone();
            let read = tokio::spawn(async move { there.read("y", Some(1)).await });
            assert_eq!(read.await.unwrap().unwrap(), "y:Some(1)");

            let mut lines = files.lines("a/b".to_owned()).await.unwrap();
            assert_eq!(lines.next().await.unwrap().unwrap(), "a");
            assert_eq!(lines.next().await.unwrap().unwrap(), "b");
            assert_eq!(lines.next().await.unwrap().unwrap_err().application(), Some(FileError::Missing));
            assert_eq!(lines.next().await.unwrap().unwrap(), "after it");
            assert!(lines.next().await.is_none());

            let mut upload = files.upload("name").await.unwrap();
            for name in ["a", "b", "c"] {
                assert!(upload.send(&part(name)).await.unwrap());
            }
            assert_eq!(upload.finish().await.unwrap(), 904);

            let (mut said, mut edited) = files.edit().await.unwrap();
            for word in ["ding", "dong"] {
                assert!(said.send(&word.to_owned()).await.unwrap());
                assert_eq!(edited.next().await.unwrap().unwrap(), word.to_uppercase());
            }
            said.finish();
            assert!(edited.next().await.is_none());
        }
    };
}

styles!(json, every_style_through_the_blocking_client_as_json, every_style_through_the_async_client_as_json);
styles!(
    postcard,
    every_style_through_the_blocking_client_as_postcard,
    every_style_through_the_async_client_as_postcard
);

/// An application's error is a value: it is counted as an answer, and no breaker hears of it.
#[test]
fn an_applications_error_never_opens_a_breaker_and_a_panic_does() {
    use crate::files::json::{Disk, FilesBlockingClient};

    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("files.sock");
    let server = Server::builder().service(Disk).operator().bind(&path).unwrap();
    // Two callers: it takes two to open a breaker for all.
    let clients = [(); 2].map(|()| FilesBlockingClient::connect(&path).unwrap());
    for _ in 0..50 {
        for files in &clients {
            assert_eq!(files.size("").unwrap_err().application(), Some(FileError::Missing));
        }
    }
    assert_eq!(clients[0].size("x").unwrap(), 1);
    let opened = (0..50).any(|_| {
        clients.iter().any(|files| {
            let error = files.size("panic").unwrap_err();
            matches!(error.call_error(), Some(CallError::Rejected { .. }))
        })
    });
    assert!(opened, "panics count");
    drop((clients, server));
}

/// Bytes that do not decode are the caller's mistake, and the answer names method and argument.
#[test]
fn what_cannot_be_read_is_refused_with_method_and_field() {
    use crate::files::{json, postcard};

    let home = tempfile::tempdir().unwrap();
    let [first, second] = ["json", "postcard"].map(|codec| home.path().join(codec).join("files.sock"));
    let _json = Server::builder().service(json::Disk).bind(&first).unwrap();
    let _postcard = Server::builder().service(postcard::Disk).bind(&second).unwrap();
    let (named, positional) = (Client::connect(&first).unwrap(), Client::connect(&second).unwrap());

    let refused = |client: &Client, method: &str, payload: &[u8]| match client.call(method, payload).unwrap_err() {
        CallError::InvalidRequest { text } => text,
        other => panic!("{other}"),
    };
    let text = refused(&named, "Files.size", b"{\"path\":5}");
    assert!(text.starts_with("Files.size: the arguments cannot be read: path: invalid type: integer `5`"), "{text}");
    let text = refused(&named, "Files.join", br#"{"text":"","raw":"!!!!","words":[],"part":{"name":"","bytes":""}}"#);
    assert!(text.contains("raw: not base64"), "{text}");
    let text =
        refused(&named, "Files.join", br#"{"text":"","raw":"","words":[],"part":{"name":"","bytes":"","at":[1,"x"]}}"#);
    assert!(text.contains("part.at[1]: invalid type"), "{text}");
    assert!(refused(&named, "Files.size", b"{}").contains("missing field `path`"));
    assert!(refused(&named, "Files.size", b"").contains("EOF"));
    let text = refused(&named, "Files.size", b"5");
    assert!(text.contains("integer `5`, expected the arguments of Files.size by their names"), "{text}");
    let text = refused(&positional, "Places.size", b"\x05abc");
    assert!(text.contains("path: 5 elements cannot be in the 3 bytes that are left"), "{text}");
    assert!(refused(&positional, "Places.size", b"\x01ab").contains("1 bytes follow"), "leftovers");
    let text = refused(&positional, "Places.join", b"\x00\x00\x00\x00\xFF\xFF\xFF\xFF\x0F");
    assert!(text.contains("Places.join: the arguments cannot be read: part.bytes: 4294967295 elements"), "{text}");

    // A field more is none too many where fields have names, and an option may be left out.
    let answer = named.call("Files.read", br#"{"path":"x","new":[[1]]}"#).unwrap();
    assert_eq!(answer, br#"{"Ok":"x:None"}"#);

    // Items of a stream likewise, while the method waits for them.
    for (client, item) in [(&named, &b"{\"name\":1}"[..]), (&positional, b"\x09")] {
        let name: &[u8] = if item.len() > 1 { b"{\"name\":\"\"}" } else { b"\x00" };
        let method = if item.len() > 1 { "Files.upload" } else { "Places.upload" };
        let mut upload = client.client_stream(method, name).unwrap();
        let good: &[u8] = if item.len() > 1 { b"{\"name\":\"\",\"bytes\":\"\"}" } else { b"\x00\x00\x00" };
        assert!(upload.send(good).unwrap());
        let _ = upload.send(item).unwrap();
        let error = upload.finish().unwrap_err();
        let CallError::InvalidRequest { text } = error else { panic!("{error}") };
        assert!(text.starts_with(&format!("{method}: item 1 of the stream cannot be read: name: ")), "{text}");
    }
}

/// What a client cannot send, or cannot read, is an error of the call that names the method.
#[test]
fn a_client_names_what_it_cannot_read() {
    use crate::files::json::FilesBlockingClient;

    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("files.sock");
    let _server = Server::builder()
        .unary("Files.size", |_, reply| {
            reply.put(b"{\"Ok\":\"many\"}");
            Ok(())
        })
        .server_stream("Files.lines", |_, mut chunks| async move {
            chunks.send(b"{\"Ok\":\"a\"}").await?;
            chunks.send(b"{\"Ok\":7}").await?;
            chunks.send(b"{\"Ok\":\"b\"}").await?;
            Ok(())
        })
        .bind(&path)
        .unwrap();
    let files = FilesBlockingClient::connect(&path).unwrap();
    let text = files.size("x").unwrap_err().to_string();
    assert!(text.starts_with("what Files.size answered cannot be read: Ok: invalid type: string \"many\""), "{text}");
    let mut lines = files.lines(String::new()).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "a");
    let error = lines.next().unwrap().unwrap_err();
    assert!(matches!(&error, ServiceError::Call(CallError::Unreadable { method: "Files.lines", .. })), "{error}");
    assert!(lines.next().is_none(), "an error of the call ends the stream");
    let missing = files.version().unwrap_err();
    assert!(matches!(missing.call_error(), Some(CallError::UnknownMessageType { .. })), "{missing}");
}

/// A stream that nobody reads any more is dropped at the service, and a token ends a call.
#[test]
fn a_dropped_stream_and_a_cancelled_call_end_at_the_service() {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use bellrope::service::{Stream, produce};

    #[bellrope::service]
    trait Bells {
        fn ring(&self) -> impl Stream<Item = u64>;
        async fn wait(&self) -> u64;
    }

    #[derive(Clone, Default)]
    struct Tower(Arc<AtomicUsize>);

    struct Ringing(Arc<AtomicUsize>);

    impl Drop for Ringing {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl Tower {
        fn begin(&self) -> Ringing {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ringing(Arc::clone(&self.0))
        }
    }

    #[bellrope::service]
    impl Bells for Tower {
        fn ring(&self) -> impl Stream<Item = u64> {
            let ringing = self.begin();
            produce(async move |bells| {
                for count in 0.. {
                    let _ = &ringing;
                    bells.send(count).await;
                }
            })
        }

        async fn wait(&self) -> u64 {
            let _ringing = self.begin();
            std::future::pending().await
        }
    }

    let tower = Tower::default();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("bells.sock");
    let _server = Server::builder().service(tower.clone()).bind(&path).unwrap();
    let bells = BellsBlockingClient::connect(&path).unwrap();
    let until = |count: usize| {
        let began = std::time::Instant::now();
        while tower.0.load(Ordering::SeqCst) != count {
            assert!(began.elapsed() < Duration::from_secs(60), "{count} were expected");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let mut ringing = bells.ring().unwrap();
    assert_eq!(ringing.next().unwrap().unwrap(), 0);
    until(1);
    drop(ringing);
    until(0);

    let token = CancelToken::new();
    let options = CallOptions::new().timeout(Duration::MAX).cancel(&token);
    let waiting = std::thread::spawn(move || bells.wait_with(&options));
    until(1);
    token.cancel();
    let error = waiting.join().unwrap().unwrap_err();
    assert!(matches!(error.call_error(), Some(CallError::Cancelled)), "{error}");
    until(0);
}

/// Names that clients, futures and constructors have are free for methods, and keywords for arguments.
#[expect(clippy::wrong_self_convention, clippy::new_ret_no_self, reason = "whatever a method is called")]
#[tokio::test]
async fn methods_and_arguments_may_have_any_name() {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Odd {
        r#type: u8,
        from: u8,
        class: u8,
        constructor: u8,
        __proto__: u8,
    }

    #[bellrope::service(name = "odd")]
    trait Names {
        fn call(&self) -> u8;
        fn close(&self) -> u8;
        fn then(&self) -> u8;
        fn new(&self) -> u8;
        fn connect(&self) -> u8;
        fn from(&self) -> u8;
        fn clone(&self) -> u8;
        fn drop(&self) -> u8;
        fn register(&self) -> u8;
        fn r#type(&self, r#type: u8, options: u8, request: u8, service: u8, reply: u8, caller: u8) -> u8;
        #[name = "keyword"]
        fn odd(&self, odd: Odd) -> Odd;
    }

    struct Any;

    #[bellrope::service]
    impl Names for Any {
        fn call(&self) -> u8 {
            1
        }
        fn close(&self) -> u8 {
            2
        }
        fn then(&self) -> u8 {
            3
        }
        fn new(&self) -> u8 {
            4
        }
        fn connect(&self) -> u8 {
            5
        }
        fn from(&self) -> u8 {
            6
        }
        fn clone(&self) -> u8 {
            7
        }
        fn drop(&self) -> u8 {
            8
        }
        fn register(&self) -> u8 {
            9
        }
        fn r#type(&self, r#type: u8, options: u8, request: u8, service: u8, reply: u8, caller: u8) -> u8 {
            r#type + options + request + service + reply + caller
        }
        fn odd(&self, odd: Odd) -> Odd {
            odd
        }
    }

    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("names.sock");
    let _server = Server::builder().service(Any).bind(&path).unwrap();
    let raw = bellrope::AsyncClient::connect(&path).await.unwrap();
    let names: NamesClient = raw.clone().into();
    let answers = [
        names.call().await,
        names.close().await,
        names.then().await,
        names.new().await,
        names.connect().await,
        names.from().await,
        names.clone().await,
        names.drop().await,
        names.register().await,
        names.r#type(1, 2, 3, 4, 0, 0).await,
    ]
    .map(Result::unwrap);
    assert_eq!(answers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    let odd = || Odd { r#type: 1, from: 2, class: 3, constructor: 4, __proto__: 5 };
    assert_eq!(names.odd(odd()).await.unwrap(), odd());
    let wire = raw.call("odd.keyword", br#"{"odd":{"type":1,"from":2,"class":3,"constructor":4,"__proto__":5}}"#).await;
    assert_eq!(wire.unwrap(), br#"{"type":1,"from":2,"class":3,"constructor":4,"__proto__":5}"#);
    let sum = br#"{"type":1,"options":2,"request":3,"service":4,"reply":5,"caller":6}"#;
    assert_eq!(raw.call("odd.type", sum).await.unwrap(), b"21");
    assert!(raw.message_types().iter().any(|(name, _)| name == "odd.then"));
}

/// A generic service, an error of the service's, and a service that is shared.
#[test]
fn a_service_may_be_generic_and_fail_for_all() {
    use std::sync::Arc;

    use bellrope::HandlerError;

    trait Store: Send + Sync + 'static {
        fn fetch(&self, key: &str) -> impl Future<Output = Option<String>> + Send;
    }

    #[bellrope::service]
    trait Lookup {
        async fn look(&self, key: &str) -> Result<String, HandlerError>;
    }

    struct Cached<S>(S);

    #[bellrope::service]
    impl<S: Store> Lookup for Cached<S> {
        async fn look(&self, key: &str) -> Result<String, HandlerError> {
            self.0.fetch(key).await.ok_or_else(|| HandlerError::failure("the store is gone"))
        }
    }

    struct Words;

    impl Store for Words {
        async fn fetch(&self, key: &str) -> Option<String> {
            tokio::task::yield_now().await;
            (key != "gone").then(|| key.to_uppercase())
        }
    }

    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("lookup.sock");
    let shared = Arc::new(Cached(Words));
    let _server = Server::builder().service(LookupServer::from(Arc::clone(&shared))).bind(&path).unwrap();
    let lookup = LookupBlockingClient::connect(&path).unwrap();
    assert_eq!(lookup.look("ding").unwrap(), "DING");
    let error = lookup.look("gone").unwrap_err();
    let Some(CallError::Handler { text, .. }) = error.call_error() else { panic!("{error}") };
    assert_eq!(text, "the store is gone");
}
