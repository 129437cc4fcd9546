use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::AtomicI64;
use std::time::UNIX_EPOCH;

use bellrope_gateway::AskerKind;
use bellrope_gateway::account::Outcome;
use rusqlite::Connection;

use super::*;
use crate::price::Money;
use crate::reserve::Who;
use crate::row::TokenCount;
use crate::usage::{By, Forget, UsageQuery, forget, usage};

const PATIENCE: Duration = Duration::from_secs(60);

/// An owner that keeps everything and asks nothing.
struct Plain {
    oldest: AtomicI64,
}

fn owner() -> Arc<dyn LedgerOwner> {
    Arc::new(Plain { oldest: AtomicI64::new(i64::MIN) })
}

impl LedgerOwner for Plain {
    fn oldest_ms(&self) -> Option<i64> {
        Some(self.oldest.load(Relaxed))
    }

    fn questions(&self) -> Vec<LedgerQuestion> {
        Vec::new()
    }

    fn answered(&self, _: &LedgerQuestion, _: Vec<(String, Sum)>) {}
}

fn row(client: &str, at_ms: i64) -> Row {
    Row {
        at_ms,
        took_ms: 5,
        provider: "p".into(),
        model: Some("m".into()),
        client: client.into(),
        kind: AskerKind::Token,
        endpoint: "/v1/responses",
        outcome: Outcome::Done,
        tokens: TokenCount { input: 100, output: 10, cached: Some(40), ..TokenCount::default() },
        cost: Some(Money { micros: 7, currency: "USD".into() }),
    }
}

struct Place {
    home: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.home.path().join("state").join("books.db")
    }

    fn ledger(&self, server: i64) -> Ledger {
        Ledger::new(self.path(), server)
    }

    fn requests(&self) -> u64 {
        usage(&self.path(), &UsageQuery::default()).map_or(0, |report| report.total.requests)
    }
}

#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come");
        thread::sleep(Duration::from_millis(5));
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn rows_are_written_as_they_were_and_only_their_user_reads_them() {
    let (place, owner) = (Place::new(), owner());
    let ledger = place.ledger(1);
    assert!(!place.path().exists());
    for number in 0..100 {
        ledger.add(row(if number % 4 == 0 { "a" } else { "b" }, 86_400_000 * (number % 2)), &owner);
    }
    assert!(ledger.close(PATIENCE));
    assert_eq!((ledger.written(), ledger.lost(), ledger.trouble()), (100, 0, None));
    assert_eq!((mode(&place.path()), mode(place.path().parent().unwrap())), (0o600, 0o700));
    let by_day = usage(&place.path(), &UsageQuery::default()).unwrap();
    assert_eq!(
        by_day.rows.iter().map(|row| (&*row.of, row.requests)).collect::<Vec<_>>(),
        [("1970-01-01", 50), ("1970-01-02", 50)]
    );
    let total = &by_day.total;
    assert_eq!((total.input_tokens, total.output_tokens, total.cached_tokens), (10_000, 1_000, 4_000));
    assert_eq!(total.costs[0].to_string(), "0.0007 USD");
    let query = UsageQuery { by: By::Client, since: Some(UNIX_EPOCH + Duration::from_secs(86_400)) };
    let by_client = usage(&place.path(), &query).unwrap();
    assert_eq!((&*by_client.rows[0].of, by_client.rows[0].requests, by_client.rows.len()), ("b", 50, 1));
    assert_eq!(by_client.rows[0].kind.as_deref(), Some("token"));
}

#[test]
fn what_waits_is_in_the_file_when_a_flush_ends() {
    let (place, owner) = (Place::new(), owner());
    let ledger = place.ledger(1);
    assert!(ledger.flush(Duration::ZERO), "nothing waits");
    assert!(!place.path().exists());
    // From the second on they would be gathered.
    for number in 1..=20 {
        ledger.add(row("a", 0), &owner);
        assert!(ledger.flush(PATIENCE));
        assert_eq!((place.requests(), ledger.written()), (number, number));
    }
    assert!(ledger.close(PATIENCE));
    assert!(ledger.flush(PATIENCE), "all was written");
}

#[test]
fn a_flush_of_what_cannot_be_written_ends_in_time_and_says_so() {
    let (place, owner) = (Place::new(), owner());
    // A file where the folder should be.
    fs::write(place.home.path().join("state"), "").unwrap();
    let ledger = place.ledger(1);
    ledger.add(row("a", 0), &owner);
    assert!(!ledger.flush(Duration::from_millis(20)));
    eventually("the failure", || ledger.trouble().is_some());
    assert!(!ledger.flush(Duration::from_millis(20)));
    fs::remove_file(place.home.path().join("state")).unwrap();
    assert!(ledger.flush(PATIENCE), "it is tried again");
    assert_eq!(place.requests(), 1);
    assert!(ledger.close(PATIENCE));
}

#[test]
fn files_of_the_write_ahead_log_are_as_private_as_the_ledger() {
    let (place, owner) = (Place::new(), owner());
    let ledger = place.ledger(1);
    ledger.add(row("a", 0), &owner);
    eventually("the row", || ledger.written() == 1);
    let beside = fs::read_dir(place.path().parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let modes: Vec<_> = beside.map(|path| mode(&path)).collect();
    assert!(modes.len() > 1 && modes.iter().all(|mode| *mode == 0o600), "{modes:?}");
    assert!(ledger.close(PATIENCE));
}

#[test]
fn two_servers_share_one_ledger_and_lose_no_row() {
    let place = Place::new();
    let each = 1_500;
    thread::scope(|scope| {
        for server in [1, 2] {
            let place = &place;
            scope.spawn(move || {
                let (ledger, owner) = (place.ledger(server), owner());
                for number in 0..each {
                    ledger.add(row(&server.to_string(), number), &owner);
                    if number % 100 == 0 {
                        eventually("room", || ledger.0.queue().rows.len() < 100);
                    }
                }
                assert!(ledger.close(PATIENCE), "{:?}", ledger.trouble());
                assert_eq!((ledger.written(), ledger.lost()), (each as u64, 0));
            });
        }
    });
    assert_eq!(place.requests(), 2 * each as u64);
}

#[test]
fn a_locked_ledger_holds_nobody_up_and_its_rows_are_written_when_it_is_let_go() {
    let (place, owner) = (Place::new(), owner());
    drop(Store::open(&place.path()).unwrap());
    let lock = Connection::open(place.path()).unwrap();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let ledger = place.ledger(1);
    for number in 0..2 * MAX_WAITING {
        ledger.add(row("a", number as i64), &owner);
    }
    // Those that found no place are counted, and nobody waited.
    assert_eq!(ledger.lost(), MAX_WAITING as u64);
    eventually("the trouble", || ledger.trouble().is_some());
    assert!(ledger.trouble().unwrap().contains("is locked by another process"), "{:?}", ledger.trouble());
    lock.execute_batch("COMMIT").unwrap();
    eventually("the rows", || ledger.written() == MAX_WAITING as u64);
    eventually("the end of the trouble", || ledger.trouble().is_none());
    assert!(ledger.close(PATIENCE));
    assert_eq!(place.requests(), MAX_WAITING as u64);
}

#[test]
fn a_damaged_ledger_is_said_in_words_and_left_as_it_is_until_somebody_moves_it_away() {
    let (place, owner) = (Place::new(), owner());
    fs::create_dir_all(place.path().parent().unwrap()).unwrap();
    let damaged = "nothing that a database would say ".repeat(100);
    fs::write(place.path(), &damaged).unwrap();
    let ledger = place.ledger(1);
    ledger.add(row("a", 0), &owner);
    eventually("the trouble", || ledger.trouble().is_some());
    assert!(ledger.trouble().unwrap().contains("move it away, and a new one is made"), "{:?}", ledger.trouble());
    assert_eq!(fs::read_to_string(place.path()).unwrap(), damaged);
    fs::rename(place.path(), place.home.path().join("away")).unwrap();
    eventually("the row", || ledger.written() == 1);
    assert!(ledger.close(PATIENCE));
    assert_eq!(place.requests(), 1);
}

#[test]
fn a_ledger_of_a_later_program_or_of_another_one_is_refused_in_words() {
    let place = Place::new();
    drop(Store::open(&place.path()).unwrap());
    let connection = Connection::open(place.path()).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = Store::open(&place.path()).unwrap_err().to_string();
    assert!(
        error.contains("has version 99, and this program knows versions up to 1; use the program that wrote it"),
        "{error}"
    );
    let (ledger, owner) = (place.ledger(1), owner());
    ledger.add(row("a", 0), &owner);
    eventually("the trouble", || ledger.trouble().is_some_and(|trouble| trouble.contains("has version 99")));
    assert!(!ledger.close(Duration::from_millis(300)));
    assert_eq!(ledger.lost(), 1);

    let other = place.home.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
    assert!(matches!(Store::open(&other), Err(StoreError::Foreign { .. })));
    let missing = Store::existing(&place.home.path().join("none.db")).unwrap_err();
    assert!(missing.to_string().starts_with("there is no ledger at "), "{missing}");
}

#[test]
fn a_disk_without_room_is_said_to_have_none() {
    let place = Place::new();
    let mut store = Store::open(&place.path()).unwrap();
    store.ask(|connection| connection.pragma_update(None, "max_page_count", 4)).unwrap();
    let rows: Vec<_> = (0..1_000).map(|number| row("a", number)).collect();
    let error = store.write(1, &rows).unwrap_err();
    assert!(matches!(&error, StoreError::Full { .. }), "{error}");
    assert_eq!(place.requests(), 0, "all rows or none");
}

#[test]
fn a_ledger_that_is_moved_away_is_made_anew_for_the_next_row() {
    let (place, owner) = (Place::new(), owner());
    let ledger = place.ledger(1);
    ledger.add(row("a", 0), &owner);
    eventually("the first row", || ledger.written() == 1);
    fs::remove_file(place.path()).unwrap();
    for ending in ["-wal", "-shm"] {
        let mut path = place.path().into_os_string();
        path.push(ending);
        let _ = fs::remove_file(path);
    }
    ledger.add(row("b", 0), &owner);
    assert!(ledger.close(PATIENCE));
    assert_eq!((ledger.written(), place.requests()), (2, 1));
}

#[test]
fn a_ledger_that_is_moved_while_it_is_in_use_takes_all_its_rows_along() {
    let (place, owner) = (Place::new(), owner());
    let ledger = place.ledger(1);
    (0..40).for_each(|number| ledger.add(row("a", number), &owner));
    eventually("the rows", || ledger.written() == 40);
    let archive = place.home.path().join("archive.db");
    fs::rename(place.path(), &archive).unwrap();
    ledger.add(row("b", 0), &owner);
    assert!(ledger.close(PATIENCE));
    assert_eq!((ledger.written(), place.requests()), (41, 1));
    let rows = |connection: &Connection| connection.query_row("SELECT count(*) FROM requests", [], |row| row.get(0));
    let count: i64 = rows(&Connection::open(&archive).unwrap()).unwrap();
    assert_eq!(count, 40);
}

#[test]
fn a_file_that_is_put_in_the_place_of_a_ledger_in_use_keeps_what_it_has() {
    let (place, backup, owner) = (Place::new(), Place::new(), owner());
    let old = backup.ledger(1);
    (0..40).for_each(|number| old.add(row("old", number), &owner));
    assert!(old.close(PATIENCE));
    let ledger = place.ledger(2);
    ledger.add(row("a", 0), &owner);
    eventually("the first row", || ledger.written() == 1);
    fs::rename(backup.path(), place.path()).unwrap();
    ledger.add(row("b", 0), &owner);
    assert!(ledger.close(PATIENCE));
    assert_eq!((ledger.written(), place.requests()), (2, 41));

    let ledger = place.ledger(3);
    ledger.add(row("c", 0), &owner);
    eventually("one more row", || ledger.written() == 1);
    let garbage = backup.path();
    fs::write(&garbage, "not ours ".repeat(2000)).unwrap();
    fs::rename(&garbage, place.path()).unwrap();
    ledger.add(row("d", 0), &owner);
    assert!(!ledger.close(Duration::from_secs(2)));
    assert!(fs::read(place.path()).unwrap().starts_with(b"not ours "), "it is left as it is");
}

#[test]
fn rows_that_are_too_old_are_erased() {
    let place = Place::new();
    let plain = Arc::new(Plain { oldest: AtomicI64::new(i64::MIN) });
    let owner: Arc<dyn LedgerOwner> = Arc::clone(&plain) as _;
    let ledger = place.ledger(1);
    (0..10).for_each(|number| ledger.add(row("a", number), &owner));
    assert!(ledger.close(PATIENCE));
    plain.oldest.store(7, Relaxed);
    let ledger = place.ledger(2);
    ledger.add(row("a", 100), &owner);
    assert!(ledger.close(PATIENCE));
    assert_eq!(place.requests(), 4);
}

#[test]
fn what_is_forgotten_is_gone_from_the_files_too() {
    let (place, owner) = (Place::new(), owner());
    let ledger = place.ledger(1);
    for number in 0..100 {
        ledger.add(row(if number % 2 == 0 { "a-name-to-forget" } else { "b" }, number), &owner);
    }
    eventually("the rows", || ledger.written() == 100);
    let forgotten = |what: Forget| forget(&place.path(), &what).unwrap();
    assert_eq!(forgotten(Forget::default()), 0);
    assert_eq!(
        forgotten(Forget {
            before: Some(UNIX_EPOCH + Duration::from_millis(50)),
            client: Some("b".into()),
            all: false
        }),
        25
    );
    assert_eq!(forgotten(Forget { client: Some("a-name-to-forget".into()), ..Forget::default() }), 50);
    for entry in fs::read_dir(place.path().parent().unwrap()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(16).any(|window| window == b"a-name-to-forget"));
    }
    // The server goes on.
    ledger.add(row("c", 0), &owner);
    assert!(ledger.close(PATIENCE));
    assert_eq!(place.requests(), 26);
    assert_eq!(forgotten(Forget { all: true, ..Forget::default() }), 26);
}

#[test]
fn what_others_spent_is_told_by_budget_and_client() {
    let (place, owner) = (Place::new(), owner());
    for server in [1, 2] {
        let ledger = place.ledger(server);
        ledger.add(row("a", 10), &owner);
        ledger.add(row("b", 20), &owner);
        ledger.add(Row { kind: AskerKind::Program, ..row("a", 20) }, &owner);
        ledger.add(Row { cost: None, ..row("b", 99) }, &owner);
        assert!(ledger.close(PATIENCE));
    }
    let store = Store::open(&place.path()).unwrap();
    let spent = |who: Who| {
        let question = LedgerQuestion { budget: "q".into(), from: 10, until: 50, who, currency: "USD".into() };
        store.spent(1, &question).unwrap()
    };
    let sum = |requests| Sum { micros: 7 * requests, tokens: 110 * requests, requests, ..Sum::default() };
    assert_eq!(spent(Who::All), [(String::new(), sum(3))]);
    assert_eq!(spent(Who::Token("a".into())), [(String::new(), sum(1))]);
    assert_eq!(spent(Who::Client("a".into())), [(String::new(), sum(2))]);
    assert_eq!(spent(Who::Token("*".into())), [("a".to_owned(), sum(1)), ("b".to_owned(), sum(1))]);
    assert_eq!(spent(Who::Token("c".into())), []);
    let of_b = LedgerQuestion {
        budget: "q".into(),
        from: 90,
        until: 100,
        who: Who::Client("b".into()),
        currency: "USD".into(),
    };
    let unpriced = Sum { tokens: 110, requests: 1, without_price: 1, ..Sum::default() };
    assert_eq!(store.spent(1, &of_b).unwrap(), [(String::new(), unpriced)]);
}

#[test]
fn a_link_that_leads_nowhere_is_named() {
    let place = Place::new();
    let path = place.path();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let target = place.home.path().join("elsewhere.db");
    std::os::unix::fs::symlink(&target, &path).unwrap();
    for opened in [Store::open(&path), Store::existing(&path)] {
        let error = opened.unwrap_err().to_string();
        assert!(
            error.contains("it is a symbolic link to ") && error.contains("elsewhere.db, which is not there"),
            "{error}"
        );
    }
    fs::write(&target, "").unwrap();
    assert!(Store::open(&path).is_ok(), "one that leads somewhere is followed");
}

#[test]
fn what_is_no_file_is_no_ledger_and_is_left_alone() {
    let place = Place::new();
    let path = place.path();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let error = Store::open(&path).unwrap_err().to_string();
    assert!(error.contains("it is no ordinary file; name another as books.path"), "{error}");
    assert!(!fs::metadata(&path).unwrap().is_file());
}
