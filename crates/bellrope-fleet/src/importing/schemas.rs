//! Schemas of types of the fleet, as instances have said them.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use bellrope::{server::HandlerError, service::Schema};

use crate::message_type::FleetType;

/// Most bytes of all that are kept.
const MOST_BYTES: usize = 4 << 20;

/// Schemas as JSON, by the name of their type: whoever offers one type must not say what another one's schema is, and to make a
/// second schema of a hash is easy.
#[derive(Debug, Default)]
pub(super) struct FetchedSchemas(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    by_name: HashMap<String, (u64, Vec<u8>)>,
    bytes: usize,
}

impl FetchedSchemas {
    /// The schema of this type, if it is kept.
    pub(super) fn of(&self, imported: &FleetType) -> Option<Vec<u8>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (hash, json) = kept.by_name.get(&imported.name)?;
        (*hash == imported.schema).then(|| json.clone())
    }

    /// Takes what an instance says is the schema of a type, and keeps it if it is.
    pub(super) fn take(&self, imported: &FleetType, json: Vec<u8>) -> Result<Vec<u8>, HandlerError> {
        let name = &imported.name;
        let refuse = |why: String| HandlerError::invalid_request(format!("the method {name} has no schema: {why}"));
        let schema = Schema::from_json(&json)
            .map_err(|error| refuse(format!("what an instance of the fleet says cannot be read: {error}")))?;
        if schema.hash() != imported.schema {
            tracing::warn!(target: "bellrope::fleet", message_type = name, "an instance has said another schema than it offers");
            return Err(refuse("an instance of the fleet has said another one than it offers".to_owned()));
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes + json.len() > MOST_BYTES {
            // They can be asked for again.
            *kept = Kept::default();
        }
        if let Some((_, before)) = kept.by_name.insert(name.clone(), (imported.schema, json.clone())) {
            kept.bytes -= before.len();
        }
        kept.bytes += json.len();
        Ok(json)
    }
}

#[cfg(test)]
mod tests {
    use bellrope::service::{Form, Shape, Type};

    use super::*;

    fn schema(number: u32, size: usize) -> (FleetType, Vec<u8>) {
        let names =
            (0..size / 1000).map(|at| Type { name: "n".repeat(1000), form: Form::Newtype(Shape::Type(at as u32)) });
        let last = Type { name: String::new(), form: Form::Enum(vec![(number.to_string(), Form::Unit)]) };
        let schema = Schema {
            codec: "json".to_owned(),
            request: Shape::Any,
            answer: Shape::Unit,
            sent: Shape::Unit,
            types: names.chain([last]).collect(),
        };
        let imported = FleetType { name: format!("Files.{number}"), style: 0, codec: 1, schema: schema.hash() };
        (imported, serde_json::to_vec(&schema).unwrap())
    }

    #[test]
    fn what_is_kept_is_what_its_hash_says_and_no_more_than_there_is_room_for() {
        let fetched = FetchedSchemas::default();
        let (one, json) = schema(1, 0);
        assert_eq!(fetched.take(&one, json.clone()).unwrap(), json);
        assert_eq!(fetched.of(&one), Some(json.clone()));
        let namesake = FleetType { name: "Other.read".to_owned(), ..one };
        assert_eq!(fetched.of(&namesake), None, "who offers one type says nothing of another with the same hash");
        let (two, _) = schema(2, 0);
        let refused = fetched.take(&two, json).unwrap_err().to_string();
        assert!(refused.contains("has no schema") && refused.contains("another one"), "{refused}");
        for wrong in [&b""[..], b"{}", br#"{"codec":"json"}"#, &[b' '; (1 << 20) + 1]] {
            let refused = fetched.take(&two, wrong.to_vec()).unwrap_err().to_string();
            assert!(refused.contains("cannot be read"), "{refused}");
        }
        assert_eq!(fetched.of(&two), None);
        for number in 0..100 {
            let (imported, json) = schema(number, 200_000);
            fetched.take(&imported, json.clone()).unwrap();
            fetched.take(&imported, json).unwrap();
            let kept = fetched.0.lock().unwrap();
            assert!(kept.bytes <= MOST_BYTES && kept.by_name.contains_key(&imported.name));
            assert_eq!(kept.bytes, kept.by_name.values().map(|(_, json)| json.len()).sum::<usize>());
        }
    }
}
