//! A page for people, with methods of every codec.

use std::fmt::Write as _;

use bellrope::{
    client::Style,
    service::{Form, Shape},
};

use super::{
    api::{Api, Arguments, Method},
    names::Names,
};

/// What the page calls types that have no name of their own.
const WORDS: &[&str] = &["Bytes", "Map", "Option", "String", "Vec"];

/// Writes the page.
pub(super) fn write(api: &Api, version: &str) -> String {
    let mut names = Names::without(WORDS);
    let page = Page { api, types: api.types.iter().map(|ty| names.take_type(&ty.name, WORDS)).collect() };
    let mut text = "# Services\n".to_owned();
    for service in &api.services {
        // What has no dot in its name belongs to no service.
        let title = if service.name.is_empty() { "Message types".into() } else { plain(&service.name) };
        let _ = write!(text, "\n## {title}\n");
        service.methods.iter().for_each(|method| page.method(&mut text, method));
    }
    if !api.types.is_empty() {
        text.push_str("\n## Types\n");
        (0..api.types.len()).for_each(|at| page.declaration(&mut text, at));
    }
    let _ = write!(
        text,
        "\n---\n\nMade by `bellrope generate markdown` (bellrope {version}) from the schemas of a server.\n"
    );
    text
}

struct Page<'a> {
    api: &'a Api,
    types: Vec<String>,
}

impl Page<'_> {
    fn method(&self, to: &mut String, method: &Method) {
        let _ = write!(to, "\n### {}\n\n", code(&method.wire));
        let (answers, sent) = (self.shape(&method.answer), code(&self.shape(&method.sent)));
        let (answers, and) = match (&method.error, code(&answers)) {
            (Some(error), answers) => (answers, format!(", or with its own error {}", code(&self.shape(error)))),
            (None, answers) => (answers, String::new()),
        };
        let _ = writeln!(
            to,
            "{} Codec: {}.",
            match method.style {
                Style::Unary => format!("Answers with {answers}{and}."),
                Style::ServerStream => format!("Answers with a stream of {answers}{and}."),
                Style::ClientStream => format!("Takes a stream of {sent}, and answers with {answers}{and}."),
                Style::Duplex => format!("Takes a stream of {sent}, and answers with a stream of {answers}{and}."),
            },
            plain(&method.codec)
        );
        match &method.arguments {
            Arguments::Fields(fields) if fields.is_empty() => {}
            Arguments::Fields(fields) => self.fields(to, "argument", fields),
            Arguments::Whole(shape) => {
                let _ = writeln!(to, "\nIt is given {}.", code(&self.shape(shape)));
            }
        }
    }

    fn fields(&self, to: &mut String, what: &str, fields: &[(String, Shape)]) {
        let _ = write!(to, "\n| {what} | type |\n|---|---|\n");
        for (name, shape) in fields {
            let _ = writeln!(to, "| {} | {} |", code(name), code(&self.shape(shape)));
        }
    }

    fn declaration(&self, to: &mut String, at: usize) {
        let _ = write!(to, "\n### {}\n", plain(&self.types[at]));
        match &self.api.types[at].form {
            Form::Struct(fields) => self.fields(to, "field", fields),
            Form::Enum(variants) => {
                to.push_str("\nOne of these:\n\n| variant | with |\n|---|---|\n");
                for (name, form) in variants {
                    let with = if *form == Form::Unit { String::new() } else { code(&self.form(form)) };
                    let _ = writeln!(to, "| {} | {with} |", code(name));
                }
            }
            Form::Tagged { tag, variants } => {
                let _ = write!(
                    to,
                    "\nAn object, of which {} says what it is:\n\n| {} | with |\n|---|---|\n",
                    code(tag),
                    code(tag)
                );
                for (name, fields) in variants {
                    let _ = writeln!(to, "| {} | {} |", code(name), code(&self.form(&Form::Struct(fields.clone()))));
                }
            }
            Form::Either(shapes) => {
                let shapes: Vec<_> = shapes.iter().map(|shape| code(&self.shape(shape))).collect();
                let _ = writeln!(to, "\n{}", shapes.join(" or "));
            }
            form => {
                let _ = writeln!(to, "\n{}", code(&self.form(form)));
            }
        }
    }

    fn form(&self, form: &Form) -> String {
        match form {
            Form::Unit => "()".to_owned(),
            Form::Newtype(shape) => self.shape(shape),
            Form::Tuple(shapes) => self.shape(&Shape::Tuple(shapes.clone())),
            Form::Struct(fields) => {
                let fields: Vec<_> =
                    fields.iter().map(|(name, shape)| format!("{name}: {}", self.shape(shape))).collect();
                if fields.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", fields.join(", ")) }
            }
            _ => "!".to_owned(),
        }
    }

    /// As Rust has it, which is what the service was written in.
    fn shape(&self, shape: &Shape) -> String {
        let or_any = |shape: Option<&Shape>| shape.map_or_else(|| "any".to_owned(), |shape| self.shape(shape));
        match shape {
            Shape::Unit => "()".to_owned(),
            Shape::Bool => "bool".to_owned(),
            Shape::Integer { signed, bits } => format!("{}{bits}", if *signed { "i" } else { "u" }),
            Shape::Float { bits } => format!("f{bits}"),
            Shape::Char => "char".to_owned(),
            Shape::Text => "String".to_owned(),
            Shape::Bytes => "Bytes".to_owned(),
            Shape::Optional(inner) => format!("Option<{}>", self.shape(inner)),
            Shape::List(inner) => format!("Vec<{}>", or_any(inner.as_deref())),
            Shape::Map(entry) => {
                let entry = entry.as_deref();
                format!("Map<{}, {}>", or_any(entry.map(|entry| &entry.0)), or_any(entry.map(|entry| &entry.1)))
            }
            Shape::Tuple(shapes) => {
                let shapes: Vec<_> = shapes.iter().map(|shape| self.shape(shape)).collect();
                if let [only] = &shapes[..] { format!("({only},)") } else { format!("({})", shapes.join(", ")) }
            }
            Shape::Type(at) => self.types[*at as usize].clone(),
            _ => "any".to_owned(),
        }
    }
}

/// Text that stands for itself, in a table too.
fn code(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = text.replace('|', "\\|");
    if text.contains('`') { format!("`` {text} ``") } else { format!("`{text}`") }
}

fn plain(text: &str) -> String {
    let special = |c: char| c.is_ascii_punctuation() && !".,:-".contains(c);
    text.chars().filter(|c| !c.is_control()).fold(String::new(), |mut plain, c| {
        if special(c) {
            plain.push('\\');
        }
        plain.push(c);
        plain
    })
}
