use std::sync::Arc;

use crate::server::{
    calls::body::Body,
    inbox::Inbox,
    message::{FromHandler, SessionId, WorkerMessage},
};

/// Where one async call says what it has to say.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    pub(crate) inbox: Arc<Inbox<WorkerMessage>>,
    pub(crate) session: SessionId,
    pub(crate) call: u64,
    /// Largest chunk that one record holds.
    pub(crate) max_chunk: usize,
}

impl Port {
    pub(crate) fn chunk(&self, body: Body) {
        self.send(FromHandler::Chunk(body));
    }

    pub(crate) fn chunks(&self, bodies: Vec<Body>) {
        self.send(FromHandler::Chunks(bodies));
    }

    pub(crate) fn consumed(&self, sizes: Vec<usize>) {
        self.send(FromHandler::Consumed(sizes));
    }

    pub(crate) fn send(&self, what: FromHandler) {
        self.inbox.send_or_stand_in(WorkerMessage::FromHandler { session: self.session, call: self.call, what });
    }
}
