//! What is asked of the server's table of message types.

#[cfg(feature = "service")]
use bellrope_proto::handshake::SchemaMark;
use bellrope_proto::handshake::TypeEntry;

use super::{
    super::{offer::Offer, types::TypeTable},
    AsyncClient,
    driver::settle,
};
#[cfg(feature = "service")]
use crate::client::types::MessageType;
use crate::error::CallError;

impl AsyncClient {
    /// The message types that the server offers, with what their payloads are. Empty while there is no connection.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("echo.sock");
    /// # let server = bellrope::Server::builder().in_place("echo", |_| Ok(())).bind(&path)?;
    /// let client = bellrope::AsyncClient::connect(&path).await?;
    /// assert_eq!(client.offers()[0].name, "echo");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn offers(&self) -> Vec<Offer> {
        let all = self.look_up(|types| {
            let offer = |entry: &TypeEntry| Offer {
                name: entry.name.clone(),
                style: entry.style,
                codec: entry.schema.codec,
                schema: entry.schema.hash,
            };
            Ok(types.entries().iter().map(offer).collect())
        });
        all.and_then(Result::ok).unwrap_or_default()
    }

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
