//! How a worker tells its clients that message types were added or taken out.

use std::sync::Arc;

use bellrope_proto::Violation;

use super::{Worker, backlog::looked_after};
use crate::server::{
    handler::{added::AddedTypes, registry::Registry},
    worker::session::Session,
};

impl Worker {
    /// Tells everybody who asked for it what has changed. Whoever has not read what it was sent is told later: a look a second
    /// sees to that.
    pub(super) fn tell_types(&mut self) {
        self.types_untold = false;
        for index in 0..self.sessions.len() {
            self.tell_types_to(index);
        }
    }

    pub(super) fn tell_types_to(&mut self, index: usize) {
        let Some(session) = looked_after(&mut self.sessions[index]).filter(|session| session.told.is_some()) else {
            return;
        };
        let now = self.core.registry.added_types();
        match tell(session, &self.core.registry, &now) {
            Ok(all) => {
                self.types_untold |= !all;
                session.commit();
                self.look_after_stream(index);
            }
            Err(violation) => self.end(index, violation.into()),
        }
    }
}

/// Tells a client what has changed since it was last told, as far as it is to be told now. Answers whether that was all.
fn tell(session: &mut Session, registry: &Registry, now: &Arc<AddedTypes>) -> Result<bool, Violation> {
    let Some(told) = &mut session.told else { return Ok(true) };
    if Arc::ptr_eq(&told.types, now) {
        return Ok(true);
    }
    let (known, with_schemas) = (Arc::clone(&told.types), told.with_schemas);
    let (most, first) = (session.connection.max_types_change(), registry.names().len());
    let mut record = Vec::new();
    // Where the record under way began, how far it goes, and how many entries there are then.
    let (mut from, mut to, mut count) = (0, 0, 0);
    for (place, change, entries) in known.changes_to(now, first) {
        let mut bytes = Vec::new();
        change.encode(&mut bytes, with_schemas);
        if record.len() + bytes.len() > most {
            if !session.connection.tell_types(count, &record)? {
                told.types = known.as_far_as(now, from);
                return Ok(false);
            }
            record.clear();
            from = to;
        }
        record.append(&mut bytes);
        (to, count) = (place + 1, entries);
    }
    if !record.is_empty() && !session.connection.tell_types(count, &record)? {
        told.types = known.as_far_as(now, from);
        return Ok(false);
    }
    told.types = Arc::clone(now);
    Ok(true)
}
