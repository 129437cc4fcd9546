//! The sources of settings, one over the other, and which of them had the last word on a key.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
    fs::File,
    io::{self, Read},
    ops::Range,
    path::{Path, PathBuf},
};

use serde::Serialize;
use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue},
};

use crate::socket::VARIABLE;

use super::schema::{Key, Kind, Known, Schema, current_name, nearest, remove, shown};

/// What variables of ours begin with.
const PREFIX: &str = "BELLROPE_";
/// Between section and key in the name of a variable.
const BETWEEN: &str = "__";
/// Variables with a name of their own for a key, the later ones over the earlier ones.
const ALIASES: &[(&str, &[&str])] = if cfg!(feature = "otlp") {
    &[("RUST_LOG", &["log"]), PROVIDER, OPENAI_PORT, ("OTEL_EXPORTER_OTLP_ENDPOINT", &["otlp_endpoint"])]
} else {
    // A machine may name its collector to all programs; one that can send nothing has nothing to say about it.
    &[("RUST_LOG", &["log"]), PROVIDER, OPENAI_PORT]
};
/// The earlier name of `BELLROPE_API_PORT`.
const OPENAI_PORT: (&str, &[&str]) = ("BELLROPE_OPENAI_PORT", &["api_port"]);
const PROVIDER: (&str, &[&str]) = ("BELLROPE_PROVIDER", &["gateway", "provider"]);
/// The option that sets any key.
pub(super) const SET: &str = "--set";
/// A variable that is no setting: it names the file.
pub(crate) const CONFIG: &str = "BELLROPE_CONFIG";
/// Variables that begin like ours and are no settings of a server.
const OTHERS: [&str; 3] = [CONFIG, NO_SPAWN, LOCAL_MODELS];
/// The variable that forbids clients to start a server.
pub(crate) const NO_SPAWN: &str = "BELLROPE_NO_SPAWN";
/// The variable that names the ports at which servers of models are looked for; an empty one that none is.
pub(crate) const LOCAL_MODELS: &str = "BELLROPE_LOCAL_MODELS";

/// The largest configuration file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Where a value came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Origin {
    #[default]
    Default,
    /// A place in the configuration file, counted from 1.
    File { path: PathBuf, line: usize, column: usize },
    /// A variable of the environment.
    Variable { name: String },
    /// An option of the command line.
    Flag { name: &'static str },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Variable { name } => f.write_str(name),
            Self::Flag { name } => f.write_str(name),
        }
    }
}

/// Which source had the last word on which key.
#[derive(Debug, Default, Clone)]
pub(crate) struct Origins(BTreeMap<Key, Origin>);

impl Origins {
    /// Where the value of a key came from, or of the list it stands in.
    pub(crate) fn of(&self, key: &[String]) -> Origin {
        (1..=key.len()).rev().find_map(|depth| self.0.get(&key[..depth])).cloned().unwrap_or_default()
    }

    /// Whether a configuration file said anything.
    pub(crate) fn has_file(&self) -> bool {
        self.0.values().any(|origin| matches!(origin, Origin::File { .. }))
    }

    /// How to call a key so that whoever set it knows where to look.
    pub(crate) fn naming(&self, key: &[String]) -> String {
        match self.of(key) {
            Origin::Default => shown(key),
            origin @ Origin::File { .. } => format!("{origin}: {}", shown(key)),
            // This one may set anything.
            Origin::Flag { name: SET } => format!("{SET} {}", shown(key)),
            origin => origin.to_string(),
        }
    }

    /// Where in the file a key stands, as its faults are sorted.
    pub(super) fn place(&self, key: &[String]) -> Place {
        match self.of(key) {
            Origin::File { line, column, .. } => (line, column),
            _ => (0, 0),
        }
    }

    pub(super) fn put(&mut self, key: Key, origin: Origin) {
        self.0.insert(key, origin);
    }
}

/// What the sources said so far, and what was wrong with it.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) values: Table,
    pub(super) origins: Origins,
    /// Each with its place in the file, as [`Origins::place`] has it.
    pub(super) faults: Vec<(Place, String)>,
    schema: Schema,
}

impl Layers {
    pub(super) fn new() -> Self {
        Self { values: Table::new(), origins: Origins::default(), faults: Vec::new(), schema: Schema::new() }
    }

    /// Takes in a configuration file.
    pub(super) fn file(&mut self, path: &Path) {
        let text = match text_of(path) {
            Ok(text) => text,
            Err(error) => {
                return self.fault(format!("cannot read the configuration file {}: {error}", path.display()));
            }
        };
        let parsed = toml::from_str::<Table>(&text).and_then(|table| Ok((table, DeTable::parse(&text)?)));
        match parsed {
            Ok((table, places)) => {
                let mut strange = Vec::new();
                self.places(path, &text, places.get_ref(), &mut Vec::new(), &mut strange);
                for (name, value) in table {
                    let current = current_name(&name);
                    if current != name && self.values.contains_key(current) {
                        let mut keys = places.get_ref().keys();
                        let span = keys.find(|key| key.get_ref().as_ref() == name).map(Spanned::span);
                        let (line, column) = place(&text, &span.unwrap_or_default());
                        let path = path.display();
                        let fault =
                            format!("{path}:{line}:{column}: {name} is another name of {current}; give one of them");
                        self.faults.push(((line, column), fault));
                    }
                    self.values.insert(current.to_owned(), value);
                }
                for key in strange {
                    remove(&mut self.values, &key);
                }
            }
            Err(error) => {
                // Not the error's own form, which quotes the line: a key that does not belong there may stand in it.
                let (line, column) = place(&text, &error.span().unwrap_or_default());
                let fault = format!("{}:{line}:{column}: {}", path.display(), error.message());
                self.faults.push(((line, column), fault));
            }
        }
    }

    /// Takes in the environment. Of variables that belong to nobody only those are faults that look like ours.
    pub(super) fn variables(&mut self, variables: &[(OsString, OsString)]) {
        for &(name, key) in ALIASES {
            if let Some(value) = variables.iter().find(|(other, _)| other == name).map(|(_, value)| value) {
                self.variable(name, key.iter().map(|part| (*part).to_owned()).collect(), value);
            }
        }
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| is_ours(name)) else { continue };
            if ALIASES.iter().all(|(alias, _)| *alias != name) {
                let key = name[PREFIX.len()..].to_ascii_lowercase().split(BETWEEN).map(str::to_owned).collect();
                self.variable(name, key, value);
            }
        }
    }

    /// Sets a key by an option of the command line.
    pub(super) fn flag(&mut self, name: &'static str, key: &[&str], value: &OsStr) {
        let current = |at: usize, part: &str| if at == 0 { current_name(part).to_owned() } else { part.to_owned() };
        let key: Key = key.iter().enumerate().map(|(at, part)| current(at, part)).collect();
        match self.schema.look_up(&key) {
            Known::Leaf(kind) => {
                let source = if name == SET { format!("{SET} {}", shown(&key)) } else { name.to_owned() };
                self.set(&source, key, kind, value, Origin::Flag { name });
            }
            Known::Section => self.fault(format!("{name}: {} is a section; name a key of it", shown(&key))),
            Known::Nothing(meant) => self.fault(format!("{name}: unknown key `{}`; {meant}", shown(&key))),
        }
    }

    /// A fault that has no place in the file.
    fn fault(&mut self, words: String) {
        self.faults.push(((0, 0), words));
    }

    fn variable(&mut self, name: &str, key: Key, value: &OsStr) {
        if value.to_str().is_some_and(|value| value.trim().is_empty()) {
            return;
        }
        match self.schema.look_up(&key) {
            Known::Leaf(kind) => {
                let origin = Origin::Variable { name: name.to_owned() };
                self.set(name, key, kind, value, origin);
            }
            Known::Section => self.fault(format!("{name} names a section; add {BETWEEN} and a key of it")),
            Known::Nothing(meant) if key.len() > 1 => {
                self.fault(format!("{name}: unknown key `{}`; {meant}", shown(&key)));
            }
            Known::Nothing(_) => self.misspelt(name, &key[0]),
        }
    }

    /// Anybody's variables may begin like ours: Kubernetes makes some for every service of that name.
    fn misspelt(&mut self, name: &str, key: &str) {
        let leaves = self.schema.leaves();
        let joined = leaves.iter().find(|leaf| leaf.len() > 1 && leaf.join("_") == key).cloned();
        let near = || nearest(key, leaves.iter().filter(|leaf| leaf.len() == 1).map(|leaf| leaf[0].as_str()));
        let meant = joined.or_else(|| near().map(|near| vec![near.to_owned()]));
        if let Some(meant) = meant {
            let meant = meant.join(BETWEEN).to_ascii_uppercase();
            self.fault(format!("{name} is no setting; did you mean {PREFIX}{meant}?"));
        }
    }

    fn set(&mut self, source: &str, key: Key, kind: Kind, value: &OsStr, origin: Origin) {
        let Some(text) = value.to_str() else {
            // A path may be anything; whoever needs it asks its source again.
            if key == ["socket"] {
                insert(&mut self.values, &key, value.to_string_lossy().into_owned().into());
                return self.origins.put(key, origin);
            }
            return self.fault(format!("{source} is {value:?}, which is no text"));
        };
        let parsed = match kind {
            Kind::Number { example } => text
                .trim()
                .parse::<u32>()
                .map(|number| Value::from(i64::from(number)))
                .or_else(|_| text.trim().parse::<i64>().map(Value::from))
                .map_err(|_| match key.last().is_some_and(|last| last.ends_with("port")) {
                    true => format!("give a port, as in {example}"),
                    false => format!("give a number, as in {example}"),
                }),
            Kind::Switch => text.trim().parse::<bool>().map(Value::from).map_err(|_| "give true or false".to_owned()),
            Kind::List => list(text),
            Kind::Text => Ok(Value::from(text)),
        };
        match parsed {
            Ok(value) => {
                insert(&mut self.values, &key, value);
                self.origins.put(key, origin);
            }
            Err(fix) => self.fault(format!("{source} is {text:?}; {fix}")),
        }
    }

    /// Notes where the rows of a table stand, and their fields, which serde checks.
    fn rows(&mut self, path: &Path, text: &str, value: &DeValue<'_>, key: &mut Key) {
        let DeValue::Array(rows) = value else { return };
        for (at, value) in rows.iter().enumerate() {
            let DeValue::Table(fields) = value.get_ref() else { continue };
            let mut note = |key: &Key, span: Range<usize>| {
                let (line, column) = place(text, &span);
                self.origins.put(key.clone(), Origin::File { path: path.to_owned(), line, column });
            };
            key.push(row(at));
            note(key, value.span());
            for name in fields.keys() {
                key.push(name.get_ref().as_ref().to_owned());
                note(key, name.span());
                key.pop();
            }
            key.pop();
        }
    }

    /// Notes where every key of a file stands, and which are unknown: those are `strange`.
    fn places(&mut self, path: &Path, text: &str, table: &DeTable<'_>, key: &mut Key, strange: &mut Vec<Key>) {
        for (name, value) in table {
            let name: &Spanned<_> = name;
            let written = name.get_ref().as_ref();
            key.push(if key.is_empty() { current_name(written).to_owned() } else { written.to_owned() });
            let (line, column) = place(text, &name.span());
            let known = self.schema.look_up(key);
            match (known, value.get_ref()) {
                (Known::Section, DeValue::Table(section)) => self.places(path, text, section, key, strange),
                (Known::Section, _) => {
                    let (path, name) = (path.display(), shown(key));
                    let fault = format!("{path}:{line}:{column}: {name} is a section; give keys below [{name}]");
                    self.faults.push(((line, column), fault));
                    strange.push(key.clone());
                }
                (Known::Nothing(meant), _) => {
                    let path = path.display();
                    let fault = format!("{path}:{line}:{column}: unknown key `{}`; {meant}", shown(key));
                    self.faults.push(((line, column), fault));
                    strange.push(key.clone());
                }
                (Known::Leaf(_), value) => {
                    self.origins.put(key.clone(), Origin::File { path: path.to_owned(), line, column });
                    self.rows(path, text, value, key);
                }
            }
            key.pop();
        }
    }
}

/// A row of a table as a part of a key.
pub(super) fn row(at: usize) -> String {
    at.to_string()
}

/// The variables that name settings, or the file that has them, but for the socket's.
pub(crate) fn ours(variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    let is_ours = |name: &str| [CONFIG, LOCAL_MODELS].contains(&name) || is_ours(name) && name != VARIABLE;
    variables.filter(|(name, _)| name.to_str().is_some_and(is_ours)).collect()
}

/// A configuration file, which may be a pipe that a shell made. What never ends is not read to its end.
fn text_of(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it has more than {MAX_FILE} bytes")));
    }
    Ok(text)
}

/// Whether a variable may be a setting.
fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX) && !OTHERS.contains(&name)
}

/// Puts a value where its key says. A section that is no table becomes one: what it was is somebody's fault already.
fn insert(table: &mut Table, key: &[String], value: Value) {
    match key {
        [] => {}
        [name] => drop(table.insert(name.clone(), value)),
        [section, rest @ ..] => {
            let section = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
            if !section.is_table() {
                *section = Value::Table(Table::new());
            }
            if let Some(section) = section.as_table_mut() {
                insert(section, rest, value);
            }
        }
    }
}

/// A list as TOML writes it, or words between commas.
fn list(text: &str) -> Result<Value, String> {
    if !text.trim_start().starts_with('[') {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        return Ok(words.map(Value::from).collect::<Vec<_>>().into());
    }
    let table: Result<Table, _> = toml::from_str(&format!("list = {text}"));
    let list = table.ok().and_then(|mut table| table.remove("list"));
    list.ok_or_else(|| "give words between commas, or a list as in TOML".to_owned())
}

/// A line and a column, counted from 1.
pub(super) type Place = (usize, usize);

/// Line and column where `span` starts, counted from 1.
fn place(text: &str, span: &Range<usize>) -> Place {
    let before = &text.as_bytes()[..span.start.min(text.len())];
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    let column = 1 + before.iter().rev().take_while(|byte| **byte != b'\n').count();
    (line, column)
}
