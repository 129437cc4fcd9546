//! A limit on the size of files, which is the whole process's: hence a program of its own.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bellrope_books::{BookSettings, Bookkeeper, UsageQuery, usage};
use bellrope_gateway::{ChatRequest, Gateway, GatewaySettings};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn a_full_disk_loses_no_answer_and_is_said_and_rows_come_when_there_is_room() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state").join("books.db");
    let books = Bookkeeper::start(BookSettings { path: Some(path.clone()), ..BookSettings::default() }, None);
    let gateway = Gateway::from_settings_and_vars(GatewaySettings::default(), |_| None).unwrap();
    let gateway = gateway.with_books(Arc::new(books.clone()));
    let tokio = runtime();
    let answer = || {
        let answer = tokio.block_on(gateway.chat(ChatRequest::user("Hello"))).unwrap();
        assert!(answer.text.ends_with("Hello"));
    };
    answer();
    eventually("the first row", || books.written_and_lost().0 == 1);

    // Without a handler the system ends the process with this signal.
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::new(AtomicBool::new(false))).unwrap();
    let before = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(4_096), maximum: before.maximum }).unwrap();
    for _ in 0..50 {
        answer();
    }
    eventually("the trouble", || books.trouble().is_some());
    let trouble = books.trouble().unwrap();
    assert!(trouble.contains("has no room: the disk, or a limit on the size of files, is full"), "{trouble}");
    answer();
    setrlimit(Resource::Fsize, before).unwrap();
    eventually("the end of the trouble", || books.trouble().is_none());
    assert!(books.close(Duration::from_secs(30)));
    assert_eq!(books.written_and_lost(), (52, 0));
    assert_eq!(usage(&path, &UsageQuery::default()).unwrap().total.done, 52);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}
