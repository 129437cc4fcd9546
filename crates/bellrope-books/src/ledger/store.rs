//! The SQLite file: its tables, and what is written to and read from it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, params};

use crate::place::{FileIdentity, make_private};
use crate::reserve::{LedgerQuestion, Sum, Who};
use crate::row::Row;

/// Says that a database is ours: `Bell`.
const APPLICATION: i32 = 0x4265_6c6c;

/// The steps that make the tables, the oldest first. A step that was ever released does not change.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE requests (
        id INTEGER PRIMARY KEY,
        at_ms INTEGER NOT NULL,          -- since 1970
        took_ms INTEGER NOT NULL,
        server INTEGER NOT NULL,         -- which server wrote it: a random number of each start
        provider TEXT NOT NULL,
        model TEXT,
        client TEXT NOT NULL,
        client_kind TEXT NOT NULL,       -- token, process, program, unknown
        endpoint TEXT NOT NULL,
        outcome TEXT NOT NULL,           -- done, cancelled, cut, refused, failed
        input_tokens INTEGER NOT NULL,   -- those of the cache among them
        output_tokens INTEGER NOT NULL,  -- those of reasoning among them
        cached_tokens INTEGER,           -- NULL: not said
        cache_write_tokens INTEGER,
        reasoning_tokens INTEGER,
        estimated INTEGER NOT NULL,      -- 1: some of the tokens were estimated
        cost_micros INTEGER,             -- NULL: the price is not known
        currency TEXT
    ) STRICT;
    CREATE INDEX requests_by_time ON requests (at_ms);
"];

/// How long a statement waits for another process that writes. Nothing but the thread of the ledger waits.
const BUSY: Duration = Duration::from_secs(2);

/// Memory for pages of the file, in KiB.
const CACHE_KIB: i32 = 256;

/// Clients of which the ledger tells what they spent.
const MAX_CLIENTS: usize = 4_096;

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file or its folder cannot be made.
    #[error("{} cannot be made: {source}", path.display())]
    Make {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no file.
    #[error("there is no ledger at {}; a server makes it with the first answer of an AI provider", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It was written by a later program.
    #[error(
        "{} has version {found}, and this program knows versions up to {known}; use the program that wrote it, or name another \
         file as books.path",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The latest version known here.
        known: i64,
    },
    /// It is a database of something else.
    #[error("{} is a database of another program; name another file as books.path", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It is no database, or a damaged one.
    #[error("{} is damaged or no ledger ({reason}); move it away, and a new one is made", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
    /// Another process holds it.
    #[error("{} is locked by another process, and was not let go within {BUSY:?}", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// There is no room.
    #[error("{} has no room: the disk, or a limit on the size of files, is full ({reason})", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
    /// Something else.
    #[error("{} cannot be used: {reason}", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
}

impl StoreError {
    fn of(path: &Path, error: &rusqlite::Error) -> Self {
        let path = path.to_owned();
        // Of input and output the words are the same whatever failed; the number says what it was.
        let reason = match error.sqlite_error() {
            Some(known) if known.code == ErrorCode::SystemIoFailure => format!("{error}, code {}", known.extended_code),
            _ => error.to_string(),
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Broken { path, reason },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked { path },
            // A write that fails for want of room comes as one or the other.
            Some(ErrorCode::DiskFull) => Self::Full { path, reason },
            Some(ErrorCode::SystemIoFailure) if is_of_writing(error) => Self::Full { path, reason },
            _ => Self::Other { path, reason },
        }
    }
}

/// Whether an I/O error is one of writing: `SQLITE_IOERR_WRITE`.
fn is_of_writing(error: &rusqlite::Error) -> bool {
    const WRITE: i32 = 10 | (3 << 8);
    error.sqlite_error().is_some_and(|error| error.extended_code == WRITE)
}

/// A link that leads nowhere is no place for a ledger: SQLite follows it and says only that it cannot.
fn check_link(path: &Path) -> Result<(), StoreError> {
    match fs::read_link(path) {
        Ok(target) if !path.exists() => {
            let reason = format!("it is a symbolic link to {}, which is not there", target.display());
            Err(StoreError::Other { path: path.to_owned(), reason })
        }
        _ => Ok(()),
    }
}

/// How the file beside a ledger ends that has what is not in it yet.
const LOG: &str = "-wal";

/// A file beside another one.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(ending);
    beside.into()
}

/// The file, open.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    connection: Connection,
    file: Option<FileIdentity>,
    /// The file beside it with what is not in it yet.
    log: Option<FileIdentity>,
}

impl Store {
    /// Opens the ledger to write, makes it if it is missing, and brings its tables up to date.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        check_link(path)?;
        make_private(path).map_err(|source| StoreError::Make { path: path.to_owned(), source })?;
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            let reason = "it is no ordinary file; name another as books.path".to_owned();
            return Err(StoreError::Other { path: path.to_owned(), reason });
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(|error| StoreError::of(path, &error))?;
        let mut store = Self { path: path.to_owned(), connection, file: FileIdentity::of(path), log: None };
        store.set_up().map_err(|error| error.into_store_error(path))?;
        store.log = FileIdentity::of(&beside(path, LOG));
        Ok(store)
    }

    /// Opens a ledger that is there, to read it or to erase some of it.
    pub(crate) fn existing(path: &Path) -> Result<Self, StoreError> {
        check_link(path)?;
        if !path.exists() {
            return Err(StoreError::Missing { path: path.to_owned() });
        }
        Self::open(path)
    }

    fn set_up(&mut self) -> Result<(), SetUp> {
        let connection = &mut self.connection;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        // What is erased is gone from the file, too.
        connection.pragma_update(None, "secure_delete", true)?;
        // Where the file system has no memory to share, another mode stays, which is slower and as good.
        connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        // A crash of the machine may take the last rows along, and damages nothing.
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.pragma_update(None, "journal_size_limit", 1_048_576)?;
        let known = MIGRATIONS.len() as i64;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let number = |name: &str| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let (version, application) = (number("user_version")?, number("application_id")?);
        let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if application != i64::from(APPLICATION) && (tables > 0 || version != 0) {
            return Err(SetUp::Foreign);
        }
        if version > known {
            return Err(SetUp::Newer { found: version, known });
        }
        if version < known {
            for step in &MIGRATIONS[usize::try_from(version).unwrap_or(0)..] {
                transaction.execute_batch(step)?;
            }
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", known)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Whether the file at the path is still the one that is open.
    pub(crate) fn is_there(&self) -> bool {
        self.file.is_some() && FileIdentity::of(&self.path) == self.file
    }

    /// Closes a ledger that is no longer in its place. Of one that was moved away SQLite itself writes nothing back. Where another
    /// file is now, what was not in the old one yet would be written into the new one by whoever opens that, so it is put aside.
    pub(crate) fn leave(self) {
        let Self { path, connection, log, .. } = self;
        if !path.exists() {
            let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        }
        drop(connection);
        let beside_it = beside(&path, LOG);
        if path.exists() && log.is_some() && FileIdentity::of(&beside_it) == log {
            let _ = fs::rename(&beside_it, beside(&path, ".replaced-wal"));
            let _ = fs::remove_file(beside(&path, "-shm"));
        }
    }

    /// Writes all rows or none.
    pub(crate) fn write(&mut self, server: i64, rows: &[Row]) -> Result<(), StoreError> {
        let write = |transaction: Transaction<'_>| {
            {
                let mut insert = transaction.prepare(
                    "INSERT INTO requests (at_ms, took_ms, server, provider, model, client, client_kind, endpoint, outcome, \
                     input_tokens, output_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, estimated, cost_micros, \
                     currency) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
                )?;
                for row in rows {
                    let tokens = &row.tokens;
                    insert.execute(params![
                        row.at_ms,
                        signed(row.took_ms),
                        server,
                        row.provider,
                        row.model,
                        row.client,
                        row.kind.word(),
                        row.endpoint,
                        row.outcome.word(),
                        signed(tokens.input),
                        signed(tokens.output),
                        tokens.cached.map(signed),
                        tokens.cache_write.map(signed),
                        tokens.reasoning.map(signed),
                        tokens.estimated,
                        row.cost.as_ref().map(|cost| signed(cost.micros)),
                        row.cost.as_ref().map(|cost| &cost.currency),
                    ])?;
                }
            }
            transaction.commit()
        };
        self.connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .and_then(write)
            .map_err(|error| StoreError::of(&self.path, &error))
    }

    /// Erases the rows from before a moment.
    pub(crate) fn prune(&mut self, before_ms: i64) -> Result<usize, StoreError> {
        let erased = self.connection.execute("DELETE FROM requests WHERE at_ms < ?1", [before_ms]);
        erased.map_err(|error| StoreError::of(&self.path, &error))
    }

    /// What all servers but this one spent of a budget, by client.
    pub(crate) fn spent(&self, server: i64, question: &LedgerQuestion) -> Result<Vec<(String, Sum)>, StoreError> {
        let (kind, client, by_client) = match &question.who {
            Who::All => (None, None, false),
            Who::Token(name) if name == "*" => (Some("token"), None, true),
            Who::Token(name) => (Some("token"), Some(name), false),
            Who::Client(name) if name == "*" => (None, None, true),
            Who::Client(name) => (None, Some(name), false),
        };
        let read = || {
            let mut ask = self.connection.prepare(
                "SELECT CASE WHEN ?6 THEN client ELSE '' END, count(*), sum(input_tokens + output_tokens), \
                 sum(CASE WHEN currency = ?7 THEN cost_micros ELSE 0 END), sum(cost_micros IS NULL) FROM requests \
                 WHERE at_ms >= ?1 AND at_ms < ?2 AND server <> ?3 AND outcome <> 'refused' \
                 AND (?4 IS NULL OR client_kind = ?4) AND (?5 IS NULL OR client = ?5) GROUP BY 1 LIMIT ?8",
            )?;
            let from_until = (question.from, question.until);
            let rows = ask.query_map(
                params![
                    from_until.0,
                    from_until.1,
                    server,
                    kind,
                    client,
                    by_client,
                    question.currency,
                    MAX_CLIENTS as i64
                ],
                |row| {
                    let sum = Sum {
                        requests: unsigned(row.get(1)?),
                        tokens: unsigned(row.get(2)?),
                        micros: unsigned(row.get(3)?),
                        without_price: unsigned(row.get(4)?),
                    };
                    Ok((row.get(0)?, sum))
                },
            )?;
            rows.collect::<Result<Vec<_>, _>>()
        };
        read().map_err(|error| StoreError::of(&self.path, &error))
    }

    /// Asks in words of the caller's.
    pub(crate) fn ask<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        read(&self.connection).map_err(|error| StoreError::of(&self.path, &error))
    }
}

/// Why a file cannot be set up.
enum SetUp {
    Sqlite(rusqlite::Error),
    Newer { found: i64, known: i64 },
    Foreign,
}

impl SetUp {
    fn into_store_error(self, path: &Path) -> StoreError {
        match self {
            Self::Sqlite(error) => StoreError::of(path, &error),
            Self::Newer { found, known } => StoreError::Newer { path: path.to_owned(), found, known },
            Self::Foreign => StoreError::Foreign { path: path.to_owned() },
        }
    }
}

impl From<rusqlite::Error> for SetUp {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// A count as SQLite has it. What came from a provider may be anything.
fn signed(count: u64) -> i64 {
    // A sum of a million of them still is a number.
    i64::try_from(count).unwrap_or(i64::MAX).min(i64::MAX >> 20)
}

pub(crate) fn unsigned(count: Option<i64>) -> u64 {
    u64::try_from(count.unwrap_or(0)).unwrap_or(0)
}
