//! Sessions on disk: a file each, which their user alone can read, within bounds of number, bytes and age.
//!
//! The first line of a file says whose session it is and what of it is listed, the second has the conversation. Files are
//! written as a whole. One that cannot be read is named and passed over.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bellrope_gateway::{KeptAnswers, Message};
use serde::{Deserialize, Serialize};

use crate::state;

/// The folder, in that of all state.
const FOLDER: &str = "acp_sessions";
/// What stands before the random part of an id.
const PREFIX: &str = "bellrope-";
/// The most sessions on disk, their bytes, and how long one is kept that is not used.
const MAX_SESSIONS: usize = 200;
const MAX_BYTES: u64 = 128 * 1024 * 1024;
const MAX_AGE: Duration = Duration::from_secs(90 * 24 * 3600);
/// The longest first line, and the longest file: a conversation has at most 10 MiB and an answer.
const MAX_HEADER: u64 = 16 * 1024;
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// The longest title, in characters.
const MAX_TITLE: usize = 80;

/// Where sessions are kept.
#[derive(Debug, Clone)]
pub(super) struct Store {
    folder: Option<PathBuf>,
}

/// What is known of a session beside its conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    version: u32,
    pub(super) id: String,
    pub(super) cwd: PathBuf,
    #[serde(default)]
    pub(super) title: String,
    /// When it was written last, in seconds since 1970.
    #[serde(default)]
    pub(super) updated: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) provider: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) model: Option<String>,
}

/// Why a session cannot be had from disk.
#[derive(Debug)]
pub(super) enum Missing {
    Unknown,
    /// Its file cannot be read; the words name it.
    Broken(String),
}

impl Header {
    pub(super) fn new(id: String, cwd: PathBuf) -> Self {
        Self { version: 1, id, cwd, title: String::new(), updated: 0, provider: None, model: None }
    }

    /// Calls the session after its first question.
    pub(super) fn name(&mut self, question: &str) {
        if self.title.is_empty() {
            let line = question.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
            self.title = line.chars().filter(|c| !c.is_control()).take(MAX_TITLE).collect();
        }
    }
}

/// An id for a session, like no other on this machine.
pub(super) fn new_id() -> anyhow::Result<String> {
    Ok(format!("{PREFIX}{:032x}", KeptAnswers::new_id()?))
}

impl Store {
    /// Sessions of this user.
    pub(super) fn of_user() -> Self {
        Self { folder: state::file(FOLDER) }
    }

    /// Keeps nothing.
    pub(super) fn none() -> Self {
        Self { folder: None }
    }

    /// Whether sessions are kept.
    pub(super) fn keeps(&self) -> bool {
        self.folder.is_some()
    }

    /// Writes a session, and forgets those that are too many or too old. `messages`: JSON.
    pub(super) fn save(&self, mut header: Header, messages: &[u8]) -> io::Result<()> {
        let (Some(folder), Some(path)) = (&self.folder, self.path(&header.id)) else { return Ok(()) };
        header.updated = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut file = serde_json::to_vec(&header)?;
        file.push(b'\n');
        file.extend_from_slice(messages);
        file.push(b'\n');
        state::write(&path, &file)?;
        forget(folder, &path);
        Ok(())
    }

    /// Reads a session.
    pub(super) fn load(&self, id: &str) -> Result<(Header, Vec<Message>), Missing> {
        let path = self.path(id).ok_or(Missing::Unknown)?;
        let broken = |why: String| Missing::Broken(format!("the session in {} cannot be read: {why}", path.display()));
        // To open a pipe is to wait for its other end.
        if fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Err(broken("it is no ordinary file".to_owned()));
        }
        let file = match fs::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Missing::Unknown),
            opened => opened.map_err(|error| broken(error.to_string()))?,
        };
        let mut file = BufReader::new(file.take(MAX_FILE));
        let header = header(&mut file, id).map_err(broken)?;
        let messages = serde_json::from_reader(&mut file).map_err(|error| broken(error.to_string()))?;
        Ok((header, messages))
    }

    /// All sessions, the last used first, and what to say of files that cannot be read.
    pub(super) fn list(&self) -> (Vec<Header>, Vec<String>) {
        let (mut headers, mut broken) = (Vec::new(), Vec::new());
        for (path, ..) in self.folder.as_deref().map(files).unwrap_or_default() {
            let id = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let read = fs::File::open(&path)
                .map_err(|error| error.to_string())
                .and_then(|file| header(&mut BufReader::new(file), id));
            match read {
                Ok(header) => headers.push(header),
                Err(why) => broken.push(format!("the session in {} is ignored: {why}", path.display())),
            }
        }
        headers.sort_by(|a, b| (b.updated, &b.id).cmp(&(a.updated, &a.id)));
        (headers, broken)
    }

    /// Forgets a session.
    pub(super) fn delete(&self, id: &str) -> io::Result<()> {
        match self.path(id).map(fs::remove_file) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The file of a session, if its id is one that is made here: it comes from outside.
    fn path(&self, id: &str) -> Option<PathBuf> {
        let random = id.strip_prefix(PREFIX)?;
        let is_id = random.len() == 32 && random.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_id.then(|| self.folder.as_ref().map(|folder| folder.join(format!("{id}.json"))))?
    }
}

/// Reads the first line of a file.
fn header(file: &mut impl BufRead, id: &str) -> Result<Header, String> {
    let mut line = String::new();
    file.take(MAX_HEADER).read_line(&mut line).map_err(|error| error.to_string())?;
    let header: Header = serde_json::from_str(&line).map_err(|error| error.to_string())?;
    if header.version != 1 || header.id != id {
        return Err("it is of another version, or another session's".to_owned());
    }
    Ok(header)
}

/// The files of sessions, with the time of their last change and their bytes.
fn files(folder: &Path) -> Vec<(PathBuf, SystemTime, u64)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| {
        let (path, data) = (entry.path(), entry.metadata().ok()?);
        let is_ours = data.is_file() && path.extension().is_some_and(|extension| extension == "json");
        is_ours.then(|| (path, data.modified().unwrap_or(SystemTime::UNIX_EPOCH), data.len()))
    };
    entries.filter_map(of).collect()
}

/// Removes the files that are too many, too large together or too old, but for this one.
fn forget(folder: &Path, but: &Path) {
    let mut files = files(folder);
    files.sort_by_key(|(path, changed, _)| (path != but, std::cmp::Reverse(*changed)));
    let (now, mut bytes) = (SystemTime::now(), 0);
    for (number, (path, changed, size)) in files.into_iter().enumerate() {
        bytes += size;
        let is_old = now.duration_since(changed).is_ok_and(|age| age > MAX_AGE);
        if path != but && (number >= MAX_SESSIONS || bytes > MAX_BYTES || is_old) {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use bellrope_gateway::Role;

    use super::*;

    fn store(home: &Path) -> Store {
        Store { folder: Some(home.join("sessions")) }
    }

    fn saved(store: &Store, title: &str) -> String {
        let id = new_id().unwrap();
        let mut header = Header::new(id.clone(), "/work".into());
        header.name(title);
        store.save(header, &serde_json::to_vec(&[Message::new(Role::User, title)]).unwrap()).unwrap();
        id
    }

    #[test]
    fn a_session_comes_back_as_it_was_and_only_its_user_can_read_it() {
        let home = tempfile::tempdir().unwrap();
        let store = store(home.path());
        let id = saved(&store, "\n  One?\u{1b}  \nmore");
        let (header, messages) = store.load(&id).unwrap();
        assert_eq!((&*header.title, header.cwd.to_str(), messages.len()), ("One?", Some("/work"), 1));
        let file = store.path(&id).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        store.delete(&id).unwrap();
        store.delete(&id).unwrap();
        assert!(matches!(store.load(&id), Err(Missing::Unknown)));
        assert!(matches!(Store::none().load(&id), Err(Missing::Unknown)) && Store::none().list().0.is_empty());
    }

    #[test]
    fn an_id_from_outside_never_names_a_file_elsewhere() {
        let home = tempfile::tempdir().unwrap();
        let store = store(home.path());
        for id in
            ["", "bellrope-", "../x", "bellrope-../../../../../etc/passwd", &format!("bellrope-{}", "A".repeat(32))]
        {
            assert!(store.path(id).is_none() && matches!(store.load(id), Err(Missing::Unknown)), "{id}");
            store.delete(id).unwrap();
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_and_hides_no_other() {
        let home = tempfile::tempdir().unwrap();
        let store = store(home.path());
        let (good, cut, foreign) = (saved(&store, "good"), saved(&store, "cut"), saved(&store, "foreign"));
        let path = |id: &str| store.path(id).unwrap();
        let whole = fs::read(path(&cut)).unwrap();
        fs::write(path(&cut), &whole[..whole.len() - 9]).unwrap();
        fs::write(path(&foreign), "{\"version\":").unwrap();
        fs::copy(path(&good), path(&new_id().unwrap())).unwrap();
        let (headers, broken) = store.list();
        // The conversation of one is read when it is asked for.
        assert_eq!((headers.len(), broken.len()), (2, 2), "{headers:?} {broken:?}");
        assert!(broken.iter().any(|words| words.contains(path(&foreign).to_str().unwrap())), "{broken:?}");
        for id in [cut, foreign] {
            let Err(Missing::Broken(words)) = store.load(&id) else { panic!("it was read") };
            assert!(words.starts_with(&format!("the session in {} cannot be read: ", path(&id).display())), "{words}");
        }
        assert!(store.load(&good).is_ok());
    }

    // Fault 48.
    #[test]
    fn a_pipe_in_the_place_of_a_session_holds_nobody_up() {
        let home = tempfile::tempdir().unwrap();
        let store = store(home.path());
        let (id, good) = (new_id().unwrap(), saved(&store, "good"));
        assert!(std::process::Command::new("mkfifo").arg(store.path(&id).unwrap()).status().unwrap().success());
        let Err(Missing::Broken(words)) = store.load(&id) else { panic!("it was read") };
        assert!(words.ends_with("it is no ordinary file"), "{words}");
        let (headers, broken) = store.list();
        assert_eq!((headers.len(), &headers[0].id, broken.len()), (1, &good, 0));
    }

    #[test]
    fn the_oldest_make_room_in_number_bytes_and_age() {
        let home = tempfile::tempdir().unwrap();
        let store = store(home.path());
        let first = saved(&store, "first");
        let folder = store.folder.clone().unwrap();
        let make = |number: u64, bytes: u64, age: u64| {
            let path = folder.join(format!("bellrope-{number:032x}.json"));
            let file = fs::File::create(&path).unwrap();
            file.set_len(bytes).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        };
        (0..300).for_each(|number| make(number, 10, 1000 + number));
        make(400, 10, 91 * 24 * 3600);
        let count = || files(&folder).len();
        store.save(Header::new(first.clone(), "/".into()), b"[]").unwrap();
        assert_eq!(count(), MAX_SESSIONS);
        make(401, MAX_BYTES, 500);
        store.save(Header::new(first.clone(), "/".into()), b"[]").unwrap();
        assert_eq!(count(), 1, "all that is older than what is too large goes, and that too");
        assert!(store.load(&first).is_ok());
    }
}
