//! TypeScript, on the client for Node.

use std::fmt::Write as _;

use bellrope::{
    client::Style,
    service::{Form, Shape},
};

use super::{
    api::{Api, Arguments, Method, Service},
    names::{Names, camel, identifier, is_identifier},
};

/// What the file imports, and what it needs of the language.
const RESERVED: &[&str] = &[
    "Array",
    "BigInt",
    "Boolean",
    "CallOptions",
    "Client",
    "Date",
    "Error",
    "Function",
    "Integer",
    "ItemDuplex",
    "ItemUpload",
    "Items",
    "Json",
    "Map",
    "Method",
    "Number",
    "Object",
    "Promise",
    "Record",
    "ServiceError",
    "Set",
    "String",
    "Symbol",
];

/// Words of the language, and methods that would be taken for something else: what has a `then` is awaited.
const WORDS: &[&str] = &[
    "__proto__",
    "any",
    "as",
    "async",
    "await",
    "bigint",
    "boolean",
    "break",
    "case",
    "catch",
    "class",
    "const",
    "constructor",
    "continue",
    "debugger",
    "declare",
    "default",
    "delete",
    "do",
    "else",
    "enum",
    "export",
    "extends",
    "false",
    "finally",
    "for",
    "from",
    "function",
    "get",
    "if",
    "implements",
    "import",
    "in",
    "instanceof",
    "interface",
    "is",
    "keyof",
    "let",
    "module",
    "namespace",
    "never",
    "new",
    "null",
    "number",
    "object",
    "of",
    "package",
    "private",
    "protected",
    "public",
    "readonly",
    "require",
    "return",
    "set",
    "static",
    "string",
    "super",
    "switch",
    "symbol",
    "then",
    "this",
    "throw",
    "true",
    "try",
    "type",
    "typeof",
    "undefined",
    "unknown",
    "var",
    "void",
    "while",
    "with",
    "yield",
    "arguments",
    "eval",
];

/// What every object has from the beginning.
const OF_EVERY_OBJECT: [&str; 7] =
    ["constructor", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable", "toLocaleString", "toString", "valueOf"];

/// Longest line.
const WIDE: usize = 120;

/// Writes the file.
pub(super) fn write(api: &Api, version: &str) -> String {
    let mut names = Names::without(&[RESERVED, WORDS].concat());
    let types = api.types.iter().map(|ty| names.take_type(&ty.name, RESERVED)).collect();
    let writer = Writer { api, types };
    let mut body = String::new();
    for at in 0..api.types.len() {
        writer.declaration(&mut body, at);
    }
    for service in &api.services {
        writer.service(&mut body, service, &mut names);
    }
    let mut head = format!(
        "// Made by `bellrope generate ts` (bellrope {version}) from the schemas of a server: change that, and make it anew.\n\n"
    );
    let uses = |name: &str| body.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == name);
    let imports: Vec<_> = ["CallOptions", "Client", "ItemDuplex", "ItemUpload", "Items", "Method"]
        .into_iter()
        .filter(|name| uses(name))
        .map(|name| if name == "Method" { name.to_owned() } else { format!("type {name}") })
        .collect();
    let _ = writeln!(head, "import {{ {} }} from 'bellrope';", imports.join(", "));
    if uses("Integer") {
        head.push_str("\n/** A whole number of 64 bits or more: a bigint from 2^53 on. Either may be given. */\n");
        head.push_str("export type Integer = number | bigint;\n");
    }
    if uses("Json") {
        head.push_str("\n/** Whatever JSON can say. */\nexport type Json = null | boolean | Integer | string | Json[] | { [key: string]: Json };\n");
        if !uses("Integer") {
            head = head.replace("boolean | Integer |", "boolean | number | bigint |");
        }
    }
    head + &body
}

struct Writer<'a> {
    api: &'a Api,
    /// What each type is called.
    types: Vec<String>,
}

impl Writer<'_> {
    fn declaration(&self, to: &mut String, at: usize) {
        let name = &self.types[at];
        let form = &self.api.types[at].form;
        let _ = match form {
            Form::Struct(fields) => {
                let lines: String = fields.iter().map(|field| format!("  {};\n", self.field(field))).collect();
                writeln!(to, "\nexport interface {name} {{\n{lines}}}")
            }
            _ if self.api.is_empty_circle(at) => writeln!(to, "\nexport type {name} = null;"),
            Form::Enum(_) | Form::Tagged { .. } | Form::Either(_) if !self.alternatives(form).is_empty() => {
                let variants = self.alternatives(form);
                let line = format!("export type {name} = {};", variants.join(" | "));
                if line.len() <= WIDE {
                    writeln!(to, "\n{line}")
                } else {
                    writeln!(to, "\nexport type {name} =\n  | {};", variants.join("\n  | "))
                }
            }
            form => writeln!(to, "\nexport type {name} = {};", self.form(form)),
        };
    }

    fn form(&self, form: &Form) -> String {
        match form {
            Form::Unit => "null".to_owned(),
            Form::Newtype(shape) => self.shape(shape),
            Form::Tuple(shapes) => self.shape(&Shape::Tuple(shapes.clone())),
            Form::Struct(fields) => self.object(fields),
            _ => "never".to_owned(),
        }
    }

    /// What a value of this form may be, if that is one of several.
    fn alternatives(&self, form: &Form) -> Vec<String> {
        match form {
            Form::Enum(variants) => variants.iter().map(|(name, form)| self.variant(name, form)).collect(),
            Form::Tagged { tag, variants } => {
                let object = |(name, fields): &(String, Vec<_>)| {
                    let tag = format!("{}: {}", key(tag), text(name));
                    let fields = std::iter::once(tag).chain(fields.iter().map(|field| self.field(field)));
                    format!("{{ {} }}", fields.collect::<Vec<_>>().join("; "))
                };
                variants.iter().map(object).collect()
            }
            Form::Either(shapes) => shapes.iter().map(|shape| self.shape(shape)).collect(),
            _ => Vec::new(),
        }
    }

    fn variant(&self, name: &str, form: &Form) -> String {
        match form {
            Form::Unit => text(name),
            form => format!("{{ {}: {} }}", key(name), self.form(form)),
        }
    }

    fn object(&self, fields: &[(String, Shape)]) -> String {
        if fields.is_empty() {
            return "Record<string, never>".to_owned();
        }
        let fields: Vec<_> = fields.iter().map(|field| self.field(field)).collect();
        format!("{{ {} }}", fields.join("; "))
    }

    fn field(&self, (name, shape): &(String, Shape)) -> String {
        let optional = if matches!(shape, Shape::Optional(_)) { "?" } else { "" };
        format!("{}{optional}: {}", key(name), self.shape(shape))
    }

    fn shape(&self, shape: &Shape) -> String {
        match shape {
            Shape::Unit => "null".to_owned(),
            Shape::Bool => "boolean".to_owned(),
            Shape::Integer { bits, .. } => if *bits > 32 { "Integer" } else { "number" }.to_owned(),
            Shape::Float { .. } => "number".to_owned(),
            Shape::Char | Shape::Text | Shape::Bytes => "string".to_owned(),
            Shape::Optional(inner) => format!("{} | null", self.shape(inner)),
            Shape::List(inner) => {
                let inner = inner.as_ref().map_or_else(|| "Json".to_owned(), |inner| self.shape(inner));
                if inner.contains(' ') { format!("({inner})[]") } else { format!("{inner}[]") }
            }
            // Keys are texts in JSON, whatever they are elsewhere.
            Shape::Map(entry) => {
                let value = entry.as_ref().map_or_else(|| "Json".to_owned(), |entry| self.shape(&entry.1));
                format!("{{ [key: string]: {value} }}")
            }
            Shape::Tuple(shapes) => {
                let shapes: Vec<_> = shapes.iter().map(|shape| self.shape(shape)).collect();
                format!("[{}]", shapes.join(", "))
            }
            Shape::Type(at) => self.types[*at as usize].clone(),
            _ => "Json".to_owned(),
        }
    }

    fn service(&self, to: &mut String, service: &Service, names: &mut Names) {
        let class = names.take_type(&format!("{}Client", camel(&service.name)), RESERVED);
        let mut beginning = camel(&service.name);
        if let Some(first) = beginning.get_mut(..1) {
            first.make_ascii_lowercase();
        }
        let constants: Vec<_> =
            service.methods.iter().map(|method| names.take(&format!("{beginning}{}", camel(&method.name)))).collect();
        to.push('\n');
        for (method, constant) in service.methods.iter().zip(&constants) {
            let types = [self.given(&method.arguments), self.shape(&method.answer), self.shape(&method.sent)];
            let types = if has_items(method) { &types[..] } else { &types[..2] };
            let result = if method.error.is_some() { ", result: true" } else { "" };
            let given = format!("({}, {{ schema: {:#x}n{result} }});", text(&method.wire), method.hash);
            let _ =
                writeln!(to, "{}", broken(&format!("const {constant} = new Method<"), types, &format!(">{given}"), ""));
        }
        let what = identifier(&service.name);
        let _ = writeln!(
            to,
            "\n/** The service {what}, called through a client that is connected. */\nexport class {class} {{\n  \
             readonly #client: Client;\n\n  constructor(client: Client) {{\n    this.#client = client;\n  }}"
        );
        let mut methods = Names::without(&["__proto__", "constructor", "then"]);
        for (method, constant) in service.methods.iter().zip(&constants) {
            self.method(to, method, constant, &methods.take(&method.name));
        }
        to.push_str("}\n");
    }

    fn given(&self, arguments: &Arguments) -> String {
        match arguments {
            Arguments::Fields(fields) => self.object(fields),
            Arguments::Whole(shape) => self.shape(shape),
        }
    }

    fn method(&self, to: &mut String, method: &Method, constant: &str, name: &str) {
        let (parameter, given) = match &method.arguments {
            Arguments::Fields(fields) if fields.is_empty() => (None, "{}"),
            Arguments::Fields(fields) => {
                let optional = fields.iter().all(|(_, shape)| matches!(shape, Shape::Optional(_)));
                // For the compiler `{}` has those fields already, of types of its own.
                let inherited = fields.iter().any(|(name, _)| OF_EVERY_OBJECT.contains(&name.as_str()));
                let default = match (optional, inherited) {
                    (false, _) => "",
                    (true, false) => " = {}",
                    (true, true) => " = Object.create(null)",
                };
                (Some(format!("args: {}{default}", self.object(fields))), "args")
            }
            Arguments::Whole(shape) => (Some(format!("value: {}", self.shape(shape))), "value"),
        };
        let (answer, sent) = (self.shape(&method.answer), self.shape(&method.sent));
        let (returned, call) = match method.style {
            Style::Unary => (format!("Promise<{answer}>"), "callTyped"),
            Style::ServerStream => (format!("Items<{answer}>"), "streamTyped"),
            Style::ClientStream => (format!("ItemUpload<{sent}, {answer}>"), "clientStreamTyped"),
            Style::Duplex => (format!("ItemDuplex<{sent}, {answer}>"), "duplexTyped"),
        };
        to.push('\n');
        if let Some(error) = &method.error {
            let error = self.shape(error).replace("*/", "* /");
            let _ = writeln!(to, "  /** Its own error, in a ServiceError: {error}. */");
        }
        let parameters: Vec<_> = parameter.into_iter().chain(["options?: CallOptions".to_owned()]).collect();
        let head = broken(&format!("  {name}("), &parameters, &format!("): {returned} {{"), "  ");
        let _ = writeln!(to, "{head}\n    return this.#client.{call}({constant}, {given}, options);\n  }}");
    }
}

/// Parts with commas between them, in one line or each in its own.
fn broken(before: &str, parts: &[String], after: &str, indent: &str) -> String {
    let line = format!("{before}{}{after}", parts.join(", "));
    if line.len() <= WIDE {
        return line;
    }
    let parts: Vec<_> = parts.iter().map(|part| format!("{indent}  {part}")).collect();
    format!("{before}\n{}\n{indent}{after}", parts.join(",\n"))
}

fn has_items(method: &Method) -> bool {
    matches!(method.style, Style::ClientStream | Style::Duplex)
}

fn key(name: &str) -> String {
    if is_identifier(name) && name != "__proto__" { name.to_owned() } else { text(name) }
}

fn text(text: &str) -> String {
    if text.chars().all(|c| c.is_ascii_graphic() && !"'\\".contains(c) || c == ' ') {
        format!("'{text}'")
    } else {
        serde_json::Value::from(text).to_string()
    }
}
