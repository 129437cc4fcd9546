//! Connecting: the client's half of the handshake. It never waits by itself, so that one thread can have many under way.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bellrope_proto::{
    connection::ClientConnection,
    handshake::{
        ANSWER_HEAD_LEN, AnswerHead, COMPACT, HandshakeError, HandshakeStatus, Hello, LEAVE, METADATA, PAGE_HEAD_LEN,
        PRIORITY, PageHead, Pages, SCHEMAS, TABLE, Transport, Welcome,
    },
    stream::StreamEnd,
};
use bellrope_shm::{
    MapError, MemoryHandle, SharedMemory, clock, process,
    socket::{LONGEST_PATH, Socket},
    wait,
};

use super::{
    config::{self, ClientConfig},
    deadline::from_now,
    types::TypeTable,
};
use crate::{error::ConnectError, kill_points::KillPoint};

/// Between two tries where so many wait for the server that the kernel takes no more.
const BACKLOG_PAUSE: Duration = Duration::from_millis(1);
/// Servers of which it is remembered that they had no shared memory.
const REMEMBERED: usize = 64;
/// A server whose clock differs by less than this, in microseconds, has ours: the rest is the way of its answer.
const SAME_CLOCK_US: u64 = 5_000_000;

/// The features that are asked for: only typed clients look at schemas.
const WANTED: u64 = COMPACT | TABLE | METADATA | LEAVE | if cfg!(feature = "service") { SCHEMAS } else { 0 };

/// A connection that a server has agreed to.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) socket: Arc<Socket>,
    pub(crate) connection: ClientConnection,
    /// Where the records travel over the socket: what serves the rings of the connection.
    pub(crate) stream: Option<StreamEnd>,
    pub(crate) types: TypeTable,
    /// What to add to our monotonic clock to have the server's, in microseconds, wrapping.
    pub(crate) clock_offset_us: u64,
}

/// A handshake under way.
#[derive(Debug)]
pub(crate) struct Handshake {
    path: PathBuf,
    transport: Transport,
    max_message: u32,
    socket: Arc<Socket>,
    answer: Vec<u8>,
    head: Option<AnswerHead>,
    /// The answer as far as it came, while pages of the table follow.
    table: Option<Box<Table>>,
    memory: Option<MemoryHandle>,
    /// When it is given up.
    pub(crate) deadline: Instant,
}

/// A table of message types that comes in pages.
#[derive(Debug)]
struct Table {
    welcome: Welcome,
    pages: Pages,
    /// The head of the page that comes.
    page: Option<PageHead>,
}

/// Connects once, over whatever transport the configuration has. Blocks, at most until the handshake's time is over, or twice
/// that where the first transport cannot be had.
pub(crate) fn connect(config: &ClientConfig) -> Result<Established, ConnectError> {
    let error = match connect_over(first_transport(config), config) {
        Err(error) if may_fall_back(config, &error) => error,
        other => return other,
    };
    match connect_over(Transport::Stream, config) {
        Ok(established) => {
            note_fall_back(&config.path, &error.to_string());
            Ok(established)
        }
        // What is wrong with the transport that one would rather have tells more.
        Err(_) => Err(error),
    }
}

/// What is asked for first.
pub(crate) fn first_transport(config: &ClientConfig) -> Transport {
    match config.transport {
        config::Transport::Stream => Transport::Stream,
        config::Transport::Auto | config::Transport::Shm => Transport::Shm,
    }
}

/// Whether, after a handshake over shared memory has failed with this error, one over the socket alone is worth a try.
pub(crate) fn may_fall_back(config: &ClientConfig, error: &ConnectError) -> bool {
    config.transport == config::Transport::Auto
        && matches!(
            error,
            ConnectError::Handshake(HandshakeError::Refused { status: HandshakeStatus::Transport, .. })
                | ConnectError::MissingMemory
                | ConnectError::Memory(MapError::Io(_))
        )
}

/// Says that shared memory could not be had, the first time for each server.
pub(crate) fn note_fall_back(path: &Path, reason: &str) {
    /// The servers of which it was said.
    static SAID: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.len() >= REMEMBERED {
        said.clear();
    }
    if said.insert(path.to_owned()) {
        tracing::warn!(
            path = %path.display(),
            "no shared memory for this connection: its calls go over the socket alone, which is slower ({reason})"
        );
    }
}

fn connect_over(transport: Transport, config: &ClientConfig) -> Result<Established, ConnectError> {
    let deadline = from_now(config.connect_timeout);
    let mut handshake = loop {
        match Handshake::begin(transport, config) {
            Err(ConnectError::Io { source, .. })
                if source.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline =>
            {
                std::thread::sleep(BACKLOG_PAUSE);
            }
            other => break other?,
        }
    };
    loop {
        if let Some(established) = handshake.advance()? {
            return Ok(established);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        wait::readable(handshake.socket(), Some(left)).map_err(|source| handshake.failed(source))?;
    }
}

impl Handshake {
    /// Connects and says hello.
    pub(crate) fn begin(transport: Transport, config: &ClientConfig) -> Result<Self, ConnectError> {
        let path = config.path.as_path();
        let failed = |source| ConnectError::Io { path: path.to_owned(), source };
        let length = path.as_os_str().len();
        if length > LONGEST_PATH {
            return Err(ConnectError::PathTooLong { path: path.to_owned(), length, limit: LONGEST_PATH });
        }
        // Once: an answer that nobody hears of is waited for in vain.
        static TALKS: AtomicBool = AtomicBool::new(false);
        if !TALKS.load(Relaxed) {
            Socket::check_talking().map_err(failed)?;
            TALKS.store(true, Relaxed);
        }
        let socket = Socket::connect(path).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => failed(source),
            // A system call that is denied.
            io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported if source.raw_os_error().is_none() => {
                failed(source)
            }
            _ => ConnectError::NoServer { path: path.to_owned(), source },
        })?;
        check_owner(&socket, path)?;
        KillPoint::Dialled.reached();
        let class = if config.priority { PRIORITY } else { 0 };
        let hello = Hello { features: WANTED, class, transport, name: config.name.clone() }.encode();
        match socket.send(&hello) {
            // A fresh socket takes a hello whole.
            Ok(sent) if sent == hello.len() => {}
            Ok(_) => return Err(failed(io::Error::other("the socket does not take the hello"))),
            // A server may refuse before it is told anything: its answer says why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(failed(error)),
        }
        KillPoint::Greeted.reached();
        Ok(Self {
            path: path.to_owned(),
            transport,
            max_message: config.max_message_bytes,
            socket: Arc::new(socket),
            answer: Vec::new(),
            head: None,
            table: None,
            memory: None,
            deadline: from_now(config.connect_timeout),
        })
    }

    /// What to watch for the answer.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Reads what there is of the answer. `None`: it is not whole yet.
    pub(crate) fn advance(&mut self) -> Result<Option<Established>, ConnectError> {
        loop {
            if let Some(table) = &self.table {
                let due = table.page.map_or(PAGE_HEAD_LEN, |page| page.len());
                if self.answer.len() >= due {
                    self.take_page()?;
                } else if !self.read(due)? {
                    return Ok(None);
                }
                if let Some(table) = self.table.take_if(|table| table.pages.is_whole()) {
                    return self.establish(table.welcome, table.pages).map(Some);
                }
                continue;
            }
            let due = ANSWER_HEAD_LEN + self.head.map_or(0, |head| head.body_len());
            if self.answer.len() < due {
                if !self.read(due)? {
                    return Ok(None);
                }
                continue;
            }
            let Some(head) = self.head else {
                let head = self.answer.first_chunk().expect("a whole head was read");
                self.head = Some(AnswerHead::decode(head)?);
                KillPoint::Answered.reached();
                continue;
            };
            let (welcome, pages) = head.begin(&self.answer[ANSWER_HEAD_LEN..])?;
            if pages.is_whole() {
                return self.establish(welcome, pages).map(Some);
            }
            self.answer.clear();
            self.table = Some(Box::new(Table { welcome, pages, page: None }));
        }
    }

    /// Takes the head of a page, or its entries.
    fn take_page(&mut self) -> Result<(), HandshakeError> {
        let Some(table) = &mut self.table else { return Ok(()) };
        table.page = match table.page {
            None => Some(table.pages.head(self.answer.first_chunk().expect("a whole head was read"))?),
            Some(page) => {
                table.pages.page(page, &self.answer, &mut table.welcome.types)?;
                None
            }
        };
        self.answer.clear();
        Ok(())
    }

    /// Reads until the answer has `due` bytes, a number that is bounded. `false`: no more is there now.
    fn read(&mut self, due: usize) -> Result<bool, ConnectError> {
        let filled = self.answer.len();
        self.answer.resize(due, 0);
        let received = match self.transport {
            Transport::Shm => self.socket.receive_with_memory(&mut self.answer[filled..]),
            Transport::Stream => self.socket.receive(&mut self.answer[filled..]).map(|count| (count, None)),
        };
        let count = received.as_ref().map_or(0, |(count, _)| *count);
        self.answer.truncate(filled + count);
        match received {
            Ok((0, _)) => {
                Err(self.failed(io::Error::new(io::ErrorKind::UnexpectedEof, "the server hung up in mid-handshake")))
            }
            Ok((_, fd)) => {
                if self.memory.is_none() {
                    self.memory = fd;
                }
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() >= self.deadline {
                    return Err(self.failed(io::Error::new(io::ErrorKind::TimedOut, "no answer came in time")));
                }
                Ok(false)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn establish(&mut self, welcome: Welcome, pages: Pages) -> Result<Established, ConnectError> {
        let Welcome { features, mut terms, clock_us, types, .. } = welcome;
        let len = terms.geometry.mapping_len();
        let memory = match (self.transport, self.memory.take()) {
            (Transport::Stream, _) => SharedMemory::private(len).map_err(|source| self.failed(source))?,
            (Transport::Shm, Some(memory)) => SharedMemory::open(&memory, len)?,
            (Transport::Shm, None) => return Err(ConnectError::MissingMemory),
        };
        KillPoint::Mapped.reached();
        terms.max_message = terms.max_message.min(self.max_message);
        let offset = clock_us.wrapping_sub(clock::monotonic_us());
        let same_clock = offset.wrapping_add(SAME_CLOCK_US) < 2 * SAME_CLOCK_US;
        let mut connection = ClientConnection::new(&memory, terms);
        if features & TABLE != 0 {
            connection = connection.hearing_types();
        }
        if features & METADATA != 0 {
            connection = connection.telling_metadata();
        }
        if features & LEAVE != 0 {
            connection = connection.telling_leaving();
        }
        Ok(Established {
            socket: Arc::clone(&self.socket),
            connection,
            stream: (self.transport == Transport::Stream).then(|| StreamEnd::of_client(&memory, terms.geometry)),
            types: TypeTable::new(types, pages),
            clock_offset_us: if same_clock { 0 } else { offset },
        })
    }

    fn failed(&self, source: io::Error) -> ConnectError {
        ConnectError::Io { path: self.path.clone(), source }
    }
}

/// A server of another user could hand us anything: only our own and root's are trusted.
fn check_owner(socket: &Socket, path: &Path) -> Result<(), ConnectError> {
    let peer = socket.peer_credentials().map_err(|source| ConnectError::Io { path: path.to_owned(), source })?;
    if peer.uid == 0 || (peer.uid == process::user_id() && process::names_user(peer.uid)) {
        return Ok(());
    }
    Err(ConnectError::ForeignServer { path: path.to_owned(), uid: peer.uid })
}
