//! A client over transport 1 that is made of raw bytes. It keeps to the protocol where a test does not say otherwise.

use std::{io, path::Path, time::Instant};

use bellrope_proto::{
    frame::{Header, Kind, RawHeader},
    handshake::{ANSWER_HEAD_LEN, AnswerHead, HandshakeError, Hello, Transport, Welcome},
};
use bellrope_shm::{
    socket::Socket,
    wait::{self, Poller},
};

use crate::support::PATIENCE;

/// See the [module](self).
pub struct StreamPeer {
    /// Blocking; what is read waits for at most [`PATIENCE`].
    pub socket: Socket,
    /// What the server said.
    pub welcome: Welcome,
    next_id: u64,
}

/// A record of the server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// What it is.
    pub header: Header,
    /// The call that it is for.
    pub id: u64,
    /// Its extension, 0 without one.
    pub extension: u64,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// The bytes of a record.
///
/// # Panics
/// If the payload has 4 GiB or more.
#[must_use]
pub fn record(kind: Kind, message_type: u16, id: u64, extension: Option<u64>, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    let header = Header { len, message_type, kind, extended: extension.is_some() };
    let mut bytes = header.encode().to_le_bytes().to_vec();
    bytes.extend(id.to_le_bytes());
    bytes.extend(extension.into_iter().flat_map(u64::to_le_bytes));
    bytes.extend(payload);
    bytes
}

impl StreamPeer {
    /// Connects under this name.
    ///
    /// # Panics
    /// If there is no server, or it refuses.
    #[must_use]
    pub fn connect(path: &Path, name: &str) -> Self {
        Self::try_to_connect(path, name).unwrap()
    }

    /// As [`Self::connect`], with a server that may refuse.
    ///
    /// # Errors
    /// What the server says, or why its answer is none.
    ///
    /// # Panics
    /// If there is no server.
    pub fn try_to_connect(path: &Path, name: &str) -> Result<Self, HandshakeError> {
        Self::try_to_connect_with(path, name, 0)
    }

    /// As [`Self::try_to_connect`], asking for these features. Of a table in pages it reads none.
    ///
    /// # Errors
    /// As [`Self::try_to_connect`].
    ///
    /// # Panics
    /// As [`Self::try_to_connect`].
    pub fn try_to_connect_with(path: &Path, name: &str, features: u64) -> Result<Self, HandshakeError> {
        let socket = Socket::connect(path).unwrap();
        socket.set_nonblocking(false).unwrap();
        let hello = Hello { name: name.into(), features, transport: Transport::Stream, ..Hello::default() };
        socket.send(&hello.encode()).unwrap();
        let mut head = [0; ANSWER_HEAD_LEN];
        assert!(read(&socket, &mut head).unwrap(), "the server hung up in mid-handshake");
        let head = AnswerHead::decode(&head)?;
        let mut body = vec![0; head.body_len()];
        assert!(read(&socket, &mut body).unwrap(), "the server hung up in mid-handshake");
        Ok(Self { socket, welcome: head.begin(&body)?.0, next_id: 1 << 32 })
    }

    /// The number of a message type.
    ///
    /// # Panics
    /// If the server has none of this name.
    #[must_use]
    pub fn number(&self, name: &str) -> u16 {
        self.welcome.types.iter().find(|entry| entry.name == name).unwrap().message_type
    }

    /// Sends bytes, such as they are. Answers whether the server took them; else it has hung up.
    ///
    /// # Panics
    /// If the socket fails in another way.
    pub fn say(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match self.socket.send(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_hang_up(&error) => return false,
                Err(error) => panic!("{error}"),
            }
        }
        true
    }

    /// Sends a record.
    pub fn send(&mut self, kind: Kind, message_type: u16, id: u64, extension: Option<u64>, payload: &[u8]) {
        self.say(&record(kind, message_type, id, extension, payload));
    }

    /// Calls without waiting for the answer.
    pub fn call(&mut self, name: &str, id: u64, payload: &[u8]) {
        self.send(Kind::Request, self.number(name), id, None, payload);
    }

    /// The next record. `None`: the server has hung up.
    ///
    /// # Panics
    /// If none comes within [`PATIENCE`], or the server hangs up within one.
    pub fn next_record(&mut self) -> Option<RawRecord> {
        let mut words = [0; 24];
        if !read(&self.socket, &mut words[..16]).unwrap() {
            return None;
        }
        let word = |at: usize| u64::from_le_bytes(*words[at..].first_chunk().unwrap());
        let (header, id) = (Header::try_from(RawHeader(word(0))).unwrap(), word(8));
        if header.extended {
            assert!(read(&self.socket, &mut words[16..]).unwrap(), "half a record");
        }
        let mut payload = vec![0; header.len as usize];
        assert!(payload.is_empty() || read(&self.socket, &mut payload).unwrap(), "half a record");
        let extension = if header.extended { u64::from_le_bytes(*words[16..].first_chunk().unwrap()) } else { 0 };
        Some(RawRecord { header, id, extension, payload })
    }

    /// Waits for the last record to a call, passing over all others.
    ///
    /// # Panics
    /// If the server hangs up, or as [`Self::next_record`].
    #[track_caller]
    pub fn answer_to(&mut self, id: u64) -> RawRecord {
        loop {
            let record = self.next_record().expect("the server is there");
            if record.id == id && matches!(record.header.kind, Kind::Response | Kind::Error | Kind::End) {
                return record;
            }
        }
    }

    /// Calls `echo` and waits for the right answer, passing over all others.
    ///
    /// # Panics
    /// If it is another.
    #[track_caller]
    pub fn is_served(&mut self) {
        self.next_id += 1;
        let (id, payload) = (self.next_id, self.next_id.to_le_bytes());
        self.call("echo", id, &payload);
        let answer = self.answer_to(id);
        assert_eq!((answer.header.kind, &answer.payload[..]), (Kind::Response, &payload[..]));
    }

    /// Waits until the server has hung up. Reads nothing.
    ///
    /// # Panics
    /// If the system has no descriptor for it.
    #[must_use]
    pub fn becomes_hung_up(&self) -> bool {
        let mut poller = Poller::new().unwrap();
        poller.add_for_hang_up(&self.socket, 0).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match poller.wait(Some(left)).unwrap() {
                // A signal ends a wait, too.
                [] if left.is_zero() => return false,
                [] => {}
                _ => return true,
            }
        }
    }
}

/// Reads exactly so many bytes. Answers `false` if the server hangs up before the first of them.
fn read(socket: &Socket, into: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < into.len() {
        if !wait::readable(socket, Some(PATIENCE))? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match socket.receive(&mut into[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if is_hang_up(&error) && filled == 0 => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}
