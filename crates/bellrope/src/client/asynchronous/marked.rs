//! What typed clients ask of the table from the handshake.

use bellrope_proto::handshake::SchemaMark;

use super::AsyncClient;
use crate::{client::types::MessageType, error::CallError};

impl AsyncClient {
    /// As [`Self::message_type`], with what its payloads are.
    pub(crate) async fn marked_type(&self, name: &str) -> Result<(MessageType, SchemaMark), CallError> {
        loop {
            if let Some(link) = &self.shared.lock().link {
                return link.types.find_marked(name);
            }
            self.await_link().await?;
        }
    }
}
