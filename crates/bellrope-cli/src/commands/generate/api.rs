//! What is generated from: the methods of all services with one list of types, whatever order a server has them in.

use std::collections::{BTreeMap, HashMap};

use anyhow::ensure;
use bellrope::{
    client::Style,
    service::{Form, Schema, Shape},
};

use crate::schemas::Described;

/// Most types of all schemas together.
const MOST_TYPES: usize = 4_000;

/// Everything that is generated from.
pub(crate) struct Api {
    /// By name.
    pub(crate) services: Vec<Service>,
    /// What the methods name by its place in here.
    pub(crate) types: Vec<Named>,
}

/// The methods that have one name before their last dot.
pub(crate) struct Service {
    pub(crate) name: String,
    /// By name.
    pub(crate) methods: Vec<Method>,
}

/// A method. Its shapes name types of the [`Api`].
pub(crate) struct Method {
    /// Behind the dot.
    pub(crate) name: String,
    /// On the wire.
    pub(crate) wire: String,
    pub(crate) style: Style,
    pub(crate) codec: String,
    pub(crate) hash: u64,
    pub(crate) arguments: Arguments,
    pub(crate) answer: Shape,
    /// Its own error, if it answers with a `Result`.
    pub(crate) error: Option<Shape>,
    /// Each item that its caller sends.
    pub(crate) sent: Shape,
}

/// What a method is given first.
pub(crate) enum Arguments {
    /// By name.
    Fields(Vec<(String, Shape)>),
    /// One value.
    Whole(Shape),
}

/// A type. Two may have one name.
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) form: Form,
}

impl Api {
    /// Puts the methods together. Types that are the same in several of them are one.
    pub(crate) fn new(described: BTreeMap<String, Described>) -> anyhow::Result<Self> {
        let count: usize = described.values().map(|method| method.schema.types.len()).sum();
        ensure!(count <= MOST_TYPES, "the schemas have {count} types, and at most {MOST_TYPES} together");
        let mut found = BTreeMap::new();
        let keys: Vec<_> = described.values().map(|method| note(&method.schema, &mut found)).collect();
        let places: HashMap<_, _> = found.keys().cloned().zip(0_u32..).collect();
        // Each of them was noted with its schema, whose own places it has.
        let types = found.into_iter().map(|((name, _), (form, keys))| {
            let moved = Moved { places: &places, keys: &keys };
            Named { name, form: moved.form(&form) }
        });
        let types = types.collect();
        let mut services: BTreeMap<String, Vec<Method>> = BTreeMap::new();
        for ((wire, Described { style, schema }), keys) in described.into_iter().zip(keys) {
            let (service, name) = wire.rsplit_once('.').unwrap_or(("", &wire));
            let moved = Moved { places: &places, keys: &keys };
            let (answer, error) = match schema.outcome() {
                Some((answer, error)) => (answer, Some(moved.shape(error))),
                None => (&schema.answer, None),
            };
            services.entry(service.to_owned()).or_default().push(Method {
                name: name.to_owned(),
                style,
                hash: schema.hash(),
                arguments: arguments(&schema, &moved),
                answer: moved.shape(answer),
                error,
                sent: moved.shape(&schema.sent),
                codec: schema.codec,
                wire,
            });
        }
        let services = services.into_iter().map(|(name, methods)| Service { name, methods }).collect();
        Ok(Self { services, types })
    }

    /// Whether a type is nothing but itself, or nothing at all: a name for it would stand for itself.
    pub(crate) fn is_empty_circle(&self, start: usize) -> bool {
        let mut at = start;
        for _ in 0..=self.types.len() {
            let mut shape = match &self.types[at].form {
                Form::Newtype(shape) => shape,
                _ => return false,
            };
            while let Shape::Optional(inner) = shape {
                shape = inner;
            }
            match shape {
                Shape::Type(next) => at = *next as usize,
                _ => return false,
            }
        }
        true
    }
}

fn arguments(schema: &Schema, moved: &Moved<'_>) -> Arguments {
    match &schema.request {
        Shape::Type(at) => match &schema.types[*at as usize].form {
            Form::Struct(fields) if are_clear(fields) => {
                Arguments::Fields(fields.iter().map(|(name, shape)| (name.clone(), moved.shape(shape))).collect())
            }
            _ => Arguments::Whole(moved.shape(&schema.request)),
        },
        whole => Arguments::Whole(moved.shape(whole)),
    }
}

/// Whether each field has its own name: where one has several, a schema does not say which is whose.
fn are_clear(fields: &[(String, Shape)]) -> bool {
    !fields.iter().any(|(name, _)| name.contains('|') && name.contains('#'))
}

/// What tells types apart: their name and all that they are made of.
type Key = (String, String);

/// Types by what tells them apart, each with the keys of all types of its schema.
type FoundTypes = BTreeMap<Key, (Form, Vec<Key>)>;

/// Notes the types that a method needs, beside what it is given and whether it succeeds. Answers with the keys of all.
fn note(schema: &Schema, found: &mut FoundTypes) -> Vec<Key> {
    let names: Vec<_> = (0..schema.types.len()).map(|at| own_name(schema, at)).collect();
    let keys: Vec<Key> = (0..schema.types.len())
        .map(|at| {
            let mut writing = Writing { schema, names: &names, seen: HashMap::new(), text: String::new() };
            writing.named(at as u32);
            (names[at].clone(), writing.text)
        })
        .collect();
    let mut needed = Needed { schema, seen: vec![false; schema.types.len()] };
    match (&schema.request, arguments(schema, &Moved { places: &HashMap::new(), keys: &keys })) {
        (Shape::Type(at), Arguments::Fields(_)) => needed.form(&schema.types[*at as usize].form),
        (whole, _) => needed.shape(whole),
    }
    match schema.outcome() {
        Some((answer, error)) => [answer, error].into_iter().for_each(|shape| needed.shape(shape)),
        None => needed.shape(&schema.answer),
    }
    needed.shape(&schema.sent);
    for (at, _) in needed.seen.iter().enumerate().filter(|(_, needed)| **needed) {
        found.entry(keys[at].clone()).or_insert_with(|| (schema.types[at].form.clone(), keys.clone()));
    }
    keys
}

/// The name that a type has in its sources: a schema tells two of one name apart by a number.
fn own_name(schema: &Schema, at: usize) -> String {
    let name = &schema.types[at].name;
    let base = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let numbered = base.len() < name.len() && schema.types[..at].iter().any(|earlier| earlier.name == base);
    if numbered { base.to_owned() } else { name.clone() }
}

/// Marks the types that a shape needs.
struct Needed<'s> {
    schema: &'s Schema,
    seen: Vec<bool>,
}

impl Needed<'_> {
    fn form(&mut self, form: &Form) {
        each_shape(form, &mut |shape| self.shape(shape));
    }

    fn shape(&mut self, shape: &Shape) {
        let mut open = Vec::new();
        each_type(shape, &mut |at| open.push(at as usize));
        while let Some(at) = open.pop() {
            if !std::mem::replace(&mut self.seen[at], true) {
                each_shape(&self.schema.types[at].form, &mut |shape| {
                    each_type(shape, &mut |at| open.push(at as usize));
                });
            }
        }
    }
}

/// Calls for the shapes that a form is made of.
fn each_shape(form: &Form, call: &mut dyn FnMut(&Shape)) {
    match form {
        Form::Newtype(shape) => call(shape),
        Form::Tuple(shapes) => shapes.iter().for_each(call),
        Form::Struct(fields) => fields.iter().for_each(|(_, shape)| call(shape)),
        Form::Enum(variants) => variants.iter().for_each(|(_, form)| each_shape(form, call)),
        Form::Tagged { variants, .. } => {
            variants.iter().flat_map(|(_, fields)| fields).for_each(|(_, shape)| call(shape));
        }
        Form::Either(shapes) => shapes.iter().for_each(call),
        _ => {}
    }
}

/// Calls for the types in a shape.
fn each_type(shape: &Shape, call: &mut dyn FnMut(u32)) {
    match shape {
        Shape::Type(at) => call(*at),
        Shape::Optional(inner) | Shape::List(Some(inner)) => each_type(inner, call),
        Shape::Map(Some(entry)) => {
            each_type(&entry.0, call);
            each_type(&entry.1, call);
        }
        Shape::Tuple(shapes) => shapes.iter().for_each(|shape| each_type(shape, call)),
        _ => {}
    }
}

/// Writes all that a type is made of, in which types are named by when they came first.
struct Writing<'s> {
    schema: &'s Schema,
    names: &'s [String],
    seen: HashMap<u32, usize>,
    text: String,
}

impl Writing<'_> {
    fn named(&mut self, start: u32) {
        let mut open = vec![start];
        self.seen.insert(start, 0);
        let mut next = 0;
        while let Some(at) = open.get(next).copied() {
            next += 1;
            let ty = &self.schema.types[at as usize];
            let moved = self.form(&ty.form, &mut open);
            self.text.push_str(&format!("{}={moved:?};", self.names[at as usize]));
        }
    }

    fn form(&mut self, form: &Form, open: &mut Vec<u32>) -> Form {
        map_form(form, &mut |at| {
            let count = self.seen.len();
            let place = *self.seen.entry(at).or_insert(count);
            if place == count {
                open.push(at);
            }
            Shape::Type(place as u32)
        })
    }
}

/// Where the types of a schema are in the list of all.
struct Moved<'a> {
    places: &'a HashMap<Key, u32>,
    keys: &'a [Key],
}

impl Moved<'_> {
    fn shape(&self, shape: &Shape) -> Shape {
        map_shape(shape, &mut |at| self.place(at))
    }

    fn form(&self, form: &Form) -> Form {
        match form {
            Form::Struct(fields) if !are_clear(fields) => Form::Newtype(Shape::Any),
            form => map_form(form, &mut |at| self.place(at)),
        }
    }

    fn place(&self, at: u32) -> Shape {
        self.places.get(&self.keys[at as usize]).map_or(Shape::Any, |place| Shape::Type(*place))
    }
}

fn map_form(form: &Form, place: &mut dyn FnMut(u32) -> Shape) -> Form {
    match form {
        Form::Newtype(shape) => Form::Newtype(map_shape(shape, place)),
        Form::Tuple(shapes) => Form::Tuple(shapes.iter().map(|shape| map_shape(shape, place)).collect()),
        Form::Struct(fields) => Form::Struct(map_fields(fields, place)),
        Form::Tagged { tag, variants } => Form::Tagged {
            tag: tag.clone(),
            variants: variants.iter().map(|(name, fields)| (name.clone(), map_fields(fields, place))).collect(),
        },
        Form::Either(shapes) => Form::Either(shapes.iter().map(|shape| map_shape(shape, place)).collect()),
        Form::Enum(variants) => {
            Form::Enum(variants.iter().map(|(name, form)| (name.clone(), map_form(form, place))).collect())
        }
        _ => Form::Unit,
    }
}

fn map_fields(fields: &[(String, Shape)], place: &mut dyn FnMut(u32) -> Shape) -> Vec<(String, Shape)> {
    fields.iter().map(|(name, shape)| (name.clone(), map_shape(shape, place))).collect()
}

fn map_shape(shape: &Shape, place: &mut dyn FnMut(u32) -> Shape) -> Shape {
    match shape {
        Shape::Type(at) => place(*at),
        Shape::Optional(inner) => Shape::Optional(Box::new(map_shape(inner, place))),
        Shape::List(inner) => Shape::List(inner.as_ref().map(|inner| Box::new(map_shape(inner, place)))),
        Shape::Map(entry) => {
            Shape::Map(entry.as_ref().map(|entry| Box::new((map_shape(&entry.0, place), map_shape(&entry.1, place)))))
        }
        Shape::Tuple(shapes) => Shape::Tuple(shapes.iter().map(|shape| map_shape(shape, place)).collect()),
        shape => shape.clone(),
    }
}
