//! A program that was started, and what it said.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Component, Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use bellrope_shm::spawn_detached;

use super::{
    environment::chosen,
    error::SpawnError,
    program::{Spawn, Started},
};
use crate::log_file::LogFile;

/// Bytes at the end of what a program wrote in which its last line is looked for.
const TAIL: u64 = 16 * 1024;
/// Most characters of that line that are shown.
const LONGEST_LINE: usize = 500;
/// Virtual memory of the thread that waits for the end of a server; only touched pages count.
const STACK_BYTES: usize = 32 * 1024;

/// A server that this process started. When it is dropped the server lives on.
#[derive(Debug)]
pub(super) struct StartedServer {
    /// `None` when somebody else waits for its end.
    child: Option<Child>,
    program: PathBuf,
    output: Option<Output>,
}

/// Where a program writes.
#[derive(Debug)]
struct Output {
    path: PathBuf,
    /// Reads what it wrote.
    file: File,
    /// Where that begins.
    from: u64,
}

impl StartedServer {
    pub(super) fn start(spawn: &Spawn, socket: &Path) -> Result<Self, SpawnError> {
        let program = PathBuf::from(&spawn.program);
        let failed = |source| SpawnError::Start { program: program.clone(), source };
        // A path is one of our directory, and the program runs in another one. A name is looked up.
        let is_name = matches!(program.components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
        let found = if is_name { program.clone() } else { std::path::absolute(&program).map_err(failed)? };
        let (output, [stdout, stderr]) = output(spawn, socket)?;
        let mut command = Command::new(found);
        command.args(&spawn.arguments).current_dir("/").env_clear();
        command.envs(chosen(std::env::vars_os(), &spawn.inherited, &spawn.variables));
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let child = spawn_detached(&mut command).map_err(failed)?;
        let log = output.as_ref().map(|output| &*output.path);
        tracing::info!(pid = child.id(), ?program, ?log, "started a server for {}", socket.display());
        spawn.tell(&Started { pid: child.id(), log });
        Ok(Self { child: Some(child), program, output })
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    /// The error that its end means.
    pub(super) fn has_ended(&self, status: ExitStatus) -> SpawnError {
        let (last_line, log) = self.said();
        SpawnError::Ended { program: self.program.clone(), status, last_line, log }
    }

    /// Ends it. What it said at last, and where that stands.
    pub(super) fn give_up(mut self) -> (Option<String>, Option<PathBuf>) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.said()
    }

    fn said(&self) -> (Option<String>, Option<PathBuf>) {
        let output = self.output.as_ref();
        (output.and_then(|output| output.last_line().ok().flatten()), output.map(|output| output.path.clone()))
    }
}

impl Drop for StartedServer {
    fn drop(&mut self) {
        // A process that nobody waits for is a zombie from its end to ours, and we may live longer than it.
        let Some(mut child) = self.child.take() else { return };
        if matches!(child.try_wait(), Ok(None)) {
            let wait = move || drop(child.wait());
            let _ = std::thread::Builder::new().name("bellrope-spawned".to_owned()).stack_size(STACK_BYTES).spawn(wait);
        }
    }
}

/// Opens what the program is to write to: its log, which is begun anew if it is half full.
fn output(spawn: &Spawn, socket: &Path) -> Result<(Option<Output>, [Stdio; 2]), SpawnError> {
    let open = |path: &Path| {
        let file = LogFile::open(path, spawn.log_bytes)?.into_file()?;
        let stdio = [file.try_clone()?.into(), file.try_clone()?.into()];
        let (from, reading) = (file.metadata()?.len(), File::open(path)?);
        io::Result::Ok((Some(Output { path: path.to_owned(), file: reading, from }), stdio))
    };
    if let Some(path) = &spawn.log {
        return open(path).map_err(|source| SpawnError::Io { what: "opening the log", path: path.clone(), source });
    }
    let name = Path::new(&spawn.program).file_name().unwrap_or_default().to_string_lossy();
    let mut beside = socket.as_os_str().to_owned();
    beside.push(".log");
    // A home that cannot be written to is no reason to have no server.
    let places = crate::default_log_path(&name).into_iter().chain([beside.into()]);
    let opened = places.into_iter().find_map(|path| open(&path).ok());
    Ok(opened.unwrap_or_else(|| (None, [Stdio::null(), Stdio::null()])))
}

impl Output {
    /// The line that says most: the last one that begins with `error:`, behind which there may be hints, else the last one
    /// that is not empty.
    fn last_line(&self) -> io::Result<Option<String>> {
        let mut file = &self.file;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(self.from.max(end.saturating_sub(TAIL)).min(end)))?;
        let mut tail = Vec::new();
        file.take(TAIL).read_to_end(&mut tail)?;
        let text = String::from_utf8_lossy(&tail);
        let lines = || text.lines().rev().map(str::trim).filter(|line| !line.is_empty());
        let is_error = |line: &&str| line.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("error:"));
        let line = lines().find(is_error).or_else(|| lines().next());
        Ok(line.map(|line| line.chars().filter(|c| !c.is_control()).take(LONGEST_LINE).collect()))
    }
}
