//! What a type announces when a value of it is written, beside what it asks for when one is read.

use super::{
    super::codec::{CodecError, Step},
    contents::Kind,
    found::Found,
    model::Shape,
    steps::Place,
    writing::Said,
};

/// Whether what was written is what is read: the same fields in the same order, and as many parts. With a codec without names a
/// reader would take one for the other.
///
/// `is_full` tells that nothing was left out for being empty, but the last part of a tuple at the most.
pub(super) fn compare(found: &mut Found, shape: &Shape, said: &Said, looks: Looks) -> Result<(), CodecError> {
    Comparison { found, looks }.shape(shape, said)
}

/// What a value was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looks {
    /// Of what is something.
    Full,
    /// Of what types may leave out, but for the last parts of tuples.
    Empty,
}

struct Comparison<'f> {
    found: &'f mut Found,
    looks: Looks,
}

impl Comparison<'_> {
    fn shape(&mut self, shape: &Shape, said: &Said) -> Result<(), CodecError> {
        match (shape, said) {
            (Shape::Type(at), said) => self.typed(*at as usize, said),
            (Shape::Optional(inner), Said::Some(said)) => self.shape(inner, said),
            (Shape::List(Some(inner)), Said::List(said)) => self.each(said.iter().map(|said| (&**inner, said))),
            (Shape::Map(Some(entry)), Said::Map(said)) => {
                let parts = [&entry.0, &entry.1];
                said.chunks(2).try_for_each(|entry| self.each(parts.into_iter().zip(entry)))
            }
            (Shape::Tuple(shapes), Said::Parts { parts, .. }) => {
                if shapes.len() != parts.len() && !self.found.named {
                    return Err(parts_left_out("a tuple", shapes.len(), parts.len()));
                }
                self.each(shapes.iter().zip(parts))
            }
            (Shape::Integer { .. } | Shape::Float { .. }, Said::Plain(written))
                if !self.found.named && !is_read_as(written, shape) =>
            {
                Err(another_number(written, shape))
            }
            (shape, said) if !self.found.named => self.kinds(shape, said),
            _ => Ok(()),
        }
    }

    /// Whether what is written is of the kind that is read, as far as that can be told.
    fn kinds(&self, shape: &Shape, said: &Said) -> Result<(), CodecError> {
        match (self.kind_of_shape(shape, 0), kind_of_said(said)) {
            (Some(read), Some(written)) if read != written => Err(another_kind(written, read)),
            _ => Ok(()),
        }
    }

    fn kind_of_shape(&self, shape: &Shape, depth: usize) -> Option<&'static str> {
        let Shape::Type(at) = shape else { return kind_of_plain(shape) };
        // An enum may be written as its number, and a type without a name for it as what is in it.
        match self.found.seen((*at as usize, None))? {
            (Kind::Newtype, [Some(inner)]) if depth < MOST_DEPTH => self.kind_of_shape(inner, depth + 1),
            (Kind::Tuple(2..), _) => Some(PARTS),
            (Kind::Struct(names), _) if names.len() > 1 => Some(PARTS),
            _ => None,
        }
    }

    fn each<'s>(&mut self, parts: impl IntoIterator<Item = (&'s Shape, &'s Said)>) -> Result<(), CodecError> {
        parts.into_iter().enumerate().try_for_each(|(index, (shape, said))| {
            self.shape(shape, said).map_err(|error| error.within(Step::Index(index)))
        })
    }

    fn typed(&mut self, at: usize, said: &Said) -> Result<(), CodecError> {
        let Said::Variant { number, name, inside } = said else {
            if !self.found.named {
                self.kinds(&Shape::Type(at as u32), said)?;
            }
            return self.contents((at, None), said);
        };
        self.found.variant_is_written(at, *number, name);
        if let Some(read) = self.found.variant_is_read(at, *number as usize).filter(|_| !self.found.named) {
            if read != Some(*name) {
                let read = read.map_or_else(|| "not read at all".to_owned(), |read| format!("read as {read}"));
                let ty = self.found.name((at, None));
                return Err(CodecError::new(format_args!(
                    "the variant {ty}.{name} is {read} (#[serde(skip)], skip_deserializing, or rename for one side only?); \
                     put variants that are skipped last"
                )));
            }
        }
        self.contents((at, Some(*number as usize)), inside).map_err(|error| error.in_field(*name))
    }

    fn contents(&mut self, place: Place, said: &Said) -> Result<(), CodecError> {
        let Some((kind, parts)) = self.found.seen(place) else { return Ok(()) };
        let shapes: Vec<_> = parts.iter().map(|part| part.clone().unwrap_or(Shape::Any)).collect();
        match (kind, said) {
            (Kind::Newtype, said) => shapes.first().map_or(Ok(()), |shape| self.shape(shape, said)),
            (Kind::Tuple(due), Said::Parts { parts, .. }) => {
                if self.leaves_out(place, due, parts.len()) {
                    return Err(parts_left_out(&self.found.name(place), due, parts.len()));
                }
                self.each(shapes.iter().zip(parts))
            }
            (Kind::Struct(read), Said::Parts { names, parts }) => {
                self.fields(place, read, shapes.len(), names)?;
                names.iter().zip(parts).try_for_each(|(name, said)| {
                    let at = if read.len() == shapes.len() { read.iter().position(|read| read == name) } else { None };
                    let shape = at.and_then(|at| shapes.get(at));
                    shape.map_or(Ok(()), |shape| self.shape(shape, said)).map_err(|error| error.in_field(*name))
                })
            }
            _ => Ok(()),
        }
    }

    /// Whether a tuple lacks parts, so that others would move up. With names, one that comes short at its end is read as it was
    /// meant.
    fn leaves_out(&mut self, place: Place, due: usize, written: usize) -> bool {
        if !self.found.named {
            return written != due;
        }
        let most = self.found.most_written(place, written);
        self.looks == Looks::Empty && written < most
    }

    fn fields(
        &mut self,
        place: Place,
        read: &[&'static str],
        count: usize,
        written: &[&'static str],
    ) -> Result<(), CodecError> {
        if !self.found.named {
            let ty = || self.found.name(place);
            if let Some(name) = written.iter().find(|name| !read.contains(name)) {
                return Err(CodecError::new(format_args!(
                    "the field {}.{name} is written and never read (#[serde(skip_deserializing)], tag, or rename for one side \
                     only?), so that the next one would be read in its place",
                    ty()
                )));
            }
            let unwritten = read.iter().find(|name| !written.contains(name));
            if let Some(name) = unwritten.filter(|_| written.len() < count) {
                return Err(CodecError::new(format_args!(
                    "the field {}.{name} is read and never written (#[serde(skip_serializing)]?), so that the next one would be \
                     read in its place",
                    ty()
                )));
            }
            let places: Vec<_> = written.iter().filter_map(|name| read.iter().position(|read| read == name)).collect();
            if !places.is_sorted() {
                return Err(CodecError::new(format_args!(
                    "the fields of {} are written in another order than read",
                    ty()
                )));
            }
        }
        if read.len() > count {
            self.found.fields_are_written(place, written.to_vec());
        }
        Ok(())
    }
}

/// Newtypes within newtypes that are looked through.
const MOST_DEPTH: usize = 16;

const PARTS: &str = "several parts";
const MANY: &str = "a text, bytes or a list";

/// What travels alike has one kind.
fn kind_of_plain(shape: &Shape) -> Option<&'static str> {
    match shape {
        Shape::Unit => Some("nothing"),
        Shape::Bool | Shape::Integer { .. } => Some("a number"),
        Shape::Float { .. } => Some("a floating-point number"),
        Shape::Char | Shape::Text | Shape::Bytes | Shape::List(_) | Shape::Map(_) => Some(MANY),
        Shape::Optional(_) => Some("an option"),
        Shape::Tuple(parts) if parts.len() > 1 => Some(PARTS),
        Shape::Tuple(_) | Shape::Type(_) | Shape::Any => None,
    }
}

fn kind_of_said(said: &Said) -> Option<&'static str> {
    match said {
        Said::Plain(shape) => kind_of_plain(shape),
        Said::None | Said::Some(_) => Some("an option"),
        Said::List(_) | Said::Map(_) => Some(MANY),
        Said::Parts { parts, .. } if parts.len() > 1 => Some(PARTS),
        Said::LeftOut | Said::Parts { .. } | Said::Variant { .. } => None,
    }
}

#[cold]
fn another_kind(written: &str, read: &str) -> CodecError {
    CodecError::new(format_args!(
        "it is written as {written} and read as {read} (#[serde(serialize_with)], deserialize_with, into or from that is unlike the \
         other side?)"
    ))
}

/// Whether a number that is written so is read so, whatever it is.
fn is_read_as(written: &Shape, read: &Shape) -> bool {
    match (written, read) {
        (Shape::Integer { signed: one, bits: written }, Shape::Integer { signed: two, bits: read }) => {
            one == two && (written == read || (*written > 8 && written < read))
        }
        (Shape::Float { bits: written }, Shape::Float { bits: read }) => written == read,
        _ => true,
    }
}

#[cold]
fn another_number(written: &Shape, read: &Shape) -> CodecError {
    let words = |shape: &Shape| match shape {
        Shape::Integer { signed, bits } => format!("{}{bits}", if *signed { "i" } else { "u" }),
        Shape::Float { bits } => format!("f{bits}"),
        _ => "something else".to_owned(),
    };
    let (written, read) = (words(written), words(read));
    CodecError::new(format_args!("it is written as {written} and read as {read} (an unlike #[serde(serialize_with)]?)"))
}

#[cold]
fn parts_left_out(ty: &str, due: usize, written: usize) -> CodecError {
    CodecError::new(format_args!(
        "{ty} is written with {written} of its {due} parts (#[serde(skip_serializing_if)], skip_serializing or \
         skip_deserializing on a field without a name?), so that the next ones would be read in their place"
    ))
}
