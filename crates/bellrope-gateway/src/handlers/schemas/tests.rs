//! The schemas are held to the types: values are made of a schema, read by the type, and written again. A field that only the
//! schema has is lost there, one that only the type has comes anew, and one of another type is refused.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::*;
use crate::handlers::{HEALTH, MESSAGE_TYPES};
use crate::message::fields::{CHAT_REQUEST, COMPLETION_REQUEST, Known};
use crate::message::{
    CancelReport, CancelRequest, ChatRequest, ChatResponse, CompletionRequest, EmbedRequest, EmbedResponse,
    HealthReport, ModelList, ResumeRequest, SequencedChunk,
};

/// Values that take every variant once, with all fields, or with only those that must be there.
struct Maker<'s> {
    schema: &'s Schema,
    whole: bool,
    /// Which variant is taken where there are several.
    turn: usize,
    most: usize,
}

impl Maker<'_> {
    fn one<T>(&mut self, several: &[T]) -> usize {
        self.most = self.most.max(several.len());
        self.turn % several.len()
    }

    fn fields(&mut self, fields: &[(String, Shape)]) -> Map<String, Value> {
        let mut object = Map::new();
        for (name, shape) in fields {
            match shape {
                Shape::Optional(inner) if self.whole => drop(object.insert(name.clone(), self.value(inner))),
                Shape::Optional(_) => {}
                shape => drop(object.insert(name.clone(), self.value(shape))),
            }
        }
        object
    }

    fn form(&mut self, form: &Form) -> Value {
        match form {
            Form::Struct(fields) => Value::Object(self.fields(fields)),
            Form::Enum(variants) => {
                let (name, form) = &variants[self.one(variants)];
                if *form == Form::Unit { json!(name) } else { json!({ name: self.form(form) }) }
            }
            Form::Tagged { tag, variants } => {
                let (name, fields) = &variants[self.one(variants)];
                let mut object = self.fields(fields);
                object.insert(tag.clone(), json!(name));
                Value::Object(object)
            }
            Form::Either(shapes) => {
                let at = self.one(shapes);
                self.value(&shapes[at])
            }
            other => panic!("{other:?} is not used here"),
        }
    }

    fn value(&mut self, shape: &Shape) -> Value {
        match shape {
            Shape::Bool => json!(true),
            Shape::Integer { bits: 8 | 32, signed: false } => json!(1),
            Shape::Integer { signed, .. } => {
                if *signed {
                    json!(i64::MIN)
                } else {
                    json!(u64::MAX)
                }
            }
            Shape::Float { .. } => json!(0.5),
            Shape::Text => json!("text"),
            Shape::Optional(inner) => self.value(inner),
            Shape::List(Some(inner)) => json!([self.value(inner)]),
            Shape::Map(Some(_)) => json!({ "key": 1 }),
            Shape::Any => json!({ "any": 1 }),
            Shape::Type(at) => self.form(&self.schema.types[*at as usize].form),
            other => panic!("{other:?} is not used here"),
        }
    }
}

/// Checks one shape of a schema against the type that reads and writes it.
#[track_caller]
fn hold<T: Serialize + DeserializeOwned>(schema: &Schema, shape: &Shape) {
    for whole in [true, false] {
        let mut turn = 0;
        loop {
            let mut maker = Maker { schema, whole, turn, most: 1 };
            let value = maker.value(shape);
            let most = maker.most;
            let read: T = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{value}: {error}"));
            let again = serde_json::to_value(&read).unwrap();
            if whole {
                assert_eq!(again, value, "the type knows other fields");
            } else {
                // What was left out may come with its default, and nothing else.
                is_within(&value, &again);
            }
            turn += 1;
            if turn >= most {
                break;
            }
        }
    }
}

#[track_caller]
fn is_within(value: &Value, again: &Value) {
    match (value, again) {
        (Value::Object(value), Value::Object(again)) => {
            value.iter().for_each(|(name, value)| is_within(value, again.get(name).unwrap_or(&Value::Null)));
        }
        (Value::Array(value), Value::Array(again)) => {
            assert_eq!(value.len(), again.len());
            value.iter().zip(again).for_each(|(value, again)| is_within(value, again));
        }
        (value, again) => assert_eq!(value, again),
    }
}

#[test]
fn the_types_read_and_write_what_the_schemas_say() {
    let schema = |name: &str| schema_of(name);
    for name in [CHAT, CHAT_STREAM] {
        hold::<ChatRequest>(&schema(name), &schema(name).request);
    }
    for name in [COMPLETE, COMPLETE_STREAM] {
        hold::<CompletionRequest>(&schema(name), &schema(name).request);
    }
    for name in [CHAT, COMPLETE] {
        hold::<ChatResponse>(&schema(name), &schema(name).answer);
    }
    for name in [CHAT_STREAM, COMPLETE_STREAM, RESUME] {
        hold::<SequencedChunk>(&schema(name), &schema(name).answer);
    }
    hold::<ResumeRequest>(&schema(RESUME), &schema(RESUME).request);
    hold::<CancelRequest>(&schema(CANCEL), &schema(CANCEL).request);
    hold::<CancelReport>(&schema(CANCEL), &schema(CANCEL).answer);
    hold::<EmbedRequest>(&schema(EMBED), &schema(EMBED).request);
    hold::<EmbedResponse>(&schema(EMBED), &schema(EMBED).answer);
    hold::<ModelList>(&schema(MODELS), &schema(MODELS).answer);
    hold::<HealthReport>(&schema(HEALTH), &schema(HEALTH).answer);
}

fn names(fields: &[(String, Shape)]) -> Vec<&str> {
    fields.iter().map(|(name, _)| name.as_str()).collect()
}

fn fields_of<'s>(schema: &'s Schema, name: &str) -> &'s [(String, Shape)] {
    let ty = schema.types.iter().find(|ty| ty.name == name).unwrap();
    let Form::Struct(fields) = &ty.form else { panic!("{ty:?}") };
    fields
}

/// A field that a request's type gains, and nothing writes where it is not set, is none that the test above can miss: the table
/// of known fields has it.
#[test]
fn requests_have_the_fields_that_are_known() {
    for (name, ty, known) in [(CHAT, "ChatRequest", CHAT_REQUEST), (COMPLETE, "CompletionRequest", COMPLETION_REQUEST)]
    {
        let Known::Fields(known) = known else { panic!("{name}") };
        let known: Vec<_> = known.iter().map(|(field, _)| *field).collect();
        assert_eq!(names(fields_of(&schema_of(name), ty)), known);
    }
}

#[test]
fn all_message_types_are_described_and_no_two_answers_are_confused() {
    let schemas: Vec<_> = MESSAGE_TYPES.iter().map(|name| schema_of(name)).collect();
    for schema in &schemas {
        schema.check().unwrap();
        let json = serde_json::to_vec(schema).unwrap();
        assert_eq!(Schema::from_json(&json).unwrap(), *schema);
    }
    let mut hashes: Vec<_> = schemas.iter().map(Schema::hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    // ai.chat and ai.complete differ in what they are given; all differ from each other.
    assert_eq!(hashes.len(), MESSAGE_TYPES.len());
}
