//! What was found, as a schema lists it.

use std::collections::HashMap;

use super::{
    super::codec::CodecError,
    contents::Kind,
    found::{Found, Traced},
    model::{Form, Shape, Type},
    steps::Place,
    ways::each_type,
};

impl Found {
    /// All types that were found, each where these shapes and the types before first name it, so that the order is the same
    /// however they were found. `None` if something about them is left open.
    pub(super) fn types(self, shapes: [&mut Shape; 3]) -> Option<Vec<Type>> {
        let names: Vec<_> = self.known.iter().map(|traced| (traced.name, traced.first)).collect();
        let mut forms = self.known.into_iter().map(form).collect::<Option<Vec<_>>>()?;
        let same = same(&names, &forms);
        let mut order = Order { forms: &forms, same: &same, places: vec![None; forms.len()], listed: Vec::new() };
        shapes.iter().for_each(|shape| order.add(shape));
        (0..forms.len()).for_each(|at| order.add(&Shape::Type(at as u32)));
        let Order { places, listed, .. } = order;
        let places = same.iter().map(|same| places[*same]).collect::<Option<Vec<_>>>()?;
        for shape in shapes {
            renumber(shape, &places);
        }
        let mut taken: HashMap<&str, usize> = HashMap::new();
        let mut types = Vec::new();
        for at in listed {
            let (name, mut form) = (names[at].0, std::mem::replace(&mut forms[at], Form::Unit));
            each_shape(&mut form, &mut |shape| renumber(shape, &places));
            let count = taken.entry(name).or_default();
            *count += 1;
            let name = if *count == 1 { name.to_owned() } else { format!("{name}{count}") };
            types.push(Type { name, form });
        }
        Some(types)
    }

    /// Why something was never read, which travels without a name. A codec that sends no names cannot tell it from something
    /// else.
    pub(super) fn check_all_was_read(&self, shapes: &[(&'static str, &Shape)]) -> Result<(), CodecError> {
        for (name, shape) in shapes {
            self.check_shape(name, shape)?;
        }
        for (at, traced) in self.known.iter().enumerate() {
            let variants = (0..traced.variants.len()).map(|variant| (at, Some(variant)));
            for place in variants.chain([(at, None)]) {
                self.check_parts(place)?;
            }
        }
        Ok(())
    }

    fn check_parts(&self, place: Place) -> Result<(), CodecError> {
        let Some((kind, parts)) = self.seen(place) else { return Ok(()) };
        if matches!(kind, Kind::Tuple(_)) {
            let parts: Vec<_> = parts.iter().map(|part| part.as_ref().unwrap_or(&Shape::Any)).collect();
            self.check_tuple(&parts, |part| self.part_name(place, part))?;
        }
        let mut parts = parts.iter().enumerate().filter_map(|(at, part)| Some((at, part.as_ref()?)));
        parts.try_for_each(|(at, part)| self.check_shape(&self.part_name(place, at), part))
    }

    fn check_tuple(&self, parts: &[&Shape], name: impl Fn(usize) -> String) -> Result<(), CodecError> {
        // Where there is no value of a part, there is none of the whole.
        let is_never = |shape: &Shape| matches!(shape, Shape::Type(at) if self.known[*at as usize].is_never);
        match (1..parts.len()).find(|at| *parts[*at] == Shape::Any && !is_never(parts[at - 1])) {
            Some(at) => Err(unread(&name(at), &name(at - 1))),
            None => Ok(()),
        }
    }

    fn check_shape(&self, name: &str, shape: &Shape) -> Result<(), CodecError> {
        match shape {
            Shape::Optional(inner) => self.check_shape(name, inner),
            Shape::List(inner) => inner.as_ref().map_or(Ok(()), |inner| self.check_shape(&format!("{name}[]"), inner)),
            Shape::Map(entry) => entry.as_ref().map_or(Ok(()), |entry| {
                let (key, value) = (format!("{name}[key]"), format!("{name}[]"));
                self.check_tuple(&[&entry.0, &entry.1], |at| if at == 0 { key.clone() } else { value.clone() })?;
                self.check_shape(&key, &entry.0)?;
                self.check_shape(&value, &entry.1)
            }),
            Shape::Tuple(parts) => {
                self.check_tuple(&parts.iter().collect::<Vec<_>>(), |at| format!("{name}.{at}"))?;
                let mut parts = parts.iter().enumerate();
                parts.try_for_each(|(at, part)| self.check_shape(&format!("{name}.{at}"), part))
            }
            _ => Ok(()),
        }
    }
}

/// What a type is made of, if that is known.
fn form(traced: Traced) -> Option<Form> {
    if traced.is_never {
        return Some(Form::Enum(Vec::new()));
    }
    if traced.variants.is_empty() {
        return Some(traced.contents?.form());
    }
    let variants = traced.variants.into_iter().map(|variant| Some((variant.name, variant.contents?.form())));
    Some(Form::Enum(variants.collect::<Option<_>>()?))
}

/// For each type the first that is the same, mostly itself. Of types of the same names those are the same that are made of the
/// same: the compiler may have made several functions that read one.
fn same(names: &[(&'static str, usize)], forms: &[Form]) -> Vec<usize> {
    let mut twins: HashMap<usize, Vec<usize>> = HashMap::new();
    for (at, (_, first)) in names.iter().enumerate() {
        twins.entry(*first).or_default().push(at);
    }
    twins.retain(|_, twins| twins.len() > 1);
    // All of the same names are taken for the same at first; each round tells those apart that are made of what was told apart.
    let mut same: Vec<_> = names.iter().map(|(_, first)| *first as u32).collect();
    loop {
        let mut next = same.clone();
        for twins in twins.values() {
            let mut known: Vec<(usize, Form)> = Vec::new();
            for at in twins {
                let mut form = forms[*at].clone();
                each_shape(&mut form, &mut |shape| renumber(shape, &same));
                let first = known.iter().find(|(_, known)| *known == form).map(|(first, _)| *first);
                next[*at] = first.unwrap_or(*at) as u32;
                if first.is_none() {
                    known.push((*at, form));
                }
            }
        }
        if next == same {
            return next.into_iter().map(|at| at as usize).collect();
        }
        same = next;
    }
}

/// Types in the order in which they are named.
struct Order<'f> {
    forms: &'f [Form],
    same: &'f [usize],
    places: Vec<Option<u32>>,
    listed: Vec<usize>,
}

impl Order<'_> {
    fn add(&mut self, shape: &Shape) {
        let mut next = Vec::new();
        each_type(shape, &mut |at| next.push(at));
        next.reverse();
        while let Some(at) = next.pop() {
            let at = self.same[at];
            if self.places[at].is_some() {
                continue;
            }
            self.places[at] = Some(self.listed.len() as u32);
            self.listed.push(at);
            let inside = next.len();
            each_type_in(&self.forms[at], &mut |at| next.push(at));
            next[inside..].reverse();
        }
    }
}

fn each_type_in(form: &Form, found: &mut impl FnMut(usize)) {
    match form {
        Form::Newtype(shape) => each_type(shape, found),
        Form::Tuple(shapes) => shapes.iter().for_each(|shape| each_type(shape, found)),
        Form::Struct(fields) => fields.iter().for_each(|(_, shape)| each_type(shape, found)),
        Form::Enum(variants) => variants.iter().for_each(|(_, form)| each_type_in(form, &mut *found)),
        _ => {}
    }
}

fn renumber(shape: &mut Shape, places: &[u32]) {
    match shape {
        Shape::Optional(inner) => renumber(inner, places),
        Shape::List(inner) => inner.iter_mut().for_each(|inner| renumber(inner, places)),
        Shape::Map(entry) => entry.iter_mut().for_each(|entry| {
            renumber(&mut entry.0, places);
            renumber(&mut entry.1, places);
        }),
        Shape::Tuple(parts) => parts.iter_mut().for_each(|part| renumber(part, places)),
        Shape::Type(at) => *at = places.get(*at as usize).copied().unwrap_or(*at),
        _ => {}
    }
}

fn each_shape(form: &mut Form, change: &mut impl FnMut(&mut Shape)) {
    match form {
        Form::Newtype(shape) => change(shape),
        Form::Tuple(shapes) => shapes.iter_mut().for_each(change),
        Form::Struct(fields) => fields.iter_mut().for_each(|(_, shape)| change(shape)),
        Form::Enum(variants) => variants.iter_mut().for_each(|(_, form)| each_shape(form, &mut *change)),
        _ => {}
    }
}

#[cold]
fn unread(part: &str, before: &str) -> CodecError {
    CodecError::new(format_args!(
        "{part} is never read when types are compared, since {before} takes none of the values that are tried, and without \
         names another version's could be read in its place; put {before} last, give both a name in a struct, name a value that it takes \
         with #[bellrope::service(samples(\"...\"))], or use json"
    ))
}
