//! Message types that a server adds and takes out while it runs.

#[cfg(feature = "service")]
use std::sync::PoisonError;
use std::sync::{Arc, atomic::Ordering};

use super::{BindError, Server, ServerBuilder, message::WorkerMessage};

impl ServerBuilder {
    /// Keeps numbers for so many message types that are [added](Server::add_types) while the server runs. Default 0. Together
    /// with those that are registered at the start there are at most 4,096. A number takes some 300 bytes for each worker, and
    /// is never given to another type.
    #[must_use]
    pub fn room_for_types(mut self, types: u32) -> Self {
        self.registry.keep_room(types as usize);
        self
    }
}

impl Server {
    /// Adds message types to the running server: those that `register` registers, all of them or none. Of the builder that it is
    /// given only that counts, and no settings. If it is given a [runtime](ServerBuilder::runtime), the async handlers of these
    /// types run there, and it must live as long as they do. Clients that read changes of the table, as those of this crate do,
    /// hear of the new names within moments; others do not know them until they connect anew.
    ///
    /// A handler that answers on the worker costs a little more here than one that is registered at the start.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("echo.sock");
    /// use bellrope::{CallError, Client, Server};
    ///
    /// let server = Server::builder().in_place("echo", |_| Ok(())).room_for_types(16).bind(&path)?;
    /// let client = Client::connect(&path)?;
    ///
    /// server.add_types(|types| types.unary_async("later", |call| async move { Ok(call.into_payload()) }))?;
    /// while client.message_type("later").is_err() {
    ///     std::thread::yield_now(); // it hears of it within moments
    /// }
    /// assert_eq!(client.call("later", b"ding")?, b"ding");
    ///
    /// assert!(server.remove_type("later"));
    /// while client.message_type("later").is_ok() {
    ///     std::thread::yield_now();
    /// }
    /// assert!(matches!(client.call("later", b"ding"), Err(CallError::UnknownMessageType { .. })));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// `register` itself must neither add nor remove types of this server: it would wait for itself.
    ///
    /// # Errors
    /// [`BindError`]: a name is taken, or no number is left for it ([`ServerBuilder::room_for_types`]).
    pub fn add_types(&self, register: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Result<(), BindError> {
        // One at a time: the schemas of a second one would be lost.
        #[cfg(feature = "service")]
        let mut schemas = self.for_added.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        let builder = ServerBuilder {
            #[cfg(feature = "tokio")]
            blocking: self.for_added.blocking.clone(),
            #[cfg(feature = "service")]
            // Of their own until they are added: one that is refused must not leave its schema with a type that has its name.
            schemas: schemas.as_ref().map(|_| Arc::default()),
            ..ServerBuilder::default()
        };
        #[cfg_attr(not(feature = "tokio"), expect(unused_mut, reason = "there are no runtimes"))]
        let mut builder = register(builder);
        #[cfg(feature = "tokio")]
        if let Some(runtime) = &builder.runtime {
            builder.registry.run_on(runtime);
        }
        #[cfg(feature = "tokio")]
        if let Some(operator) = builder.operator {
            operator.attach(self.metrics());
        }
        let core = &self.core;
        for (number, name) in core.registry.add_all(builder.registry)? {
            let runs_on_worker = core.registry.find_added(number).is_some_and(|handler| handler.runs_on_worker());
            core.metrics.show_type(number, &name, runs_on_worker);
            core.metrics.watch_breaker(&*name, Arc::clone(core.breaker(number)));
            tracing::info!(message_type = &*name, number, "message type added");
        }
        #[cfg(feature = "service")]
        match (&*schemas, builder.schemas) {
            (Some(known), Some(added)) => known.extend(&added),
            (_, added) => *schemas = added,
        }
        self.types_changed();
        Ok(())
    }

    /// Takes out a message type that was [added](Self::add_types). Calls of it that are under way go on to their end; new ones
    /// are refused as unknown. Answers whether it was there.
    pub fn remove_type(&self, name: &str) -> bool {
        let was_there = self.core.registry.take_out(name);
        if was_there {
            #[cfg(feature = "service")]
            if let Some(schemas) = &*self.for_added.schemas.lock().unwrap_or_else(PoisonError::into_inner) {
                schemas.forget(|known| known == name);
            }
            self.core.metrics.forget_breaker(name);
            tracing::info!(message_type = name, "message type taken out");
            self.types_changed();
        }
        was_there
    }

    /// The types that were taken out by [`ServerBuilder::behind`], with what answered them. [Example](ServerBuilder::behind).
    #[cfg(feature = "tokio")]
    #[must_use]
    pub fn behind(&self) -> Vec<super::Behind> {
        self.core.registry.behind()
    }

    fn types_changed(&self) {
        if !self.core.stopping.load(Ordering::Acquire) {
            for worker in &self.inboxes[..self.core.fixed.workers] {
                worker.send(WorkerMessage::TypesChanged);
            }
        }
    }
}
