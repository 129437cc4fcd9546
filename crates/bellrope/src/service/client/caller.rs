//! What both kinds of clients of a service have.

use std::{
    cell::Cell,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use bellrope_proto::handshake::SchemaMark;

use serde::Serialize;

use crate::{
    client::{CallError, MessageType},
    service::{
        codec::Codec,
        json::Json,
        method::{Method, write},
        postcard::Postcard,
        schema::{Schema, SchemaQuestion, between, schema_of},
    },
};

/// A client of a service, on top of a [`ByteClient`](super::ByteClient) or an [`AsyncClient`](crate::AsyncClient).
#[derive(Debug, Clone)]
pub struct ServiceCaller<C> {
    pub(super) client: C,
    /// The message type of each method that was looked up.
    known: Arc<RwLock<Vec<Option<MessageType>>>>,
}

impl<C> ServiceCaller<C> {
    /// A client whose service has so many methods.
    pub fn new(client: C, methods: usize) -> Self {
        Self { client, known: Arc::new(RwLock::new(vec![None; methods])) }
    }

    /// What calls bytes.
    pub fn raw(&self) -> &C {
        &self.client
    }

    pub(super) fn known<M: Method>(&self) -> Option<MessageType> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)[M::INDEX]
    }

    /// Whether a method of the server that is there is this one.
    pub(super) fn compare<M: Method>(&self, theirs: SchemaMark) -> Result<Compared, CallError> {
        let incompatible = |differences| Err(CallError::Incompatible { method: M::NAME, differences });
        if theirs.codec != 0 && theirs.codec != M::Codec::NUMBER {
            let [here, there] = [M::Codec::NUMBER, theirs.codec].map(codec_name);
            return incompatible(format!("its codec is {here} here and {there} there"));
        }
        if M::Codec::NAMED || theirs.hash == 0 {
            return Ok(Compared::Same);
        }
        let ours = schema_of::<M>().map_err(|fault| CallError::Unwritable { method: M::NAME, fault })?;
        Ok(match ours {
            Some(ours) if ours.hash() != theirs.hash => Compared::Differs(Box::new(ours)),
            _ => Compared::Same,
        })
    }

    /// Keeps what was looked up and checked.
    pub(super) fn keep<M: Method>(&self, found: MessageType) -> MessageType {
        let found = found.pinned();
        self.known.write().unwrap_or_else(PoisonError::into_inner)[M::INDEX] = Some(found);
        found
    }

    /// Whether a call that has ended so is to be made again with what the server that is there now offers. Nothing of it was
    /// sent.
    pub(super) fn is_outdated<M: Method>(&self, error: &CallError, tries: &mut u32) -> bool {
        *tries += 1;
        let outdated = matches!(error, CallError::MessageTypeGone) && *tries <= MOST_LOOKS;
        if outdated {
            self.known.write().unwrap_or_else(PoisonError::into_inner)[M::INDEX] = None;
        }
        outdated
    }
}

/// What a method is given, as it travels.
#[derive(Debug)]
pub struct EncodedRequest(pub(super) Buffers);

impl EncodedRequest {
    /// Writes it.
    pub fn of<M: Method>(request: &impl Serialize) -> Result<Self, CallError> {
        let mut buffers = Buffers::take();
        write::<M>(request, &mut buffers.request)?;
        Ok(Self(buffers))
    }
}

/// What came of a comparison.
pub(super) enum Compared {
    Same,
    /// The other side has another schema than this one, and the codec sends no names.
    Differs(Box<Schema>),
}

/// What is asked to learn what differs.
pub(super) fn question<M: Method>() -> Vec<u8> {
    let mut question = Vec::new();
    // A name can always be written.
    let _ = Json::encode(&SchemaQuestion { method: M::NAME.to_owned() }, &mut question);
    question
}

/// The error of a method that is another one at the server, as that says. `None` if that server is gone meanwhile, and the
/// next one is to be looked at.
pub(super) fn incompatible<M: Method>(
    ours: &Schema,
    theirs: Result<Vec<u8>, CallError>,
    looks: &mut u32,
) -> Option<CallError> {
    *looks += 1;
    let theirs = match theirs {
        Err(
            error @ (CallError::NotExecuted
            | CallError::Unknown
            | CallError::ClosedByServer { .. }
            | CallError::Connect(_)),
        ) => {
            return (*looks >= MOST_LOOKS).then_some(error);
        }
        other => other.ok().and_then(|answer| Schema::from_json(&answer).ok()),
    };
    let differences = match theirs {
        Some(theirs) if theirs.hash() == ours.hash() && *looks < MOST_LOOKS => return None,
        Some(theirs) => between(ours, &theirs),
        None => "their types differ, and the server does not say in what".to_owned(),
    };
    Some(CallError::Incompatible { method: M::NAME, differences })
}

/// Until when a server must have said what differs.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

fn codec_name(number: u8) -> String {
    match number {
        Json::NUMBER => Json::NAME.to_owned(),
        Postcard::NUMBER => Postcard::NAME.to_owned(),
        own => format!("number {own}"),
    }
}

/// How often one call looks its type up anew, because another server is there each time.
const MOST_LOOKS: u32 = 3;

/// Memory that calls of a thread use one after another. Fresh memory for each large message would cost more than the call:
/// every page of it is a fault.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) request: Vec<u8>,
    pub(super) reply: Vec<u8>,
    /// Calls since the last one that needed more than [`Self::SMALL`].
    small_calls: u8,
}

impl Buffers {
    /// Most bytes of each that are kept, whatever comes next.
    const SMALL: usize = 64 * 1024;
    /// Most bytes of each that are kept for calls as large as the last ones.
    const LARGE: usize = 2 * 1024 * 1024;
    /// So many small calls in a row, and the memory of large ones is given back.
    const PATIENCE: u8 = 64;

    /// This thread's, if no call has them.
    fn take() -> Self {
        BUFFERS.take()
    }

    pub(super) fn give_back(self) {
        let Self { request, reply, small_calls } = self;
        let small = request.len().max(reply.len()) <= Self::SMALL;
        let small_calls = if small { small_calls.saturating_add(1) } else { 0 };
        let most = if small_calls < Self::PATIENCE { Self::LARGE } else { Self::SMALL };
        let kept = |buffer: Vec<u8>| if buffer.capacity() > most { Vec::new() } else { buffer };
        BUFFERS.set(Self { request: kept(request), reply: kept(reply), small_calls });
    }
}

thread_local! {
    static BUFFERS: Cell<Buffers> =
        const { Cell::new(Buffers { request: Vec::new(), reply: Vec::new(), small_calls: 0 }) };
}
