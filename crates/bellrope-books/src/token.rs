//! The tokens of tools: a name for each, and the hash of what it shows. The token itself is said once, when it is made.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bellrope_gateway::{Asker, AskerKind};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::budget::Budget;
use crate::place::prepare;

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope_books::token";

/// What every token of ours begins with: a key that a tool has for somebody else does not.
const PREFIX: &str = "brt_";
/// Random bytes of a token.
const RANDOM: usize = 24;
/// All are compared for each request.
const MAX_TOKENS: usize = 256;
/// Budgets of one token.
const MAX_BUDGETS: usize = 8;
/// The longest file.
const MAX_FILE: u64 = 1024 * 1024;
/// How often the file is looked at, at the most.
const LOOK: Duration = Duration::from_millis(500);
/// What people paste around a key.
const AROUND: [char; 3] = ['"', '\'', ' '];
/// The form of the file.
const VERSION: u32 = 1;

/// The tokens that a file holds, read again when it changes. Clones share what was read.
#[derive(Debug, Clone)]
pub struct Tokens {
    path: PathBuf,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    looked: Option<Instant>,
    stamp: Option<Stamp>,
    rows: Arc<Vec<TokenRow>>,
    /// Grows with every change.
    version: u64,
    /// The file cannot be read.
    is_unreadable: bool,
}

/// What tells one state of the file from another.
type Stamp = (u64, i64, i64, u64);

/// One token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRow {
    /// The tool's name.
    pub name: String,
    /// The hash of the token, in hexadecimal digits. It says nothing about it.
    sha256: String,
    /// When it was made, in seconds since 1970.
    pub added: u64,
    /// What the tool may spend, as in `5USD/day`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    tokens: Vec<TokenRow>,
}

/// A token that was just made. Nobody can say it again.
#[derive(Clone, PartialEq, Eq)]
pub struct NewToken {
    /// The tool's name.
    pub name: String,
    /// What the tool shows.
    pub token: String,
}

/// Whose a key is that a tool shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyHolder {
    /// That of the tool of this name.
    Token(String),
    /// It looks like one of ours, and is none: removed, or mistyped.
    Wrong,
    /// Somebody else's: a tool that must have some key shows any.
    Foreign,
}

/// Why the tokens cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The name cannot be one.
    #[error("{name:?} is no name for a token; give 1 to 48 letters, digits or any of ._-+:@/")]
    Name {
        /// What was given.
        name: String,
    },
    /// There is one of this name.
    #[error("there is a token of the name `{name}` already; remove that one first, or choose another name")]
    Taken {
        /// The name.
        name: String,
    },
    /// There is none of this name.
    #[error("there is no token of the name {name:?}; {}", if known.is_empty() { "there is none at all".to_owned() } else { format!("known: {}", known.join(", ")) })]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// There are too many.
    #[error("there are {MAX_TOKENS} tokens, as many as there may be; remove some first")]
    TooMany,
    /// A budget cannot be one.
    #[error("{0}")]
    Budget(String),
    /// The file holds something else.
    #[error("{} holds no tokens: {reason}; move it away, and make the tokens anew", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system says no.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The system has no random bytes.
    #[error("the system has no random bytes for a token")]
    Random,
}

impl Tokens {
    /// Those of this file. It need not be there.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path, known: Arc::default() }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose a key is that a tool shows. One that was made is known at once, one that was removed is refused within a second. If the file cannot be read no
    /// key is known.
    #[must_use]
    pub fn find(&self, shown: &str) -> KeyHolder {
        if !holds_token(shown) {
            return KeyHolder::Foreign;
        }
        let hash = hash_of(plain(shown));
        // One that was just made is known at once.
        for looks in [LOOK, Duration::ZERO] {
            let rows = Arc::clone(&self.known(looks).rows);
            let mut found = None;
            // All of them, whichever it is.
            for row in &*rows {
                if bool::from(row.sha256.as_bytes().ct_eq(hash.as_bytes())) {
                    found = Some(&row.name);
                }
            }
            if let Some(name) = found {
                return KeyHolder::Token(name.clone());
            }
        }
        KeyHolder::Wrong
    }

    /// All tokens, and a number that grows with every change.
    pub(crate) fn current(&self) -> (Arc<Vec<TokenRow>>, u64) {
        let known = self.known(LOOK);
        (Arc::clone(&known.rows), known.version)
    }

    /// All tokens as the file holds them now.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn list(&self) -> Result<Vec<TokenRow>, TokenError> {
        read(&self.path)
    }

    /// Makes a token, and says it once. `budgets`: what the tool may spend, as [`Budget::parse`] reads it.
    ///
    /// # Errors
    /// The name is taken or no name, a budget is none, or the file cannot be written.
    pub fn add(&self, name: &str, budgets: &[String]) -> Result<NewToken, TokenError> {
        if Asker::new(AskerKind::Token, name, "").name() != name || name == AskerKind::Unknown.word() {
            return Err(TokenError::Name { name: name.chars().take(64).collect() });
        }
        if budgets.len() > MAX_BUDGETS {
            return Err(TokenError::Budget(format!("a token may have {MAX_BUDGETS} budgets; give fewer")));
        }
        for budget in budgets {
            Budget::parse(name, budget).map_err(TokenError::Budget)?;
        }
        self.change(|rows| {
            if rows.iter().any(|row| row.name == name) {
                return Err(TokenError::Taken { name: name.to_owned() });
            }
            if rows.len() >= MAX_TOKENS {
                return Err(TokenError::TooMany);
            }
            let mut random = [0; RANDOM];
            SystemRandom::new().fill(&mut random).map_err(|_| TokenError::Random)?;
            let token = format!("{PREFIX}{}", hex(&random));
            let added = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            rows.push(TokenRow { name: name.to_owned(), sha256: hash_of(&token), added, budgets: budgets.to_vec() });
            Ok(NewToken { name: name.to_owned(), token })
        })
    }

    /// Removes a token: whoever shows it is refused from now on.
    ///
    /// # Errors
    /// There is none of this name, or the file cannot be written.
    pub fn remove(&self, name: &str) -> Result<(), TokenError> {
        self.change(|rows| {
            let before = rows.len();
            rows.retain(|row| row.name != name);
            if rows.len() < before {
                return Ok(());
            }
            let known = rows.iter().map(|row| row.name.clone()).collect();
            Err(TokenError::Unknown { name: name.chars().take(64).collect(), known })
        })
    }

    /// What the file holds, as it was at most so long ago.
    fn known(&self, looks: Duration) -> MutexGuard<'_, Known> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.looked.is_some_and(|looked| looked.elapsed() < looks) {
            return known;
        }
        known.looked = Some(Instant::now());
        let stamp = stamp_of(&self.path);
        if known.version > 0 && stamp == known.stamp && !known.is_unreadable {
            return known;
        }
        let read = read(&self.path);
        if let Err(error) = &read
            && !known.is_unreadable
        {
            tracing::error!(target: TARGET, "no token is known now: {error}");
        }
        known.is_unreadable = read.is_err();
        known.rows = Arc::new(read.unwrap_or_default());
        (known.stamp, known.version) = (stamp, known.version + 1);
        known
    }

    /// Changes the file as a whole, one process after another.
    fn change<T>(&self, change: impl FnOnce(&mut Vec<TokenRow>) -> Result<T, TokenError>) -> Result<T, TokenError> {
        let io = |source| TokenError::Io { path: self.path.clone(), source };
        prepare(&self.path).map_err(io)?;
        let private = || {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600);
            options
        };
        let beside = |ending: &str| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        let lock = private().open(beside(".lock")).map_err(io)?;
        lock.lock().map_err(io)?;
        let mut rows = read(&self.path)?;
        let changed = change(&mut rows)?;
        let next = beside(".next");
        let _ = fs::remove_file(&next);
        let mut file = private().create_new(true).open(&next).map_err(io)?;
        // Plain structs with text keys: writing them cannot fail.
        let text = serde_json::to_string_pretty(&Document { version: VERSION, tokens: rows }).unwrap_or_default();
        file.write_all(text.as_bytes())
            .and_then(|()| file.write_all(b"\n"))
            .and_then(|()| file.sync_all())
            .map_err(io)?;
        fs::rename(&next, &self.path).map_err(io)?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).looked = None;
        Ok(changed)
    }
}

impl TokenRow {
    /// What the tool may spend.
    pub(crate) fn budgets(&self) -> impl Iterator<Item = Budget> {
        // They were read when they were written; a file that was edited since may hold anything.
        self.budgets.iter().filter_map(|text| Budget::parse(&self.name, text).ok())
    }
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewToken").field("name", &self.name).finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Vec<TokenRow>, TokenError> {
    let io = |source| TokenError::Io { path: path.to_owned(), source };
    let unreadable = |reason: String| TokenError::Unreadable { path: path.to_owned(), reason };
    // To open a pipe is to wait for its other end, and whoever waits here serves others.
    let opened = fs::metadata(path).and_then(|found| match found.is_file() {
        true => File::open(path),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no ordinary file")),
    });
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(error)),
    };
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(io)?;
    if text.len() as u64 > MAX_FILE {
        return Err(unreadable(format!("it has more than {MAX_FILE} bytes")));
    }
    let Document { version, tokens } = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    match version {
        VERSION => Ok(tokens),
        version => Err(unreadable(format!("it has version {version}, and this program knows {VERSION}"))),
    }
}

fn stamp_of(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len()))
}

fn hash_of(token: &str) -> String {
    hex(digest(&SHA256, token.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a text has a token of ours in it, however it is written: it is nobody else's business.
#[must_use]
pub fn holds_token(text: &str) -> bool {
    text.as_bytes().windows(PREFIX.len()).any(|part| part.eq_ignore_ascii_case(PREFIX.as_bytes()))
}

/// A token without what was pasted around it.
fn plain(shown: &str) -> &str {
    let shown = shown.trim_matches(AROUND);
    let bare = shown.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    bare.map_or(shown, |(_, token)| token).trim_matches(AROUND)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn tokens() -> (Tokens, tempfile::TempDir) {
        let home = tempfile::tempdir().unwrap();
        (Tokens::at(home.path().join("state").join("tokens.json")), home)
    }

    #[test]
    fn a_token_is_said_once_and_only_its_hash_is_kept_where_only_its_user_reads() {
        let (tokens, _home) = tokens();
        let made = tokens.add("codex", &["5USD/day".to_owned()]).unwrap();
        assert_eq!((made.token.len(), made.token.starts_with(PREFIX)), (4 + 2 * RANDOM, true));
        assert_eq!(tokens.find(&made.token), KeyHolder::Token("codex".into()));
        let later = Tokens::at(tokens.path().to_owned()).add("later", &[]).unwrap();
        assert_eq!(tokens.find(&later.token), KeyHolder::Token("later".into()), "another process made it");
        let text = fs::read_to_string(tokens.path()).unwrap();
        assert!(!text.contains(&made.token[4..]) && text.contains("5USD/day"), "{text}");
        assert!(!format!("{made:?}").contains(&made.token[4..]));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(tokens.path()), mode(tokens.path().parent().unwrap())), (0o600, 0o700));
        assert_ne!(tokens.add("other", &[]).unwrap().token, made.token);
        let names: Vec<_> = tokens.list().unwrap().into_iter().map(|row| row.name).collect();
        assert_eq!(names, ["codex", "later", "other"]);
    }

    #[test]
    fn one_that_was_removed_is_wrong_and_a_key_of_somebody_else_is_nobodys_business() {
        let (tokens, _home) = tokens();
        assert_eq!(tokens.find("sk-ant-1"), KeyHolder::Foreign);
        assert_eq!(tokens.find("brt_00"), KeyHolder::Wrong);
        assert_eq!(tokens.find("sk-1,BRT_00"), KeyHolder::Wrong, "it is ours, however it is written");
        let made = tokens.add("codex", &[]).unwrap();
        // Another process removes it.
        let other = Tokens::at(tokens.path().to_owned());
        assert_eq!(tokens.find(&made.token), KeyHolder::Token("codex".into()));
        other.remove("codex").unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while tokens.find(&made.token) != KeyHolder::Wrong {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        let error = tokens.remove("codex").unwrap_err().to_string();
        assert_eq!(error, "there is no token of the name \"codex\"; there is none at all");
    }

    #[test]
    fn what_cannot_be_a_token_is_refused_in_words() {
        let (tokens, _home) = tokens();
        for name in ["", "a b", "ä", "unknown", &"x".repeat(49)] {
            assert!(matches!(tokens.add(name, &[]), Err(TokenError::Name { .. })), "{name}");
        }
        tokens.add("a", &[]).unwrap();
        assert!(tokens.add("a", &[]).unwrap_err().to_string().starts_with("there is a token of the name `a` already"));
        assert!(tokens.add("b", &["5/year".to_owned()]).unwrap_err().to_string().contains("is no budget"));
        assert!(tokens.remove("b").unwrap_err().to_string().ends_with("known: a"));
    }

    #[test]
    fn a_damaged_file_knows_no_token_and_is_not_written_over() {
        let (tokens, _home) = tokens();
        let made = tokens.add("codex", &[]).unwrap();
        for damaged in ["{", r#"{"version":2,"tokens":[]}"#, &"x".repeat(2 << 20)] {
            fs::write(tokens.path(), damaged).unwrap();
            let anew = Tokens::at(tokens.path().to_owned());
            assert_eq!(anew.find(&made.token), KeyHolder::Wrong);
            let error = anew.add("b", &[]).unwrap_err().to_string();
            assert!(error.contains("holds no tokens") && error.contains("move it away"), "{error}");
            assert_eq!(fs::read_to_string(tokens.path()).unwrap(), damaged);
        }
    }

    // Fault 48.
    #[test]
    fn a_pipe_in_the_place_of_the_file_holds_nobody_up() {
        let (tokens, _home) = tokens();
        let made = tokens.add("codex", &[]).unwrap();
        fs::remove_file(tokens.path()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(tokens.path()).status().unwrap().success());
        let anew = Tokens::at(tokens.path().to_owned());
        assert_eq!(anew.find(&made.token), KeyHolder::Wrong);
        assert!(anew.add("b", &[]).unwrap_err().to_string().contains("it is no ordinary file"));
    }

    #[test]
    fn of_many_who_add_at_once_all_are_kept() {
        let (tokens, _home) = tokens();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let tokens = &tokens;
                scope.spawn(move || tokens.add(&format!("tool-{number}"), &[]).unwrap());
            }
        });
        assert_eq!(tokens.list().unwrap().len(), 8);
    }
}
