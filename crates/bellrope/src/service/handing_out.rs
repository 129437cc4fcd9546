//! What has a server hand out schemas.

use std::sync::{Arc, PoisonError};

use bellrope_proto::handshake::SchemaMark;

use super::{
    known_schemas::{KnownSchemas, SchemaSource},
    schema::{SCHEMA, Schema},
};
use crate::server::{Server, ServerBuilder};

impl ServerBuilder {
    /// Has questions for the schemas of methods that this server does not have itself answered by whoever the running server is
    /// [given](Server::schemas_from) for that: one that forwards calls to other servers knows whom to ask. Call it after all
    /// types are registered.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("forward.sock");
    /// use std::{pin::Pin, sync::Arc};
    ///
    /// use bellrope::{
    ///     HandlerError,
    ///     server::OwnedCall,
    ///     service::{SCHEMA, SchemaSource},
    /// };
    ///
    /// struct Others;
    ///
    /// impl SchemaSource for Others {
    ///     fn schema<'a>(
    ///         &'a self,
    ///         method: &'a str,
    ///         _: OwnedCall,
    ///     ) -> Pin<Box<dyn Future<Output = Result<Option<Vec<u8>>, HandlerError>> + Send + 'a>> {
    ///         Box::pin(async move { Ok((method == "Files.read").then(|| br#"{"codec":"json"}"#.to_vec())) })
    ///     }
    /// }
    ///
    /// let server = bellrope::Server::builder().schemas_elsewhere().bind(&path)?;
    /// assert!(server.schemas_from(Arc::new(Others)));
    /// let client = bellrope::Client::connect(&path)?;
    /// assert_eq!(client.call(SCHEMA, br#"{"method":"Files.read"}"#)?, br#"{"codec":"json"}"#);
    /// assert!(client.call(SCHEMA, br#"{"method":"Files.write"}"#).is_err());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn schemas_elsewhere(mut self) -> Self {
        let schemas = self.schemas.get_or_insert_default();
        schemas.await_source();
        let schemas = Arc::clone(schemas);
        // It may have to wait for somebody else.
        self.without(|name| name == SCHEMA).unary_async(SCHEMA, move |call| {
            let schemas = Arc::clone(&schemas);
            async move { schemas.of_any(call).await }
        })
    }
}

impl Server {
    /// Gives the server who knows the schemas of methods that it has not itself. Answers whether somebody was
    /// [awaited](ServerBuilder::schemas_elsewhere). [Example](ServerBuilder::schemas_elsewhere).
    pub fn schemas_from(&self, source: Arc<dyn SchemaSource>) -> bool {
        let schemas = self.for_added.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        schemas.as_ref().is_some_and(|schemas| schemas.give_source(source))
    }
}

/// Has the server of this builder hand out the schema of a type, or say why there is none.
pub(super) fn hand_out_also(
    mut builder: ServerBuilder,
    name: &str,
    codec: u8,
    schema: Result<Schema, String>,
) -> ServerBuilder {
    let hash = schema.as_ref().map_or(0, Schema::hash);
    if builder.schemas.is_none() {
        let schemas = Arc::<KnownSchemas>::default();
        builder.schemas = Some(Arc::clone(&schemas));
        builder = builder.unary(SCHEMA, move |call, reply| schemas.of_own(call.payload(), reply));
    }
    if let Some(schemas) = &builder.schemas {
        schemas.note(name, schema);
    }
    builder.registry.mark(name, SchemaMark { codec, hash });
    builder
}
