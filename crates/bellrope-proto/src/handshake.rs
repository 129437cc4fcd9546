//! How two ends agree to talk: one message each way over the socket, before any memory is shared.
//!
//! The client's hello has a fixed size. The server's answer has a fixed head, then a body whose length the head names
//! and [`MAX_BODY`] bounds: the table of message types, or the text of a refusal. All numbers are little-endian.
//!
//! ```text
//! hello   magic[8] major:u16 minor:u16 transport:u8 class:u8 name_len:u8 0:u8 features:u64 name[64]
//! answer  magic[8] major:u16 minor:u16 status:u16 0:u16 features:u64 connection:u64
//!         capacity:u32 max_message:u32 max_in_flight:u32 stream_window:u32 body_len:u32 entries:u32 clock_us:u64
//!         body[body_len]
//! ```
//!
//! The entries of the [table of types](crate::table) are the body. With the feature [`TABLE`], which both sides must name, the answer
//! tells how many there are in all, and those that find no room in the body follow in pages. With [`SCHEMAS`] each entry says
//! what its payloads are.
//!
//! Unknown feature bits are ignored. Minor versions only add; another major version is refused, with both versions in
//! the message. Message types of a style that the client does not know are not for it. Transport 0 is shared memory, whose
//! descriptor comes with the answer; 1 is the socket itself (since 1.1): no descriptor comes, and behind the answer begin
//! the [records](crate::stream).

use crate::{
    failure::beginning,
    layout::{Geometry, MESSAGE_LIMITS},
    table::{self, BadTable},
    terms::Terms,
};
pub use crate::{
    style::Style,
    table::{MAX_TYPES, PAGE_HEAD_LEN, PageHead, Pages, SchemaMark, TypeEntry},
    transport::Transport,
};

/// The first bytes of both messages.
pub const MAGIC: [u8; 8] = *b"BELLROPE";
/// The version this crate speaks: major, minor.
pub const VERSION: (u16, u16) = (1, 1);
/// The feature bit by which a client asks for a [`SchemaMark`] with each message type, and a server says that they are there.
pub const SCHEMAS: u64 = 1;
/// The feature bit of compact rings, over shared memory only: a client says that it can use them, a server that these are
/// such. See [`layout`](crate::layout).
pub const COMPACT: u64 = 2;
/// The feature bit by which a client asks whether the server reads [metadata](crate::metadata) of calls.
pub const METADATA: u64 = 16;
/// The feature bit by which a client asks for the whole [table of types](crate::table) and for its changes.
pub const TABLE: u64 = 32;
/// The feature bit by which a client asks whether the server tells a caller that leaves from one that wants nothing any more.
pub const LEAVE: u64 = 64;
/// Bytes of a hello.
pub const HELLO_LEN: usize = 88;
/// Bytes of the head of an answer.
pub const ANSWER_HEAD_LEN: usize = 64;
/// Most bytes of the body of an answer.
pub const MAX_BODY: usize = 64 * 1024;
/// The class of service that asks for priority.
pub const PRIORITY: u8 = 1;
/// Most bytes of a client's name.
pub const MAX_NAME: usize = 64;

/// What is wrong with a message of the handshake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The peer does not speak Bellrope.
    #[error("the peer does not speak Bellrope (its first bytes are {0:02x?})")]
    Magic([u8; 8]),
    /// The peer speaks another major version.
    #[error("the peer speaks version {}.{}, this side {}.{}", theirs.0, theirs.1, VERSION.0, VERSION.1)]
    Version {
        /// Major and minor version of the peer.
        theirs: (u16, u16),
    },
    /// The client asks for a transport that is not there.
    #[error("transport {0} is not supported; 0 (shared memory) and 1 (the socket itself) are")]
    Transport(u8),
    /// The server refused the connection.
    #[error("the server refused the connection ({status}): {text}")]
    Refused {
        /// Why.
        status: HandshakeStatus,
        /// The server's own words.
        text: String,
    },
    /// A field is out of its range.
    #[error("the field {0} of the handshake is out of range")]
    Field(&'static str),
}

impl From<BadTable> for HandshakeError {
    fn from(BadTable(field): BadTable) -> Self {
        Self::Field(field)
    }
}

/// The outcome that a server's answer names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeStatus {
    /// Welcome; the memory comes with the answer.
    Accepted,
    /// Another major version.
    Version,
    /// A malformed hello.
    Malformed,
    /// A limit on connections is reached.
    Full,
    /// The server is going away.
    Draining,
    /// The client's user may not connect.
    Forbidden,
    /// The client's process broke the protocol over and over, and has to wait; the text says for how long.
    Paced,
    /// The transport that the client asks for cannot be had now: the text says why. Another one may be.
    Transport,
    /// A status of a newer version.
    Other(u16),
}

impl HandshakeStatus {
    fn to_bits(self) -> u16 {
        match self {
            Self::Accepted => 0,
            Self::Version => 1,
            Self::Malformed => 2,
            Self::Full => 3,
            Self::Draining => 4,
            Self::Forbidden => 5,
            Self::Paced => 6,
            Self::Transport => 7,
            Self::Other(bits) => bits,
        }
    }

    fn from_bits(bits: u16) -> Self {
        match bits {
            0 => Self::Accepted,
            1 => Self::Version,
            2 => Self::Malformed,
            3 => Self::Full,
            4 => Self::Draining,
            5 => Self::Forbidden,
            6 => Self::Paced,
            7 => Self::Transport,
            bits => Self::Other(bits),
        }
    }
}

impl std::fmt::Display for HandshakeStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Accepted => f.write_str("accepted"),
            Self::Version => f.write_str("version mismatch"),
            Self::Malformed => f.write_str("malformed hello"),
            Self::Full => f.write_str("full"),
            Self::Draining => f.write_str("draining"),
            Self::Forbidden => f.write_str("forbidden"),
            Self::Paced => f.write_str("paced"),
            Self::Transport => f.write_str("transport not available"),
            Self::Other(bits) => write!(f, "status {bits}"),
        }
    }
}

/// What a client says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Feature bits the client knows.
    pub features: u64,
    /// The class of service it would like: 0 normal, [`PRIORITY`]; others count as normal.
    pub class: u8,
    /// What is to carry the records.
    pub transport: Transport,
    /// Its name for logs, at most [`MAX_NAME`] bytes. Control characters never get past [`Hello::decode`].
    pub name: String,
}

impl Default for Hello {
    /// That of a client without a name that asks for nothing, over shared memory.
    fn default() -> Self {
        Self { features: 0, class: 0, transport: Transport::Shm, name: String::new() }
    }
}

impl Hello {
    /// The message as it travels. A longer name is cut.
    #[must_use]
    pub fn encode(&self) -> [u8; HELLO_LEN] {
        let name = beginning(&self.name, MAX_NAME).as_bytes();
        let mut bytes = [0; HELLO_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.0.to_le_bytes());
        bytes[10..12].copy_from_slice(&VERSION.1.to_le_bytes());
        bytes[12] = self.transport.to_bits();
        bytes[13] = self.class;
        bytes[14] = name.len() as u8;
        bytes[16..24].copy_from_slice(&self.features.to_le_bytes());
        bytes[24..24 + name.len()].copy_from_slice(name);
        bytes
    }

    /// Reads a hello.
    ///
    /// # Errors
    /// [`HandshakeError`] says what is wrong with it.
    pub fn decode(bytes: &[u8; HELLO_LEN]) -> Result<Self, HandshakeError> {
        check_magic_and_version(bytes)?;
        let transport = Transport::from_bits(bytes[12]).ok_or(HandshakeError::Transport(bytes[12]))?;
        let name_len = usize::from(bytes[14]);
        let name = bytes[24..].get(..name_len).ok_or(HandshakeError::Field("name_len"))?;
        let name = String::from_utf8_lossy(name).chars().filter(|c| !c.is_control()).collect();
        Ok(Self { features: u64_at(bytes, 16), class: bytes[13], transport, name })
    }
}

/// A server's welcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Feature bits both sides know.
    pub features: u64,
    /// The server's number for this connection.
    pub connection: u64,
    /// What holds on this connection.
    pub terms: Terms,
    /// The server's monotonic clock when it answered, in microseconds: what deadlines are told on.
    pub clock_us: u64,
    /// The message types on offer.
    pub types: Vec<TypeEntry>,
}

/// The head of a server's answer: how long its body is, and what it will mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerHead {
    status: HandshakeStatus,
    features: u64,
    connection: u64,
    /// Present if the status is [`HandshakeStatus::Accepted`].
    terms: Option<Terms>,
    clock_us: u64,
    body_len: usize,
    /// Entries of the whole table, as the server says.
    entries: u32,
}

impl Welcome {
    /// The message as it travels: with the first [`Self::in_body`] message types. The others follow in
    /// [pages](Self::encode_pages) with the feature [`TABLE`]; without it the client never hears of them.
    ///
    /// # Panics
    /// If a name has 0 or more than 255 bytes, which a registry checks.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let body = table::encode(&self.types[..self.in_body()], self.features & SCHEMAS != 0);
        let entries = if self.features & TABLE != 0 { self.types.len() as u32 } else { 0 };
        let accepted = Some((&self.terms, self.clock_us, entries));
        encode_answer(HandshakeStatus::Accepted, self.features, self.connection, accepted, &body)
    }

    /// How many of the message types find room in the body of the answer.
    #[must_use]
    pub fn in_body(&self) -> usize {
        table::fitting(&self.types, self.features & SCHEMAS != 0, MAX_BODY)
    }

    /// What follows the answer with the feature [`TABLE`]: nothing, if the body has all of the table.
    #[must_use]
    pub fn encode_pages(&self) -> Vec<u8> {
        if self.features & TABLE == 0 {
            return Vec::new();
        }
        table::encode_pages(&self.types, self.in_body(), self.features & SCHEMAS != 0)
    }
}

/// A refusal as it travels.
#[must_use]
pub fn encode_refusal(status: HandshakeStatus, text: &str) -> Vec<u8> {
    encode_answer(status, 0, 0, None, beginning(text, MAX_BODY).as_bytes())
}

fn encode_answer(
    status: HandshakeStatus,
    features: u64,
    connection: u64,
    accepted: Option<(&Terms, u64, u32)>,
    body: &[u8],
) -> Vec<u8> {
    assert!(body.len() <= MAX_BODY, "both kinds of body are bounded when they are made");
    let (numbers, clock_us, entries) = accepted.map_or(([0; 4], 0, 0), |(terms, clock_us, entries)| {
        let capacity = u32::try_from(terms.geometry.capacity).expect("capacities are far below 4 GiB");
        ([capacity, terms.max_message, terms.max_in_flight, terms.stream_window], clock_us, entries)
    });
    let mut bytes = Vec::with_capacity(ANSWER_HEAD_LEN + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.0.to_le_bytes());
    bytes.extend_from_slice(&VERSION.1.to_le_bytes());
    bytes.extend_from_slice(&status.to_bits().to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&features.to_le_bytes());
    bytes.extend_from_slice(&connection.to_le_bytes());
    for number in numbers {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&entries.to_le_bytes());
    bytes.extend_from_slice(&clock_us.to_le_bytes());
    debug_assert_eq!(bytes.len(), ANSWER_HEAD_LEN);
    bytes.extend_from_slice(body);
    bytes
}

impl AnswerHead {
    /// Reads the head of an answer.
    ///
    /// # Errors
    /// [`HandshakeError`] says what is wrong with it.
    pub fn decode(bytes: &[u8; ANSWER_HEAD_LEN]) -> Result<Self, HandshakeError> {
        let status = HandshakeStatus::from_bits(u16_at(bytes, 12));
        match check_magic_and_version(bytes) {
            // A refusal has the same form in every version, so that its text can be read.
            Err(HandshakeError::Version { .. }) if status != HandshakeStatus::Accepted => {}
            other => other?,
        }
        let body_len = u32_at(bytes, 48) as usize;
        if body_len > MAX_BODY {
            return Err(HandshakeError::Field("body_len"));
        }
        let (features, connection, clock_us) = (u64_at(bytes, 16), u64_at(bytes, 24), u64_at(bytes, 56));
        let is_compact = features & COMPACT != 0;
        let terms = if status == HandshakeStatus::Accepted { Some(decode_terms(bytes, is_compact)?) } else { None };
        let entries = if features & TABLE != 0 { u32_at(bytes, 52) } else { 0 };
        Ok(Self { status, features, connection, terms, clock_us, body_len, entries })
    }

    /// Bytes of the body that follows, at most [`MAX_BODY`].
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.body_len
    }

    /// The whole answer, with its body, of a server whose table has no pages.
    ///
    /// # Errors
    /// The server's refusal, what is wrong with the body, or that pages follow.
    pub fn with_body(self, body: &[u8]) -> Result<Welcome, HandshakeError> {
        let (welcome, pages) = self.begin(body)?;
        if pages.is_whole() { Ok(welcome) } else { Err(HandshakeError::Field("entries")) }
    }

    /// The answer with its body, and what is to come of the table: the welcome has the message types of the body, to which
    /// those of each page are to be added.
    ///
    /// # Errors
    /// The server's refusal, or what is wrong with the body.
    pub fn begin(self, body: &[u8]) -> Result<(Welcome, Pages), HandshakeError> {
        let Self { status, features, connection, terms, clock_us, entries, .. } = self;
        let Some(terms) = terms else {
            let text = String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(512).collect();
            return Err(HandshakeError::Refused { status, text });
        };
        let mut types = Vec::new();
        let entries = (features & TABLE != 0).then_some(entries);
        let pages = Pages::begin(body, features & SCHEMAS != 0, entries, &mut types)?;
        Ok((Welcome { features, connection, terms, clock_us, types }, pages))
    }
}

fn decode_terms(bytes: &[u8; ANSWER_HEAD_LEN], is_compact: bool) -> Result<Terms, HandshakeError> {
    let geometry = Geometry::new(u32_at(bytes, 32)).ok_or(HandshakeError::Field("capacity"))?;
    let terms = Terms {
        geometry: if is_compact { geometry.into_compact() } else { geometry },
        max_message: u32_at(bytes, 36),
        max_in_flight: u32_at(bytes, 40),
        stream_window: u32_at(bytes, 44),
    };
    if !MESSAGE_LIMITS.contains(&terms.max_message) {
        return Err(HandshakeError::Field("max_message"));
    }
    if terms.max_in_flight == 0 {
        return Err(HandshakeError::Field("max_in_flight"));
    }
    if terms.stream_window == 0 {
        return Err(HandshakeError::Field("stream_window"));
    }
    Ok(terms)
}

fn check_magic_and_version(bytes: &[u8]) -> Result<(), HandshakeError> {
    let mut magic = [0; 8];
    magic.copy_from_slice(&bytes[..8]);
    if magic != MAGIC {
        return Err(HandshakeError::Magic(magic));
    }
    let theirs = (u16_at(bytes, 8), u16_at(bytes, 10));
    if theirs.0 == VERSION.0 { Ok(()) } else { Err(HandshakeError::Version { theirs }) }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layout::DEFAULT_CAPACITY;

    fn welcome() -> Welcome {
        Welcome {
            features: 0,
            connection: 7,
            terms: Terms {
                geometry: Geometry::new(DEFAULT_CAPACITY).unwrap(),
                max_message: 10 << 20,
                max_in_flight: 1024,
                stream_window: 65536,
            },
            clock_us: 1 << 40 | 5,
            types: [Style::Unary, Style::ServerStream, Style::ClientStream, Style::Duplex]
                .into_iter()
                .enumerate()
                .map(|(n, style)| TypeEntry {
                    message_type: n as u16 + 1,
                    style,
                    name: format!("type {n}"),
                    schema: SchemaMark::default(),
                })
                .collect(),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Welcome, HandshakeError> {
        let (head, body) = bytes.split_first_chunk().unwrap();
        AnswerHead::decode(head)?.with_body(body)
    }

    #[test]
    fn both_messages_survive_the_way() {
        let hello = Hello { features: 5, class: 1, transport: Transport::Stream, name: "editor ü".into() };
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        assert_eq!(decode(&welcome().encode()), Ok(welcome()));
    }

    /// A mark travels only where both sides name the feature: whoever knows none reads what it always did.
    #[test]
    fn marks_travel_by_the_feature_bit_alone() {
        let mut marked = welcome();
        for (n, entry) in marked.types.iter_mut().enumerate() {
            entry.schema = SchemaMark { codec: 2, hash: u64::MAX - n as u64 };
        }
        assert_eq!(decode(&marked.encode()), Ok(welcome()), "without the bit");
        marked.features = SCHEMAS;
        assert_eq!(decode(&marked.encode()), Ok(marked.clone()));
        let mut cut = marked.encode();
        cut.truncate(cut.len() - 1);
        cut[48] -= 1;
        assert_eq!(decode(&cut), Err(HandshakeError::Field("types")));
    }

    #[test]
    fn rings_are_compact_by_the_feature_bit_alone() {
        let mut compact = Welcome { features: COMPACT, ..welcome() };
        compact.terms.geometry = compact.terms.geometry.into_compact();
        assert_eq!(decode(&compact.encode()), Ok(compact.clone()));
        let len = compact.terms.geometry.mapping_len();
        assert_eq!(len, 4096 + 2 * compact.terms.geometry.capacity as usize);
        compact.features = SCHEMAS;
        assert_eq!(decode(&compact.encode()).unwrap().terms, welcome().terms);
    }

    #[test]
    fn a_long_name_is_cut_at_a_character() {
        let hello = Hello { name: "ü".repeat(40), ..Hello::default() };
        assert_eq!(Hello::decode(&hello.encode()).unwrap().name, "ü".repeat(32));
    }

    // Fault 28.
    #[test]
    fn wrong_magic_version_and_transport_are_told_apart() {
        let good = Hello::default().encode();
        let with = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            Hello::decode(&bytes)
        };
        assert!(matches!(with(0, b'X'), Err(HandshakeError::Magic(_))));
        let version = with(8, 9).unwrap_err();
        assert_eq!(version.to_string(), "the peer speaks version 9.1, this side 1.1");
        assert!(with(10, 9).is_ok(), "a newer minor version only adds");
        assert_eq!(with(12, 2), Err(HandshakeError::Transport(2)));
        assert_eq!(with(14, 65), Err(HandshakeError::Field("name_len")));
    }

    // Fault 28.
    #[test]
    fn a_refusal_is_readable_even_across_versions() {
        let mut bytes = encode_refusal(HandshakeStatus::Version, "the server speaks 2.0");
        bytes[8] = 2;
        let error = decode(&bytes).unwrap_err();
        assert_eq!(error.to_string(), "the server refused the connection (version mismatch): the server speaks 2.0");
    }

    #[test]
    fn types_of_an_unknown_style_are_passed_over() {
        let mut bytes = welcome().encode();
        bytes[ANSWER_HEAD_LEN + 2] = 9;
        assert_eq!(decode(&bytes).unwrap().types, welcome().types[1..]);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for (at, field) in [(33, "capacity"), (39, "max_message"), (50, "body_len")] {
            let mut bytes = welcome().encode();
            bytes[at] ^= 0x55;
            assert_eq!(decode(&bytes), Err(HandshakeError::Field(field)));
        }
        // These two have a single byte that is not 0.
        for (at, field) in [(41, "max_in_flight"), (46, "stream_window")] {
            let mut bytes = welcome().encode();
            bytes[at] = 0;
            assert_eq!(decode(&bytes), Err(HandshakeError::Field(field)));
        }
    }

    #[test]
    fn every_status_survives_the_way_and_has_words_of_its_own() {
        let mut words = std::collections::BTreeSet::new();
        for bits in 0..9 {
            assert_eq!(HandshakeStatus::from_bits(bits).to_bits(), bits);
            words.insert(HandshakeStatus::from_bits(bits).to_string());
        }
        assert_eq!(words.len(), 9);
        for status in [
            HandshakeStatus::Malformed,
            HandshakeStatus::Full,
            HandshakeStatus::Draining,
            HandshakeStatus::Forbidden,
            HandshakeStatus::Other(9),
        ] {
            let error = decode(&encode_refusal(status, "no")).unwrap_err();
            assert_eq!(error, HandshakeError::Refused { status, text: "no".into() });
        }
    }

    proptest! {
        // Fault 28.
        #[test]
        fn hostile_bytes_never_panic(
            bytes in prop::collection::vec(any::<u8>(), ANSWER_HEAD_LEN..300),
            valid_start in 0..ANSWER_HEAD_LEN,
        ) {
            let mut bytes = bytes;
            bytes[..valid_start].copy_from_slice(&welcome().encode()[..valid_start]);
            let _ = decode(&bytes);
            bytes.resize(HELLO_LEN, 0);
            let _ = Hello::decode(bytes[..HELLO_LEN].try_into().unwrap());
        }
    }
}
