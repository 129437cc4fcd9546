//! What is generated from: the methods of all services with one list of types, whatever order a server has them in.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

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
        let types = found.into_iter().map(|((name, ..), (form, keys))| {
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

/// What tells types apart: their name, their own form, and a number for all that they are made of. Types of one name have their
/// order by it.
type Key = (String, String, u128);

/// Types by what tells them apart, each with the keys of all types of its schema.
type FoundTypes = BTreeMap<Key, (Form, Rc<[Key]>)>;

/// Notes the types that a method needs, beside what it is given and whether it succeeds. Answers with the keys of all.
fn note(schema: &Schema, found: &mut FoundTypes) -> Rc<[Key]> {
    let names: Vec<_> = (0..schema.types.len()).map(|at| own_name(schema, at)).collect();
    let outlines: Vec<_> = schema.types.iter().zip(&names).map(|(ty, name)| Outline::of(name, &ty.form)).collect();
    let keys: Rc<[Key]> =
        names.into_iter().enumerate().map(|(at, name)| (name, own_form(schema, at), number(&outlines, at))).collect();
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
        found.entry(keys[at].clone()).or_insert_with(|| (schema.types[at].form.clone(), Rc::clone(&keys)));
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

/// The form of a type, in which types are named by when they came first.
fn own_form(schema: &Schema, start: usize) -> String {
    let mut seen = HashMap::from([(start as u32, 0)]);
    let form = map_form(&schema.types[start].form, &mut |at| {
        let count = seen.len() as u32;
        Shape::Type(*seen.entry(at).or_insert(count))
    });
    format!("{form:?}")
}

/// A type without those that it names.
struct Outline {
    number: u128,
    /// Those that it names, in order.
    named: Vec<u32>,
}

impl Outline {
    fn of(name: &str, form: &Form) -> Self {
        let mut named = Vec::new();
        let form = map_form(form, &mut |at| {
            named.push(at);
            Shape::Type(0)
        });
        let text = format!("{name}={form:?}");
        Self { number: text.bytes().fold(BASIS, |number, byte| mixed(number, u128::from(byte))), named }
    }
}

/// A number for all that a type is made of, in which types are named by when they came first.
fn number(outlines: &[Outline], start: usize) -> u128 {
    let mut places = vec![None; outlines.len()];
    let mut open = vec![start];
    places[start] = Some(0);
    let (mut number, mut next) = (BASIS, 0);
    while let Some(at) = open.get(next).copied() {
        next += 1;
        number = mixed(number, outlines[at].number);
        for named in &outlines[at].named {
            let named = *named as usize;
            let place = *places[named].get_or_insert_with(|| {
                open.push(named);
                open.len() - 1
            });
            number = mixed(number, place as u128);
        }
    }
    number
}

/// FNV-1a of 128 bits, with both halves of each step in the next: the same wherever and whenever something is generated. It tells
/// types apart, not forgeries; a server may say of itself what it likes.
fn mixed(number: u128, more: u128) -> u128 {
    let number = (number ^ more).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    number ^ (number >> 64)
}

const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;

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

#[cfg(test)]
mod tests {
    use bellrope::service::Type;

    use super::*;

    #[test]
    fn types_that_all_name_one_another_take_no_more_than_their_schema_has() {
        let count = 2_000;
        let field = |name: &str, at: u32| (name.to_owned(), Shape::List(Some(Box::new(Shape::Type(at % count)))));
        let types = (0..count).map(|at| {
            let form = Form::Struct(vec![field("a", at + 1), field("b", at + 7), field("c", at * 3)]);
            Type { name: format!("T{at}"), form }
        });
        let (codec, sent) = ("json".to_owned(), Shape::Unit);
        let schema = Schema { codec, request: Shape::Unit, answer: Shape::Type(0), sent, types: types.collect() };
        let mut found = FoundTypes::new();
        let keys = note(&schema, &mut found);
        assert_eq!((keys.len(), found.len()), (2_000, 2_000));
        assert!(found.values().all(|(_, shared)| Rc::ptr_eq(shared, &keys)), "the keys are there once");
    }
}
