//! What hands the messages of one link to its socket.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use async_nats::{Client, HeaderMap, connection::State};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::watch::Watch;

/// The link is lost, so nothing can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost;

/// Messages that wait to be handed over by nobody in particular. Each is small; those on top of them are dropped.
pub(super) const MOST_POSTS: usize = 2048;

/// Hands messages over.
#[derive(Debug, Clone)]
pub(super) struct Publisher {
    pub(super) client: Client,
    pub(super) watch: Arc<Watch>,
    pub(super) sent: Arc<AtomicU64>,
}

/// A message that may be dropped.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) subject: String,
    pub(super) headers: Option<HeaderMap>,
    pub(super) payload: Vec<u8>,
}

impl Publisher {
    /// Hands a message to the socket's queue. Waits while that is full.
    pub(super) async fn publish(
        &self,
        subject: String,
        reply: Option<String>,
        headers: Option<HeaderMap>,
        payload: Vec<u8>,
    ) -> Result<(), Lost> {
        if self.is_lost() {
            return Err(Lost);
        }
        let payload = Bytes::from(payload);
        let published = match (reply, headers) {
            (Some(reply), None) => self.client.publish_with_reply(subject, reply, payload).await,
            (None, None) => self.client.publish(subject, payload).await,
            (Some(reply), Some(headers)) => {
                self.client.publish_with_reply_and_headers(subject, reply, headers, payload).await
            }
            (None, Some(headers)) => self.client.publish_with_headers(subject, headers, payload).await,
        };
        self.sent.fetch_add(1, Relaxed);
        published.map_err(|_| Lost)
    }

    pub(super) fn is_lost(&self) -> bool {
        self.watch.lost.load(Relaxed) || self.client.connection_state() != State::Connected
    }

    /// Hands over one message after the other, until nobody has any more.
    pub(super) async fn carry(self, mut posts: mpsc::Receiver<Post>) {
        while let Some(Post { subject, headers, payload }) = posts.recv().await {
            let _ = self.publish(subject, None, headers, payload).await;
        }
    }
}
