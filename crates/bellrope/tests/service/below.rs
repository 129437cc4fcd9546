//! A blocking client of a service does the same over whatever calls bytes: a shared client, a pool, a connection of its own.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    sync::{Barrier, Mutex},
    time::Duration,
};

use bellrope::{
    CallError, Client, Server,
    client::{CallOptions, ClientConfig, Connection, Pool, PoolConfig, Rejection, Retry},
    service::{ByteClient, ServiceError},
};

use crate::files::{FileError, Part, json, postcard};

fn socket(home: &tempfile::TempDir) -> PathBuf {
    home.path().join("private").join("files.sock")
}

fn connection(path: &Path) -> Connection {
    Connection::connect(path).unwrap()
}

macro_rules! once {
    ($name:ident, $codec:ident) => {
        fn $name<B: ByteClient>(below: B) {
            let files = $codec::FilesBlockingClient::from(below);
            let options = CallOptions::new().timeout(Duration::from_secs(60));
            assert_eq!(files.size("some/\"file\"\n").unwrap(), 12);
            assert_eq!(files.size_with("four", &options).unwrap(), 4);
            assert_eq!(files.size("").unwrap_err().application(), Some(FileError::Missing));
            files.touch().unwrap();
            let part = Part { name: "x".to_owned(), bytes: vec![7; 300].into(), at: None };
            assert_eq!(files.join("a".into(), &[0, 255], &["b".to_owned()], &part).unwrap(), "a [0, 255] b x");
            let denied = files.index("/root".to_owned(), 2).unwrap_err();
            assert_eq!(denied.application(), Some(FileError::Denied { path: "/root".to_owned() }));
            assert_eq!(files.read("x", Some(u64::MAX)).unwrap(), format!("x:Some({})", u64::MAX));
            let panicked = files.size("panic").unwrap_err();
            assert!(matches!(panicked.call_error(), Some(CallError::HandlerPanic { .. })), "{panicked}");
            assert_eq!(files.version().unwrap(), 7, "a call that failed leaves it of use");
            let cancelled = bellrope::client::CancelToken::new();
            cancelled.cancel();
            let refused = files.size_with("x", &CallOptions::new().cancel(&cancelled)).unwrap_err();
            assert!(matches!(refused.call_error(), Some(CallError::Cancelled)), "{refused}");
        }
    };
}

once!(as_json, json);
once!(as_postcard, postcard);

#[test]
fn methods_that_answer_once_do_the_same_over_every_client_of_bytes() {
    let homes = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [json, postcard] = [socket(&homes[0]), socket(&homes[1])];
    let _json = Server::builder().service(json::Disk).bind(&json).unwrap();
    let _postcard = Server::builder().service(postcard::Disk).bind(&postcard).unwrap();
    as_json(Client::connect(&json).unwrap());
    as_json(Pool::new(PoolConfig::new(&json)));
    as_json(RefCell::new(connection(&json)));
    as_json(Mutex::new(connection(&json)));
    as_postcard(Client::connect(&postcard).unwrap());
    as_postcard(Pool::new(PoolConfig::new(&postcard)));
    as_postcard(RefCell::new(connection(&postcard)));
    as_postcard(Mutex::new(connection(&postcard)));
}

/// As many threads as there are connections are in the server at once: each waits there for the others.
#[test]
fn threads_with_one_pool_call_at_the_same_time() {
    use bellrope_testkit::support::PATIENCE;

    const THREADS: usize = 4;

    #[bellrope::service]
    trait Meeting {
        #[blocking]
        fn meet(&self) -> bool;
    }
    struct Place(Barrier);
    #[bellrope::service]
    impl Meeting for Place {
        fn meet(&self) -> bool {
            self.0.wait();
            true
        }
    }

    let home = tempfile::tempdir().unwrap();
    let path = socket(&home);
    let _server = Server::builder().service(Place(Barrier::new(THREADS))).bind(&path).unwrap();
    let meeting = MeetingBlockingClient::from(Pool::new(PoolConfig::new(&path)));
    let options = CallOptions::new().timeout(PATIENCE);
    std::thread::scope(|scope| {
        let met = [(); THREADS].map(|()| scope.spawn(|| meeting.meet_with(&options)));
        assert!(met.into_iter().all(|thread| thread.join().unwrap().unwrap()));
    });
    assert_eq!(meeting.as_ref().stats().created, THREADS as u64);
}

/// What a connection cannot do is refused before anything is sent.
#[test]
fn a_retry_is_refused_where_nothing_reconnects() {
    let home = tempfile::tempdir().unwrap();
    let path = socket(&home);
    let server = Server::builder().service(json::Disk).bind(&path).unwrap();
    let before = server.metrics().snapshot().total_requests();
    let retry = CallOptions::new().retry(Retry::NotExecuted);
    let errors = [
        json::FilesBlockingClient::from(Pool::new(PoolConfig::new(&path))).size_with("x", &retry).unwrap_err(),
        json::FilesBlockingClient::from(RefCell::new(connection(&path))).size_with("x", &retry).unwrap_err(),
        json::FilesBlockingClient::from(Mutex::new(connection(&path))).size_with("x", &retry).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error.call_error(), Some(CallError::UnusableOption { option: "retry", .. })), "{error}");
    }
    assert_eq!(server.metrics().snapshot().total_requests(), before);
}

/// A pool without a connection to lend is a refusal that may be tried again, after no longer than the call's time-out.
#[test]
fn an_exhausted_pool_refuses_within_the_time_out_of_the_call() {
    let home = tempfile::tempdir().unwrap();
    let path = socket(&home);
    let _server = Server::builder().service(json::Disk).bind(&path).unwrap();
    let pool = Pool::new(PoolConfig::new(&path).max_size(1).acquire_timeout(Duration::from_secs(3600)));
    let files = json::FilesBlockingClient::from(pool.clone());
    assert_eq!(files.size("x").unwrap(), 1);
    let lent = pool.acquire().unwrap();
    let error = files.size_with("x", &CallOptions::new().timeout(Duration::from_millis(20))).unwrap_err();
    let Some(CallError::Rejected { reason: Rejection::Busy, text, .. }) = error.call_error() else { panic!("{error}") };
    assert!(text.contains("max_size") && error.is_retryable(), "{text}");
    drop(lent);
    assert_eq!(files.size("xx").unwrap(), 2);
}

/// With the next server a pool's client checks anew what that offers; a connection is at its end.
#[test]
fn a_pool_finds_the_next_server_and_checks_what_it_offers() {
    mod other {
        #[bellrope::service(name = "Places", codec = "postcard")]
        pub(super) trait Files {
            fn size(&self, path: &str, deep: bool) -> Result<u64, String>;
        }
        pub(super) struct Disk;
        #[bellrope::service]
        impl Files for Disk {
            fn size(&self, _: &str, _: bool) -> Result<u64, String> {
                Ok(0)
            }
        }
    }

    let home = tempfile::tempdir().unwrap();
    let path = socket(&home);
    let server = Server::builder().service(postcard::Disk).bind(&path).unwrap();
    let pooled = postcard::FilesBlockingClient::from(Pool::new(PoolConfig::new(&path)));
    let own = postcard::FilesBlockingClient::from(RefCell::new(connection(&path)));
    assert_eq!((pooled.size("x").unwrap(), own.size("x").unwrap()), (1, 1));

    drop(server);
    let none = pooled.size("x").unwrap_err();
    assert!(matches!(none.call_error(), Some(CallError::Connect(_))), "{none}");
    let lost = own.size("x").unwrap_err();
    assert!(matches!(lost.call_error(), Some(CallError::NotExecuted | CallError::Unknown)), "{lost}");

    // The same types with other numbers, then other types of the same names.
    let server = Server::builder().unary("a", |_, _| Ok(())).service(postcard::Disk).bind(&path).unwrap();
    assert_eq!(pooled.size("x").unwrap(), 1);
    drop(server);
    let _server = Server::builder().service(other::Disk).bind(&path).unwrap();
    for files in [pooled, postcard::FilesBlockingClient::from(Pool::new(PoolConfig::new(&path)))] {
        let error: ServiceError<FileError> = files.size("x").unwrap_err();
        let Some(CallError::Incompatible { differences, .. }) = error.call_error() else { panic!("{error}") };
        assert!(differences.contains("arguments.deep is only there"), "{differences}");
    }
    let own = postcard::FilesBlockingClient::from(RefCell::new(connection(&path)));
    let error = own.size("x").unwrap_err();
    assert!(matches!(error.call_error(), Some(CallError::Incompatible { .. })), "{error}");
}

/// A connection keeps the answers to calls of bytes that its owner made beside the typed ones.
#[test]
fn typed_calls_go_beside_calls_of_bytes_on_one_connection() {
    let home = tempfile::tempdir().unwrap();
    let path = socket(&home);
    let _server = Server::builder().service(json::Disk).bind(&path).unwrap();
    let files = json::FilesBlockingClient::from(RefCell::new(Connection::with(&ClientConfig::new(&path)).unwrap()));
    let call = files.as_ref().borrow_mut().submit("Files.size", br#"{"path":"abc"}"#).unwrap();
    assert_eq!(files.size("x").unwrap(), 1);
    let mut reply = Vec::new();
    let completion = files.as_ref().borrow_mut().wait(&mut reply).unwrap();
    assert_eq!((completion.id, reply.as_slice()), (call, &br#"{"Ok":3}"#[..]));
}
