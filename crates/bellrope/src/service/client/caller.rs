//! What both kinds of clients of a service have.

use std::{
    cell::Cell,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
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
        shown::bounded,
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
        // What does not say its codec is a server of bytes, or one of before there were schemas.
        if M::Codec::NAMED || theirs.codec == 0 {
            return Ok(Compared::Same);
        }
        let known = schema_of::<M>().map_err(|fault| CallError::Unwritable { method: M::NAME, fault })?;
        match known.schema {
            Some(_) if theirs.hash == 0 => incompatible(
                "its types have no schema there (the server's log says why), so that they cannot be compared"
                    .to_owned(),
            ),
            Some(ours) if ours.hash() != theirs.hash => Ok(Compared::Differs(Box::new(ours))),
            None if theirs.hash != 0 => {
                let doubts = bounded(&known.doubts.join("; "), MOST_SAID);
                incompatible(format!("its types have no schema here, so that they cannot be compared: {doubts}"))
            }
            _ => Ok(Compared::Same),
        }
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

/// What is to be done about a method of another hash.
pub(super) enum Looked {
    /// What travels is the same: another version counts it another way.
    Same,
    /// That server is gone meanwhile, and the next one is to be looked at.
    Again,
    Refused(CallError),
}

/// Whether a method of another hash is another one, as its server says.
pub(super) fn look<M: Method>(ours: &Schema, theirs: Result<Vec<u8>, CallError>, looks: &mut u32) -> Looked {
    *looks += 1;
    let theirs = match theirs {
        Err(
            error @ (CallError::NotExecuted
            | CallError::Unknown
            | CallError::ClosedByServer { .. }
            | CallError::Connect(_)),
        ) => {
            return if *looks >= MOST_LOOKS { Looked::Refused(error) } else { Looked::Again };
        }
        other => other.ok().and_then(|answer| Schema::from_json(&answer).ok()),
    };
    let differences = match theirs.map(|theirs| between(ours, &theirs)) {
        Some(None) => return Looked::Same,
        Some(Some(differences)) => bounded(&differences, MOST_SAID),
        None => "their types differ, and the server does not say in what".to_owned(),
    };
    Looked::Refused(CallError::Incompatible { method: M::NAME, differences })
}

/// Most bytes of what differs: the names are the server's.
const MOST_SAID: usize = 2048;

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
pub(super) const MOST_LOOKS: u32 = 3;

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

    /// Most bytes of large ones that all threads keep together: some may never call again.
    const LARGE_OF_ALL: usize = 16 * 1024 * 1024;

    /// This thread's, if no call has them.
    fn take() -> Self {
        std::mem::take(&mut KEPT.take().buffers)
    }

    pub(super) fn give_back(self) {
        let Self { request, reply, small_calls } = self;
        let small = request.len().max(reply.len()) <= Self::SMALL;
        let small_calls = if small { small_calls.saturating_add(1) } else { 0 };
        let most = if small_calls < Self::PATIENCE { Self::LARGE } else { Self::SMALL };
        let mut large = 0;
        let mut kept = |buffer: Vec<u8>| match buffer.capacity() {
            ..=Self::SMALL => buffer,
            size if size <= most && may_keep(size) => {
                large += size;
                buffer
            }
            _ => Vec::new(),
        };
        let buffers = Self { request: kept(request), reply: kept(reply), small_calls };
        KEPT.set(Kept { buffers, large });
    }
}

/// What a thread keeps.
#[derive(Default)]
struct Kept {
    buffers: Buffers,
    /// Bytes of it that count in [`LARGE_KEPT`].
    large: usize,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.large > 0 {
            LARGE_KEPT.fetch_sub(self.large, Relaxed);
        }
    }
}

/// Bytes of large ones that all threads keep now.
static LARGE_KEPT: AtomicUsize = AtomicUsize::new(0);

/// Whether a thread may keep so many more. Then they count.
fn may_keep(bytes: usize) -> bool {
    let more = |kept: usize| Some(kept + bytes).filter(|sum| *sum <= Buffers::LARGE_OF_ALL);
    LARGE_KEPT.fetch_update(Relaxed, Relaxed, more).is_ok()
}

thread_local! {
    static KEPT: Cell<Kept> = const {
        Cell::new(Kept { buffers: Buffers { request: Vec::new(), reply: Vec::new(), small_calls: 0 }, large: 0 })
    };
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    // Fault 69.
    #[test]
    fn threads_keep_large_buffers_within_one_bound_and_what_a_thread_kept_ends_with_it() {
        const THREADS: usize = 20;
        let most_of_all = Buffers::LARGE_OF_ALL;
        // Were anything left behind, the later rounds would keep less.
        for _ in 0..10 {
            let together = Barrier::new(THREADS);
            let kept: Vec<usize> = std::thread::scope(|scope| {
                let keep = || {
                    let mut buffers = Buffers::take();
                    buffers.request = vec![1; Buffers::LARGE];
                    buffers.reply = vec![1; Buffers::LARGE];
                    buffers.give_back();
                    together.wait();
                    let buffers = Buffers::take();
                    let size = buffers.request.capacity() + buffers.reply.capacity();
                    // They count until nobody looks at them any more.
                    together.wait();
                    size
                };
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(keep)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let all: usize = kept.iter().sum();
            assert!(all <= most_of_all && all >= most_of_all / 2, "{kept:?}");
        }
    }
}
