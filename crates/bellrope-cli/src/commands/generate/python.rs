//! Python, on the client for Python.

use std::fmt::Write as _;

use bellrope::{
    client::Style,
    service::{Form, Shape},
};

use super::{
    api::{Api, Arguments, Method, Service},
    names::{Names, camel, identifier, is_identifier},
};

/// What the module imports, and builtins that it names.
const TYPING: &[&str] = &["Any", "Dict", "List", "Literal", "Mapping", "Optional", "Sequence", "TypedDict", "Union"];
const BUILTINS: &[&str] = &[
    "annotations",
    "bellrope",
    "bool",
    "bytes",
    "dict",
    "float",
    "int",
    "list",
    "object",
    "set",
    "str",
    "tuple",
    "type",
];
const WORDS: &[&str] = &[
    "False", "None", "True", "__all__", "__doc__", "__file__", "__init__", "__name__", "and", "as", "assert", "async",
    "await", "break", "class", "continue", "def", "del", "elif", "else", "except", "finally", "for", "from", "global",
    "if", "import", "in", "is", "lambda", "nonlocal", "not", "or", "pass", "raise", "return", "try", "while", "with",
    "yield",
];
/// What each method has beside its arguments.
const PARAMETERS: &[&str] = &["self", "timeout", "retry", "cancel"];

/// Longest line.
const WIDE: usize = 110;

/// Writes the module.
pub(super) fn write(api: &Api, version: &str) -> String {
    let reserved = [TYPING, BUILTINS, WORDS].concat();
    let mut names = Names::without(&reserved);
    let types = api.types.iter().map(|ty| names.take_type(&ty.name, &reserved)).collect();
    let mut writer = Writer { api, types, names, exported: Vec::new(), body: String::new() };
    for at in 0..api.types.len() {
        writer.declaration(at);
    }
    for service in &api.services {
        writer.service(service);
    }
    let Writer { mut exported, body, .. } = writer;
    exported.sort();
    let uses = |name: &str| body.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == name);
    let imports: Vec<_> = TYPING.iter().copied().filter(|name| uses(name)).collect();
    let mut head = format!(
        "\"\"\"Made by `bellrope generate python` (bellrope {version}) from the schemas of a server: change that, and make \
         it anew.\"\"\"\n\nfrom __future__ import annotations\n\n"
    );
    if !imports.is_empty() {
        let _ = writeln!(head, "from typing import {}\n", imports.join(", "));
    }
    head.push_str("import bellrope\n\n__all__ = [\n");
    exported.iter().for_each(|name| head.push_str(&format!("    \"{name}\",\n")));
    head.push_str("]\n");
    head + &body
}

struct Writer<'a> {
    api: &'a Api,
    /// What each type is called.
    types: Vec<String>,
    /// All names of the module.
    names: Names,
    exported: Vec<String>,
    body: String,
}

impl Writer<'_> {
    fn declaration(&mut self, at: usize) {
        let name = self.types[at].clone();
        self.exported.push(name.clone());
        let api = self.api;
        match &api.types[at].form {
            Form::Struct(fields) => self.typed_dict(&name, fields),
            _ if api.is_empty_circle(at) => self.alias(&name, "None"),
            Form::Enum(variants) if variants.is_empty() => self.alias(&name, "Any"),
            Form::Enum(variants) => self.variants(&name, variants),
            Form::Tagged { tag, variants } if !variants.is_empty() => self.tagged(&name, tag, variants),
            Form::Either(shapes) if !shapes.is_empty() => {
                let shapes: Vec<_> = shapes.iter().map(|shape| self.shape(shape)).collect();
                self.alias(&name, &format!("Union[{}]", shapes.join(", ")));
            }
            form => {
                let form = self.form(&name, form);
                // A text alone would be one, and no type.
                let form = if form.starts_with('"') { format!("Union[{form}]") } else { form };
                self.alias(&name, &form);
            }
        }
    }

    fn alias(&mut self, name: &str, of: &str) {
        // Alone it would be a value, and no type.
        let of = if of == "None" { "Union[None]" } else { of };
        let line = format!("{name} = {of}");
        let _ = match line.len() {
            ..=WIDE => writeln!(self.body, "\n\n{line}"),
            // The outermost brackets are opened.
            _ => match of.strip_suffix(']').and_then(|of| of.split_once('[')) {
                Some((outer, parts)) => {
                    let parts = split(parts).iter().map(|part| format!("    {part},\n")).collect::<String>();
                    writeln!(self.body, "\n\n{name} = {outer}[\n{parts}]")
                }
                None => writeln!(self.body, "\n\n{line}"),
            },
        };
    }

    fn variants(&mut self, name: &str, variants: &[(String, Form)]) {
        let plain: Vec<_> =
            variants.iter().filter(|(_, form)| *form == Form::Unit).map(|(name, _)| text(name)).collect();
        let mut parts = Vec::new();
        if !plain.is_empty() {
            parts.push(format!("Literal[{}]", plain.join(", ")));
        }
        for (variant, form) in variants.iter().filter(|(_, form)| *form != Form::Unit) {
            let class = self.names.take(&format!("{name}{}", camel(variant)));
            self.exported.push(class.clone());
            let contents = self.form(&class, form);
            self.dict(&class, &[(variant.clone(), contents)], true);
            parts.push(format!("\"{class}\""));
        }
        match &parts[..] {
            [only] if !only.starts_with('"') => self.alias(name, only),
            parts => self.alias(name, &format!("Union[{}]", parts.join(", "))),
        }
    }

    /// A class for each variant, whose first field says which it is.
    fn tagged(&mut self, name: &str, tag: &str, variants: &[(String, Vec<(String, Shape)>)]) {
        let mut parts = Vec::new();
        for (variant, fields) in variants {
            let class = self.names.take(&format!("{name}{}", camel(variant)));
            self.exported.push(class.clone());
            self.typed_dict_of(&class, Some((tag, variant)), fields);
            parts.push(format!("\"{class}\""));
        }
        self.alias(name, &format!("Union[{}]", parts.join(", ")));
    }

    /// A form that has no name of its own, inside of `outer`.
    fn form(&mut self, outer: &str, form: &Form) -> String {
        match form {
            Form::Unit => "None".to_owned(),
            Form::Newtype(shape) => self.shape(shape),
            Form::Tuple(shapes) => self.shape(&Shape::Tuple(shapes.clone())),
            Form::Struct(fields) => {
                let class = self.names.take(&format!("{outer}Fields"));
                self.exported.push(class.clone());
                self.typed_dict(&class, fields);
                format!("\"{class}\"")
            }
            _ => "Any".to_owned(),
        }
    }

    fn typed_dict(&mut self, name: &str, fields: &[(String, Shape)]) {
        self.typed_dict_of(name, None, fields);
    }

    /// With a field whose value is known, if there is one.
    fn typed_dict_of(&mut self, name: &str, tag: Option<(&str, &str)>, fields: &[(String, Shape)]) {
        let typed = |writer: &Self, optional| -> Vec<_> {
            let fields = fields.iter().filter(|(_, shape)| matches!(shape, Shape::Optional(_)) == optional);
            fields.map(|(name, shape)| (name.clone(), writer.shape(shape))).collect()
        };
        let (mut needed, optional) = (typed(self, false), typed(self, true));
        if let Some((tag, value)) = tag {
            needed.insert(0, (tag.to_owned(), format!("Literal[{}]", text(value))));
        }
        if needed.is_empty() || optional.is_empty() {
            let (fields, total) = if optional.is_empty() { (needed, true) } else { (optional, false) };
            return self.dict(name, &fields, total);
        }
        // A field that may be missing is another kind than one that may be None.
        let base = self.names.take(&format!("_{name}Needs"));
        self.dict(&base, &needed, true);
        if optional.iter().all(|(field, _)| self.is_plain(field)) {
            let lines: String = optional.iter().map(|(field, ty)| format!("    {field}: {}\n", bare(ty))).collect();
            let _ = writeln!(self.body, "\n\nclass {name}({base}, total=False):\n{}", lines.trim_end());
        } else {
            let other = self.names.take(&format!("_{name}May"));
            self.dict(&other, &optional, false);
            let _ = writeln!(self.body, "\n\nclass {name}({base}, {other}):\n    pass");
        }
    }

    fn dict(&mut self, name: &str, fields: &[(String, String)], total: bool) {
        let total = if total { "" } else { ", total=False" };
        let _ = if fields.is_empty() {
            writeln!(self.body, "\n\nclass {name}(TypedDict):\n    pass")
        } else if fields.iter().all(|(field, _)| self.is_plain(field)) {
            let lines: String = fields.iter().map(|(field, ty)| format!("    {field}: {}\n", bare(ty))).collect();
            writeln!(self.body, "\n\nclass {name}(TypedDict{total}):\n{}", lines.trim_end())
        } else {
            let fields: String = fields.iter().map(|(field, ty)| format!("    {}: {ty},\n", text(field))).collect();
            writeln!(self.body, "\n\n{name} = TypedDict(\"{name}\", {{\n{fields}}}{total})")
        };
    }

    /// Whether a field may be written as that of a class, and hides no type there.
    fn is_plain(&self, field: &str) -> bool {
        let hides = |names: &[&str]| names.contains(&field);
        is_identifier(field)
            && !field.starts_with("__")
            && !hides(TYPING)
            && !hides(BUILTINS)
            && !hides(WORDS)
            && !self.types.iter().any(|name| name == field)
    }

    /// A type, in which those of the module are texts: they may come later.
    fn shape(&self, shape: &Shape) -> String {
        match shape {
            Shape::Unit => "None".to_owned(),
            Shape::Bool => "bool".to_owned(),
            Shape::Integer { .. } => "int".to_owned(),
            Shape::Float { .. } => "float".to_owned(),
            Shape::Char | Shape::Text | Shape::Bytes => "str".to_owned(),
            Shape::Optional(inner) => format!("Optional[{}]", self.shape(inner)),
            Shape::List(inner) => {
                format!("List[{}]", inner.as_ref().map_or_else(|| "Any".to_owned(), |inner| self.shape(inner)))
            }
            // Keys are texts in JSON, whatever they are elsewhere.
            Shape::Map(entry) => {
                let value = entry.as_ref().map_or_else(|| "Any".to_owned(), |entry| self.shape(&entry.1));
                format!("Dict[str, {value}]")
            }
            // Read from JSON it is a list, and may be given as a tuple.
            Shape::Tuple(shapes) => {
                let mut shapes: Vec<_> = shapes.iter().map(|shape| self.shape(shape)).collect();
                shapes.dedup();
                match &shapes[..] {
                    [] => "Sequence[Any]".to_owned(),
                    [only] => format!("Sequence[{only}]"),
                    several => format!("Sequence[Union[{}]]", several.join(", ")),
                }
            }
            Shape::Type(at) => format!("\"{}\"", self.types[*at as usize]),
            _ => "Any".to_owned(),
        }
    }

    fn service(&mut self, service: &Service) {
        let camel_name = camel(&service.name);
        let classes = ["", "Async"].map(|kind| self.names.take(&format!("{kind}{camel_name}Client")));
        let constants: Vec<_> = service
            .methods
            .iter()
            .map(|method| self.names.take(&format!("_{}_{}", service.name, method.name).to_ascii_uppercase()))
            .collect();
        self.body.push_str("\n\n");
        for (method, constant) in service.methods.iter().zip(&constants) {
            let (given, answer) = (self.given(&method.arguments), bare(&self.shape(&method.answer)));
            let sent = if has_items(method) { bare(&self.shape(&method.sent)) } else { "None".to_owned() };
            let result = if method.error.is_some() { ", result=True" } else { "" };
            let _ = writeln!(
                self.body,
                "{constant}: bellrope.Method[{given}, {answer}, {sent}] = bellrope.Method(\n    {}, schema={:#x}{result}\n)",
                text(&method.wire),
                method.hash
            );
        }
        for (class, asynchronous) in classes.into_iter().zip([false, true]) {
            self.exported.push(class.clone());
            let kind = if asynchronous { "AsyncClient" } else { "Client" };
            let what = identifier(&service.name);
            let _ = writeln!(
                self.body,
                "\n\nclass {class}:\n    \"\"\"The service {what}, called through a client.\"\"\"\n\n    def __init__(self, \
                 client: bellrope.{kind}) -> None:\n        self.__client = client"
            );
            let reserved = [TYPING, BUILTINS, WORDS].concat();
            let mut methods = Names::without(&reserved);
            self.types.iter().for_each(|name| drop(methods.take(name)));
            for (method, constant) in service.methods.iter().zip(&constants) {
                let name = methods.take(&method.name);
                // Two underscores would be mangled.
                let name = if name.starts_with("__") { methods.take(&format!("m{name}")) } else { name };
                self.method(method, constant, &name, asynchronous);
            }
        }
    }

    fn given(&self, arguments: &Arguments) -> String {
        match arguments {
            Arguments::Fields(_) => "Mapping[str, object]".to_owned(),
            Arguments::Whole(shape) => bare(&self.shape(shape)),
        }
    }

    fn method(&mut self, method: &Method, constant: &str, name: &str, asynchronous: bool) {
        let (parameters, given) = self.parameters(&method.arguments);
        let (answer, sent) = (bare(&self.shape(&method.answer)), bare(&self.shape(&method.sent)));
        let kind = if asynchronous { "bellrope.Async" } else { "bellrope." };
        let (returned, call, waits) = match method.style {
            Style::Unary => (answer, "call_typed", asynchronous),
            Style::ServerStream => (format!("{kind}Items[{answer}]"), "stream_typed", false),
            Style::ClientStream => (format!("{kind}ItemUpload[{sent}, {answer}]"), "client_stream_typed", asynchronous),
            Style::Duplex => (format!("{kind}ItemDuplex[{sent}, {answer}]"), "duplex_typed", asynchronous),
        };
        let mut options = vec![match method.style {
            Style::Unary => ("timeout", "bellrope.Timeout = bellrope.DEFAULT_TIMEOUT"),
            _ => ("timeout", "Optional[float] = None"),
        }];
        if matches!(method.style, Style::Unary | Style::ServerStream) {
            options.push(("retry", "bellrope.Retry = bellrope.Retry.NEVER"));
        }
        if !asynchronous {
            options.push(("cancel", "Optional[bellrope.CancelToken] = None"));
        }
        let lines = ["self".to_owned()].into_iter().chain(parameters).chain(["*".to_owned()]);
        let lines = lines.chain(options.iter().map(|(name, ty)| format!("{name}: {ty}")));
        let lines: String = lines.map(|line| format!("        {line},\n")).collect();
        let passed: String = options.iter().map(|(name, _)| format!(", {name}={name}")).collect();
        let (define, wait) = (if waits { "async def" } else { "def" }, if waits { "await " } else { "" });
        let _ = writeln!(self.body, "\n    {define} {name}(\n{lines}    ) -> {returned}:");
        if let Some(error) = &method.error {
            let error = bare(&self.shape(error)).replace('\\', "\\\\").replace("\"\"\"", "");
            let _ = writeln!(self.body, "        \"\"\"Its own error, in a ServiceError: {error}.\"\"\"");
        }
        let _ = writeln!(self.body, "        return {wait}self.__client.{call}({constant}, {given}{passed})");
    }

    /// The parameters of the arguments, and the value that is made of them.
    fn parameters(&self, arguments: &Arguments) -> (Vec<String>, String) {
        let mut names = Names::without(&[TYPING, BUILTINS, WORDS, PARAMETERS].concat());
        match arguments {
            Arguments::Fields(fields) => {
                // Those that may be left out stand behind those that are needed.
                let (mut parameters, mut optional, mut given) = (Vec::new(), Vec::new(), Vec::new());
                for (field, shape) in fields {
                    let name = names.take(field.trim_start_matches('_'));
                    let parameter = format!("{name}: {}", bare(&self.shape(shape)));
                    match shape {
                        Shape::Optional(_) => optional.push(parameter + " = None"),
                        _ => parameters.push(parameter),
                    }
                    given.push(format!("{}: {name}", text(field)));
                }
                parameters.append(&mut optional);
                (parameters, format!("{{{}}}", given.join(", ")))
            }
            Arguments::Whole(shape) => (vec![format!("value: {}", bare(&self.shape(shape)))], "value".to_owned()),
        }
    }
}

fn has_items(method: &Method) -> bool {
    matches!(method.style, Style::ClientStream | Style::Duplex)
}

/// Where nothing is evaluated, types need not be texts.
fn bare(ty: &str) -> String {
    // What stands in a literal is a text, and no name of a type.
    if ty.starts_with("Literal[") { ty.to_owned() } else { ty.replace('"', "") }
}

/// What stands between the commas of a list, which may hold lists.
fn split(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from, mut quoted, mut escaped) = (Vec::new(), 0, 0, false, false);
    for (at, c) in list.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '[' if !quoted => depth += 1,
            ']' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(list[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(list[from..].trim());
    parts
}

fn text(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() || "\u{2028}\u{2029}".contains(c) => quoted.push_str(&format!("\\u{:04x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
