//! Types that are added to a registry in use, and taken out of it.

use std::sync::{Arc, PoisonError};

use super::{
    added::{AddedType, AddedTypes},
    registry::{Added, Handler, Registry},
};
use crate::{server::error::BindError, status::UNKNOWN};

impl Registry {
    /// The handler of a type that was added, and is there still.
    #[cold]
    pub(crate) fn find_added(&self, message_type: u16) -> Option<Arc<Handler>> {
        let place = usize::from(message_type).wrapping_sub(1).checked_sub(self.entries.len())?;
        self.added.read().unwrap_or_else(PoisonError::into_inner).handlers.get(place)?.clone()
    }

    /// Adds all types of another registry, or none. Returns their numbers and names.
    ///
    /// # Errors
    /// Why one of them cannot be added.
    pub(crate) fn add_all(&self, types: Registry) -> Result<Vec<(u16, Arc<str>)>, BindError> {
        types.check()?;
        let mut now = self.added.write().unwrap_or_else(PoisonError::into_inner);
        let Added { types: known_types, handlers } = &*now;
        let (mut slots, mut handlers) = (known_types.0.clone(), handlers.clone());
        let mut numbers = Vec::new();
        let weights: Vec<_> = types.entries.iter().map(|(name, _)| types.weight_of(name)).collect();
        for ((name, handler), weight) in types.entries.into_iter().zip(weights) {
            let refuse = |fault| BindError::Registry { name: name.clone(), fault };
            let (style, schema) = (handler.style(), types.schemas.get(&name).copied().unwrap_or_default());
            let known = slots.iter().position(|slot| *slot.name == *name);
            if self.entries.iter().any(|(fixed, _)| *fixed == name) || known.is_some_and(|place| slots[place].is_there)
            {
                return Err(refuse("the name is taken"));
            }
            // Whoever has not heard that it was gone, and calls it, means the same as before.
            let same = known.filter(|place| (slots[*place].style, slots[*place].schema) == (style, schema));
            let place = same.unwrap_or(slots.len());
            if place >= self.room() {
                return Err(refuse(
                    "every number that the server keeps for types added while it runs was given out (room_for_types); a \
                     number is never given to another type",
                ));
            }
            // Under its new number; the old one stays with nobody.
            if let Some(old) = known.filter(|_| same.is_none()) {
                slots[old].name = UNKNOWN.into();
            }
            let added = AddedType { name: name.as_str().into(), style, schema, weight, is_there: true };
            numbers.push(((self.entries.len() + place + 1) as u16, Arc::clone(&added.name)));
            if place == slots.len() {
                slots.push(added);
                handlers.push(Some(handler));
            } else {
                slots[place] = added;
                handlers[place] = Some(handler);
            }
        }
        *now = Added { types: Arc::new(AddedTypes(slots)), handlers };
        Ok(numbers)
    }

    /// Takes out a type that was added. Answers whether it was there.
    pub(crate) fn take_out(&self, name: &str) -> bool {
        let mut now = self.added.write().unwrap_or_else(PoisonError::into_inner);
        let there = |slot: &AddedType| *slot.name == *name && slot.is_there;
        let Some(place) = now.types.0.iter().position(there) else { return false };
        let mut slots = now.types.0.clone();
        slots[place].is_there = false;
        now.types = Arc::new(AddedTypes(slots));
        let handler = now.handlers[place].take();
        drop(now);
        // It is its author's: what it does at its end may take long, or ask for the types.
        drop(handler);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use bellrope_proto::{connection::Reply, table::TypeChange};

    use super::*;
    use crate::server::handler::call::Call;

    fn types(names: &[&str]) -> Registry {
        let mut registry = Registry::default();
        for name in names {
            let handler = match name.strip_suffix("_in_place") {
                Some(_) => Handler::InPlace(Box::new(|_| Ok(()))),
                None => Handler::Unary(Box::new(|_, _| Ok(()))),
            };
            registry.add(name, handler);
        }
        registry
    }

    #[test]
    fn a_number_is_given_to_one_name_for_ever() {
        let mut registry = types(&["echo"]);
        registry.keep_room(3);
        let at_first = registry.added_types();
        let numbers = |names: &[&str]| {
            let added = registry.add_all(types(names))?;
            Ok::<_, BindError>(added.into_iter().map(|(number, _)| number).collect::<Vec<_>>())
        };
        assert_eq!(numbers(&["one", "two"]).unwrap(), [2, 3]);
        assert!(registry.take_out("one") && !registry.take_out("one") && !registry.take_out("echo"));
        assert!(registry.find_added(2).is_none() && registry.find_added(3).is_some());
        assert_eq!(numbers(&["three"]).unwrap(), [4], "not that of another, though it is gone");
        let fault = |names: &[&str]| numbers(names).unwrap_err().to_string();
        assert!(fault(&["four"]).contains("every number"), "{}", fault(&["four"]));
        assert!(fault(&["two"]).contains("taken") && fault(&["echo"]).contains("taken"));
        assert_eq!(numbers(&["one"]).unwrap(), [2], "the same type under its old number");
        assert_eq!([registry.name(1), registry.name(2), registry.name(5)], ["echo", "one", "unknown"]);

        let now = registry.added_types();
        let told = |from: &AddedTypes, to: &AddedTypes| {
            from.changes_to(to, 1)
                .map(|(_, change, entries)| match change {
                    TypeChange::Added(entry) => (entry.name, entries),
                    TypeChange::Removed(number) => (format!("-{number}"), entries),
                })
                .collect::<Vec<_>>()
        };
        let all = [("one", 2), ("two", 3), ("three", 4)].map(|(name, entries)| (name.to_owned(), entries));
        assert_eq!(told(&at_first, &now), all);
        assert!(registry.take_out("two"));
        assert_eq!(told(&now, &registry.added_types()), [("-3".to_owned(), 3)]);
        assert_eq!(registry.table(&registry.added_types()).len(), 3);
    }

    /// Asks for the types when it is dropped.
    struct Asks(Arc<Registry>, mpsc::Sender<bool>);

    impl Drop for Asks {
        fn drop(&mut self) {
            let _ = self.1.send(self.0.find_added(2).is_none());
        }
    }

    #[test]
    fn a_handler_that_is_dropped_with_its_type_may_ask_for_the_types() {
        let mut registry = types(&["echo"]);
        registry.keep_room(1);
        let (registry, (done, heard)) = (Arc::new(registry), mpsc::channel());
        let (mut added, asks) = (Registry::default(), Asks(Arc::clone(&registry), done));
        let handler = move |_: &Call<'_>, _: &mut Reply<'_>| {
            let _held = &asks;
            Ok(())
        };
        added.add("added", Handler::Unary(Box::new(handler)));
        registry.add_all(added).unwrap();
        std::thread::spawn(move || registry.take_out("added"));
        assert_eq!(heard.recv_timeout(Duration::from_secs(60)), Ok(true), "the lock is free");
    }

    #[test]
    fn of_several_types_none_is_added_if_one_cannot_be() {
        let mut registry = types(&["echo"]);
        registry.keep_room(2);
        assert!(registry.add_all(types(&["one", "two", "three"])).is_err());
        assert!(registry.add_all(types(&["one", "echo"])).is_err());
        assert_eq!(registry.table(&registry.added_types()).len(), 1);
    }
}
