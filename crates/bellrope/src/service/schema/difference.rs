//! What two schemas say differently, in words.

use std::{collections::HashSet, fmt::Write as _};

use super::model::{Form, Schema, Shape};

/// Most differences that are named.
const MOST: usize = 8;

/// The differences, the outermost first, as far as there is room for them.
pub(crate) fn between(here: &Schema, there: &Schema) -> String {
    let mut comparison = Comparison { here, there, found: Vec::new(), seen: HashSet::new() };
    comparison.shapes("arguments", &here.request, &there.request);
    comparison.shapes("answer", &here.answer, &there.answer);
    comparison.shapes("sent", &here.sent, &there.sent);
    let mut words = comparison.found.iter().take(MOST).cloned().collect::<Vec<_>>().join("; ");
    if comparison.found.len() > MOST {
        let _ = write!(words, "; and {} more", comparison.found.len() - MOST);
    }
    match (here.types.len(), there.types.len()) {
        _ if !words.is_empty() => words,
        (one, two) if one != two => {
            format!("all has the same form, but is made of {one} types here and of {two} there")
        }
        _ => "they differ in something that their descriptions do not show".to_owned(),
    }
}

struct Comparison<'s> {
    here: &'s Schema,
    there: &'s Schema,
    found: Vec<String>,
    /// Pairs of types that were compared, so that none that contains itself is followed for ever.
    seen: HashSet<(u32, u32)>,
}

impl Comparison<'_> {
    fn shapes(&mut self, place: &str, here: &Shape, there: &Shape) {
        match (here, there) {
            (Shape::Type(here_at), Shape::Type(there_at)) => {
                let types = (self.here.types.get(*here_at as usize), self.there.types.get(*there_at as usize));
                if let (Some(here), Some(there)) = types {
                    if self.found.len() <= MOST && self.seen.insert((*here_at, *there_at)) {
                        self.forms(place, &here.form, &there.form);
                    }
                }
            }
            (Shape::Optional(here), Shape::Optional(there)) => self.shapes(place, here, there),
            (Shape::List(Some(here)), Shape::List(Some(there))) => self.shapes(&format!("{place}[]"), here, there),
            (Shape::Map(Some(here)), Shape::Map(Some(there))) => {
                self.shapes(&format!("{place}[key]"), &here.0, &there.0);
                self.shapes(&format!("{place}[]"), &here.1, &there.1);
            }
            (Shape::Tuple(here), Shape::Tuple(there)) => self.tuples(place, here, there),
            (here, there) if here != there => {
                let words = [(self.here, here), (self.there, there)].map(|(schema, shape)| words(schema, shape));
                self.found.push(format!("{place} is {} here and {} there", words[0], words[1]));
            }
            _ => {}
        }
    }

    fn forms(&mut self, place: &str, here: &Form, there: &Form) {
        match (here, there) {
            (Form::Newtype(here), Form::Newtype(there)) => self.shapes(place, here, there),
            (Form::Tuple(here), Form::Tuple(there)) => self.tuples(place, here, there),
            (Form::Struct(here), Form::Struct(there)) => self.fields(place, here, there),
            (Form::Enum(here), Form::Enum(there)) => self.variants(place, here, there),
            (Form::Either(here), Form::Either(there)) => self.tuples(place, here, there),
            (Form::Tagged { tag: here_by, variants: here }, Form::Tagged { tag: there_by, variants: there })
                if here_by == there_by =>
            {
                self.tagged(place, here, there);
            }
            (here, there) if here != there => {
                self.found.push(format!("{place} is {} here and {} there", kind(here), kind(there)));
            }
            _ => {}
        }
    }

    fn fields(&mut self, place: &str, here: &[(String, Shape)], there: &[(String, Shape)]) {
        if self.names(place, "field", &names(here), &names(there)) {
            for ((name, here), (_, there)) in here.iter().zip(there) {
                self.shapes(&format!("{place}.{name}"), here, there);
            }
        }
    }

    fn variants(&mut self, place: &str, here: &[(String, Form)], there: &[(String, Form)]) {
        if self.names(place, "variant", &names(here), &names(there)) {
            for ((name, here), (_, there)) in here.iter().zip(there) {
                self.forms(&format!("{place}.{name}"), here, there);
            }
        }
    }

    fn tagged(
        &mut self,
        place: &str,
        here: &[(String, Vec<(String, Shape)>)],
        there: &[(String, Vec<(String, Shape)>)],
    ) {
        if self.names(place, "variant", &names(here), &names(there)) {
            for ((name, here), (_, there)) in here.iter().zip(there) {
                self.fields(&format!("{place}.{name}"), here, there);
            }
        }
    }

    fn tuples(&mut self, place: &str, here: &[Shape], there: &[Shape]) {
        if here.len() != there.len() {
            self.found.push(format!("{place} has {} parts here and {} there", here.len(), there.len()));
            return;
        }
        for (at, (here, there)) in here.iter().zip(there).enumerate() {
            self.shapes(&format!("{place}.{at}"), here, there);
        }
    }

    /// Compares the names of fields or variants. Answers whether they are the same, in the same order.
    fn names(&mut self, place: &str, what: &str, here: &[&str], there: &[&str]) -> bool {
        let only = |these: &[&str], those: &[&str]| -> Vec<String> {
            these.iter().filter(|name| !those.contains(name)).map(|name| format!("{place}.{name}")).collect()
        };
        let (ours, theirs) = (only(here, there), only(there, here));
        if !ours.is_empty() {
            self.found.push(format!("the {what} {} is only here", ours.join(", ")));
        }
        if !theirs.is_empty() {
            self.found.push(format!("the {what} {} is only there", theirs.join(", ")));
        }
        if ours.is_empty() && theirs.is_empty() && here != there {
            let (here, there) = (here.join(", "), there.join(", "));
            self.found.push(format!("{place} has its {what}s in another order: {here} here, {there} there"));
        }
        here == there
    }
}

fn names<T>(named: &[(String, T)]) -> Vec<&str> {
    named.iter().map(|(name, _)| name.as_str()).collect()
}

fn words(schema: &Schema, shape: &Shape) -> String {
    match shape {
        Shape::Unit => "nothing".to_owned(),
        Shape::Bool => "a bool".to_owned(),
        Shape::Integer { signed, bits } => format!("{}{bits}", if *signed { "i" } else { "u" }),
        Shape::Float { bits } => format!("f{bits}"),
        Shape::Char => "a character".to_owned(),
        Shape::Text => "text".to_owned(),
        Shape::Bytes => "bytes".to_owned(),
        Shape::Optional(inner) => format!("an optional {}", words(schema, inner)),
        Shape::List(_) => "a list".to_owned(),
        Shape::Map(_) => "a map".to_owned(),
        Shape::Tuple(parts) => format!("a tuple of {}", parts.len()),
        Shape::Type(at) => match schema.types.get(*at as usize) {
            Some(ty) => format!("{} ({})", kind(&ty.form), ty.name.chars().take(64).collect::<String>()),
            None => "unknown".to_owned(),
        },
        Shape::Any => "anything".to_owned(),
    }
}

fn kind(form: &Form) -> &'static str {
    match form {
        Form::Unit => "nothing",
        Form::Newtype(_) => "a value in a type of its own",
        Form::Tuple(_) => "a tuple",
        Form::Struct(_) => "a struct",
        Form::Enum(_) => "an enum",
        Form::Tagged { .. } => "an object told apart by a field",
        Form::Either(_) => "one of several",
    }
}
