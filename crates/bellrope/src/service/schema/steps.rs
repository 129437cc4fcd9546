//! Where in a value something stands.

use std::collections::HashSet;

/// One step into a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Step {
    Type(usize),
    Variant(usize),
    Part(usize),
    /// Into an option, a list or a map, which may have nothing in it.
    May,
}

/// A type, or one of its variants.
pub(super) type Place = (usize, Option<usize>);

/// Where something stands inside of the innermost type around it: elsewhere in values it is the same.
pub(super) fn inside_of_its_type(path: &[Step]) -> &[Step] {
    let begin = path.iter().rposition(|step| matches!(step, Step::Type(_))).unwrap_or(0);
    &path[begin..]
}

/// A set of such places.
pub(super) type Places = HashSet<Vec<Step>>;
