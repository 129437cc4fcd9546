//! What is asked of the server's table of message types.

#[cfg(feature = "service")]
use bellrope_proto::handshake::SchemaMark;

use super::{super::types::TypeTable, AsyncClient, driver::settle};
#[cfg(feature = "service")]
use crate::client::types::MessageType;
use crate::error::CallError;

impl AsyncClient {
    /// Looks into the table of the server that is there. `None`: there is none.
    pub(super) fn look_up<T>(
        &self,
        look: impl FnOnce(&TypeTable) -> Result<T, CallError>,
    ) -> Option<Result<T, CallError>> {
        let mut state = self.shared.lock();
        self.shared.catch_up(&mut state);
        settle(&self.shared, &mut state);
        Some(look(&state.link.as_ref()?.types))
    }

    /// As [`Self::message_type`], with what its payloads are.
    #[cfg(feature = "service")]
    pub(crate) async fn marked_type(&self, name: &str) -> Result<(MessageType, SchemaMark), CallError> {
        loop {
            if let Some(found) = self.look_up(|types| types.find_marked(name)) {
                return found;
            }
            self.await_link().await?;
        }
    }
}
