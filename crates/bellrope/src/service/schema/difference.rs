//! What two schemas say differently, in words.

use std::{collections::HashSet, fmt::Write as _};

use super::model::{Form, Schema, Shape};

/// Most differences that are named, and most names in each.
const MOST: usize = 8;
/// How deep types in types are compared: the other side may say any number, and what is deeper needs more stack than a thread
/// may have.
const MOST_DEPTH: usize = 64;
/// Most places that are looked at.
const MOST_STEPS: usize = 100_000;
/// Most characters of a name, and of a place, that are said.
const MOST_NAME: usize = 64;
const MOST_PLACE: usize = 256;

/// The differences, the outermost first, as far as there is room for them. `None`: all was compared, and there is none, so that what
/// travels is the same. Another version may count it another way: it lists types in another order, or takes two for one.
pub(crate) fn between(here: &Schema, there: &Schema) -> Option<String> {
    let seen = HashSet::new();
    let mut comparison =
        Comparison { here, there, found: Vec::new(), more: 0, seen, depth: 0, steps: 0, is_cut: false };
    if here.codec != there.codec {
        comparison.say(|| format!("its codec is {} here and {} there", start(&here.codec), start(&there.codec)));
    }
    comparison.shapes("arguments", &here.request, &there.request);
    comparison.shapes("answer", &here.answer, &there.answer);
    comparison.shapes("sent", &here.sent, &there.sent);
    let Comparison { found, more, steps, is_cut, .. } = comparison;
    let mut words = found.join("; ");
    if more > 0 {
        let _ = write!(words, "; and {more} more");
    }
    if !words.is_empty() {
        return Some(words);
    }
    (is_cut || steps >= MOST_STEPS).then(|| "they differ further inside than is looked".to_owned())
}

struct Comparison<'s> {
    here: &'s Schema,
    there: &'s Schema,
    found: Vec<String>,
    /// How many more there are.
    more: usize,
    /// Pairs of types that were compared, so that none that contains itself is followed for ever.
    seen: HashSet<(u32, u32)>,
    depth: usize,
    steps: usize,
    /// Whether something was too deep.
    is_cut: bool,
}

impl Comparison<'_> {
    fn shapes(&mut self, place: &str, here: &Shape, there: &Shape) {
        self.steps += 1;
        if self.steps >= MOST_STEPS {
            return;
        }
        match (here, there) {
            (Shape::Type(here_at), Shape::Type(there_at)) => {
                let types = (self.here.types.get(*here_at as usize), self.there.types.get(*there_at as usize));
                if let (Some(here), Some(there)) = types {
                    if self.depth >= MOST_DEPTH {
                        self.is_cut = true;
                    } else if self.found.len() < MOST && self.seen.insert((*here_at, *there_at)) {
                        self.depth += 1;
                        self.forms(place, &here.form, &there.form);
                        self.depth -= 1;
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
                self.say(|| format!("{} is {} here and {} there", end(place), words[0], words[1]));
            }
            _ => {}
        }
    }

    fn say(&mut self, words: impl FnOnce() -> String) {
        if self.found.len() < MOST {
            self.found.push(words());
        } else {
            self.more += 1;
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
                self.say(|| format!("{} is {} here and {} there", end(place), kind(here), kind(there)));
            }
            _ => {}
        }
    }

    fn fields(&mut self, place: &str, here: &[(String, Shape)], there: &[(String, Shape)]) {
        if self.names(place, "field", &names(here), &names(there)) {
            for ((name, here), (_, there)) in here.iter().zip(there) {
                self.shapes(&format!("{place}.{}", start(name)), here, there);
            }
        }
    }

    fn variants(&mut self, place: &str, here: &[(String, Form)], there: &[(String, Form)]) {
        if self.names(place, "variant", &names(here), &names(there)) {
            for ((name, here), (_, there)) in here.iter().zip(there) {
                self.forms(&format!("{place}.{}", start(name)), here, there);
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
                self.fields(&format!("{place}.{}", start(name)), here, there);
            }
        }
    }

    fn tuples(&mut self, place: &str, here: &[Shape], there: &[Shape]) {
        if here.len() != there.len() {
            self.say(|| format!("{} has {} parts here and {} there", end(place), here.len(), there.len()));
            return;
        }
        for (at, (here, there)) in here.iter().zip(there).enumerate() {
            self.shapes(&format!("{place}.{at}"), here, there);
        }
    }

    /// Compares the names of fields or variants. Answers whether they are the same, in the same order.
    fn names(&mut self, place: &str, what: &str, here: &[&str], there: &[&str]) -> bool {
        let place = end(place);
        let only = |these: &[&str], those: &[&str]| -> String {
            let known: HashSet<_> = those.iter().collect();
            let alone = these.iter().filter(|name| !known.contains(name));
            listed(alone.map(|name| format!("{place}.{}", start(name))))
        };
        let (ours, theirs) = (only(here, there), only(there, here));
        if !ours.is_empty() {
            self.say(|| format!("the {what} {ours} is only here"));
        }
        if !theirs.is_empty() {
            self.say(|| format!("the {what} {theirs} is only there"));
        }
        if ours.is_empty() && theirs.is_empty() && here != there {
            let [here, there] = [here, there].map(|names| listed(names.iter().map(|name| start(name).to_owned())));
            self.say(|| format!("{place} has its {what}s in another order: {here} here, {there} there"));
        }
        here == there
    }
}

/// The first of them, and how many more there are.
fn listed(names: impl Iterator<Item = String>) -> String {
    let mut names = names.fuse();
    let mut words = names.by_ref().take(MOST).collect::<Vec<_>>().join(", ");
    let more = names.count();
    if more > 0 {
        let _ = write!(words, " and {more} more");
    }
    words
}

/// As much of a name as is said.
fn start(name: &str) -> &str {
    name.char_indices().nth(MOST_NAME).map_or(name, |(at, _)| &name[..at])
}

/// As much of a place as is said: its end.
fn end(place: &str) -> String {
    let count = place.chars().count();
    if count <= MOST_PLACE {
        return place.to_owned();
    }
    let tail: String = place.chars().skip(count - MOST_PLACE).collect();
    format!("...{tail}")
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
            Some(ty) => format!("{} ({})", kind(&ty.form), start(&ty.name)),
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

#[cfg(test)]
mod tests {
    use super::{super::model::Type, *};

    fn of(forms: Vec<Form>) -> Schema {
        let types = forms.into_iter().map(|form| Type { name: String::new(), form }).collect();
        let (answer, sent) = (Shape::Unit, Shape::Unit);
        Schema { codec: "postcard".to_owned(), request: Shape::Type(0), answer, sent, types }
    }

    /// A type in a type, so often, and fields in the last one.
    fn chain(depth: u32, fields: usize) -> Schema {
        let field = |name: &str, shape| (name.to_owned(), shape);
        let mut types: Vec<_> = (1..=depth)
            .map(|next| {
                Form::Struct(vec![field("next", Shape::Optional(Box::new(Shape::Type(next)))), field("v", Shape::Bool)])
            })
            .collect();
        types.push(Form::Struct((0..fields).map(|at| field(&format!("f{at}"), Shape::Bool)).collect()));
        of(types)
    }

    #[test]
    fn no_schema_of_another_side_takes_the_stack_or_the_time_of_this_one() {
        let field = |name: &str, shape| (name.to_owned(), shape);
        let node =
            Form::Struct(vec![field("next", Shape::Optional(Box::new(Shape::Type(0)))), field("v", Shape::Bool)]);
        let here = of(vec![node]);
        assert_eq!(between(&here, &chain(100_000, 3)).unwrap(), "they differ further inside than is looked");
        let words = between(&here, &chain(40, 40_000)).unwrap();
        assert!(words.contains("is only there") && words.contains("and 39992 more"), "{words}");
        assert!(words.len() < 8 * 1024, "{} bytes", words.len());
        let wide = |name: &str| {
            let fields = (0..40_000).map(|at| field(&format!("{name}{at}"), Shape::Bool)).collect();
            of(vec![Form::Struct(fields)])
        };
        let words = between(&wide("a"), &wide("b")).unwrap();
        assert!(words.starts_with("the field arguments.a0, ") && words.len() < 1024, "{words}");
    }

    /// Whatever order another version lists types in, and however often: what travels is the same.
    #[test]
    fn what_travels_alike_has_no_differences_in_whatever_order_its_types_are() {
        let field = |name: &str, at| (name.to_owned(), Shape::Type(at));
        let leaf = |shape: Shape| Form::Struct(vec![("x".to_owned(), shape)]);
        let here = of(vec![Form::Struct(vec![field("a", 1), field("b", 2)]), leaf(Shape::Bool), leaf(Shape::Text)]);
        let turned = of(vec![Form::Struct(vec![field("a", 2), field("b", 1)]), leaf(Shape::Text), leaf(Shape::Bool)]);
        assert_ne!(here.hash(), turned.hash());
        assert_eq!(between(&here, &turned), None);
        let swapped = of(vec![Form::Struct(vec![field("a", 1), field("b", 2)]), leaf(Shape::Text), leaf(Shape::Bool)]);
        assert_eq!(
            between(&here, &swapped).unwrap(),
            "arguments.a.x is a bool here and text there; arguments.b.x is text here and a bool there"
        );
        let twice = of(vec![Form::Struct(vec![field("a", 1), field("b", 1)]), leaf(Shape::Bool)]);
        let apart = of(vec![Form::Struct(vec![field("a", 1), field("b", 2)]), leaf(Shape::Bool), leaf(Shape::Bool)]);
        assert_eq!(between(&twice, &apart), None);
        let own = Schema { codec: "own".to_owned(), ..here.clone() };
        assert_eq!(between(&here, &own).unwrap(), "its codec is postcard here and own there");
    }
}
