//! Types that ask what comes next, which no codec without names says.

use super::{
    super::codec::{CodecError, Step as Within},
    contents::Kind,
    found::Found,
    steps::{Place, Step},
};

/// What asks and by which attribute, as far as the names of what reads it tell. `for_a_name` if it is the name of a field.
pub(super) fn words(visitor: &str, value: &str, for_a_name: bool, path: &[Step]) -> String {
    let attribute = if for_a_name {
        // The fields of a struct with others inside are read as those of a map.
        let is_key = matches!(path, [.., Step::May, Step::Part(0)]);
        if is_key { "#[serde(flatten)]" } else { "#[serde(tag)]" }
    } else if visitor.contains("TaggedContent") {
        "#[serde(tag)]"
    } else if visitor.contains("ContentVisitor") {
        "#[serde(untagged)]"
    } else {
        return format!("{} asks what comes next", last_name(value));
    };
    match owner(value) {
        Some(owner) => format!("{owner} asks what comes next ({attribute})"),
        None => format!("the type asks what comes next ({attribute})"),
    }
}

/// The type whose fields or variants these are: what serde derives for a type is inside of an `impl` for it.
fn owner(value: &str) -> Option<&str> {
    let (_, owner) = value.split_once(" for ")?;
    let end = owner.find(['<', '>']).unwrap_or(owner.len());
    Some(last_name(&owner[..end]))
}

fn last_name(path: &str) -> &str {
    let end = path.find('<').unwrap_or(path.len());
    path[..end].rsplit("::").next().unwrap_or(path)
}

impl Found {
    /// The error that such a type is.
    #[cold]
    pub(super) fn asks(&self, asked: &str) -> CodecError {
        let error = CodecError::new(format_args!("{asked}, which only a codec with names says; use json"));
        self.steps_to_it().into_iter().rev().fold(error, CodecError::within)
    }

    /// The steps to what was read last, as its author would say them.
    fn steps_to_it(&self) -> Vec<Within> {
        let (mut steps, mut place, mut is_inside): (_, Option<Place>, _) = (Vec::new(), None, false);
        for step in &self.path {
            let was_inside = std::mem::replace(&mut is_inside, *step == Step::May);
            match step {
                Step::Type(at) => place = Some((*at, None)),
                Step::Variant(variant) => {
                    let Some((at, _)) = place else { continue };
                    place = Some((at, Some(*variant)));
                    let name = self.known[at].variants.get(*variant).map(|variant| variant.name.clone());
                    steps.extend(name.map(|name| Within::Name(name.into())));
                }
                Step::Part(part) => match place.take().map(|place| self.seen(place).map(|(kind, _)| kind)) {
                    Some(Some(Kind::Struct(names))) => {
                        steps.extend(names.get(*part).map(|name| Within::Name((*name).into())));
                    }
                    Some(Some(Kind::Tuple(_))) => steps.push(Within::Index(*part)),
                    None if !was_inside && *part != usize::MAX => steps.push(Within::Index(*part)),
                    _ => {}
                },
                Step::May => {}
            }
        }
        steps
    }
}
