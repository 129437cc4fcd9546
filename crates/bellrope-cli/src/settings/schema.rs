//! Which keys there are, found in the defaults themselves, so that no list can fall behind.

use bellrope_gateway::ProviderConfig;
use serde_json::{Map, Value};

use super::document::Document;

/// Earlier names of keys, which still mean them.
const EARLIER_NAMES: [(&str, &str); 1] = [("openai_port", "api_port")];

/// What a key is called now.
pub(super) fn current_name(name: &str) -> &str {
    EARLIER_NAMES.iter().find(|(earlier, _)| *earlier == name).map_or(name, |(_, current)| current)
}

/// A key: its sections and its own name.
pub(crate) type Key = Vec<String>;

/// A key as its sections and its own name.
pub(super) fn parts(key: &str) -> Key {
    key.split('.').map(str::to_owned).collect()
}

/// Removes the value of a key, or the list that it stands in. Whether there was one.
pub(super) fn remove(values: &mut toml::Table, key: &[String]) -> bool {
    match key {
        [] => false,
        [name] => values.remove(name).is_some(),
        [name, rest @ ..] => match values.get_mut(name) {
            Some(toml::Value::Table(section)) => remove(section, rest),
            Some(_) => values.remove(name).is_some(),
            None => false,
        },
    }
}

/// All keys with their defaults.
#[derive(Debug)]
pub(super) struct Schema {
    defaults: Value,
    provider: Value,
}

/// What stands at a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    Section,
    Leaf(Kind),
    /// Nothing; what was probably meant.
    Nothing(String),
}

/// What a value is written like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Number {
        example: u64,
    },
    /// Yes or no.
    Switch,
    List,
    Text,
}

impl Schema {
    pub(super) fn new() -> Self {
        // Plain structs with text keys: writing them cannot fail.
        let json = |value: Result<Value, serde_json::Error>| value.unwrap_or_default();
        Self {
            defaults: json(serde_json::to_value(Document::default())),
            provider: json(serde_json::to_value(ProviderConfig::default())),
        }
    }

    pub(super) fn look_up(&self, key: &[String]) -> Known {
        let mut at = Node::Section(&self.defaults);
        for (depth, name) in key.iter().enumerate() {
            let next = match at {
                Node::Providers => Some(Node::Section(&self.provider)),
                Node::Names => Some(Node::Leaf(&Value::Null)),
                Node::Section(section) => section.get(name).map(|value| self.node(&key[..=depth], value)),
                Node::Leaf(_) => None,
            };
            match next {
                Some(next) => at = next,
                None => return Known::Nothing(self.meant(&at, &key[..depth], name)),
            }
        }
        match at {
            Node::Providers | Node::Names | Node::Section(_) => Known::Section,
            Node::Leaf(value) => Known::Leaf(kind(key, value)),
        }
    }

    /// Every key that has a place of its own, without the providers' that have any name.
    pub(super) fn leaves(&self) -> Vec<Key> {
        let mut leaves = Vec::new();
        flatten(&self.defaults, &mut Vec::new(), &mut |key, _| leaves.push(key.to_vec()));
        leaves
    }

    fn node<'a>(&'a self, key: &[String], value: &'a Value) -> Node<'a> {
        match (key, value) {
            ([gateway, providers], _) if gateway == "gateway" && providers == "providers" => Node::Providers,
            ([gateway, openai], _) if gateway == "gateway" && openai == "openai" => Node::Section(&self.provider),
            (_, Value::Object(names)) if names.is_empty() => Node::Names,
            (_, Value::Object(_)) => Node::Section(value),
            _ => Node::Leaf(value),
        }
    }

    /// What somebody probably meant who wrote `name` in this place.
    fn meant(&self, at: &Node<'_>, section: &[String], name: &str) -> String {
        let Node::Section(Value::Object(known)) = at else {
            return format!("`{}` has no keys below it", shown(section));
        };
        if !cfg!(feature = "fleet") && section.first().map_or(name, String::as_str) == "fleet" {
            return bellrope_measure::WITHOUT_FLEET.to_owned();
        }
        if let Some(near) = nearest(name, known.keys().map(String::as_str)) {
            return format!("did you mean `{near}`?");
        }
        if let Some(elsewhere) = self.leaves().into_iter().find(|key| key.last().is_some_and(|last| last == name)) {
            return format!("did you mean `{}`?", shown(&elsewhere));
        }
        format!("known: {}", known.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
    }
}

/// The one of `known` that `name` is a misspelling of, if there is one.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.map(|known| (strsim::damerau_levenshtein(name, known), known));
    let far = (name.chars().count() / 3).max(1);
    near.filter(|(distance, _)| *distance <= far).min().map(|(_, known)| known)
}

/// A key as it is written in a file.
pub(crate) fn shown(key: &[String]) -> String {
    let part = |part: &String| match part.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
        true if !part.is_empty() => part.clone(),
        _ => format!("{part:?}"),
    };
    key.iter().map(part).collect::<Vec<_>>().join(".")
}

/// Visits every value that is no section, an empty one included.
pub(super) fn flatten(value: &Value, key: &mut Key, visit: &mut impl FnMut(&[String], &Value)) {
    match value {
        Value::Object(section) => flatten_section(section, key, visit),
        value => visit(key, value),
    }
}

fn flatten_section(section: &Map<String, Value>, key: &mut Key, visit: &mut impl FnMut(&[String], &Value)) {
    for (name, value) in section {
        key.push(name.clone());
        flatten(value, key, visit);
        key.pop();
    }
}

enum Node<'a> {
    Section(&'a Value),
    /// Sections of any name.
    Providers,
    /// Texts of any name, such as headers: what is a map in the settings has none by default.
    Names,
    Leaf(&'a Value),
}

fn kind(key: &[String], default: &Value) -> Kind {
    match default {
        Value::Number(number) => Kind::Number { example: number.as_u64().filter(|n| *n > 0).unwrap_or(100) },
        Value::Bool(_) => Kind::Switch,
        Value::Array(_) => Kind::List,
        Value::Null if key.last().is_some_and(|last| last.ends_with("port")) => Kind::Number { example: 8080 },
        Value::Null => absent(key),
        _ => Kind::Text,
    }
}

/// What a key holds that is absent by default: the type says it that the settings are read into. One word of a few is a text.
fn absent(key: &[String]) -> Kind {
    let takes = |value: toml::Value| {
        let whole = key.iter().rev().fold(value, |value, name| toml::Table::from_iter([(name.clone(), value)]).into());
        serde_path_to_error::deserialize::<_, Document>(whole).is_ok()
    };
    match () {
        () if takes("x".into()) => Kind::Text,
        () if takes(1.into()) => Kind::Number { example: 4_096 },
        () if takes(true.into()) => Kind::Switch,
        () => Kind::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_up(key: &str) -> Known {
        Schema::new().look_up(&key.split('.').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn keys_of_every_section_are_known_and_others_are_not() {
        for key in ["socket", "server.breaker.timeout_ms", "gateway.openai.model", "gateway.providers.mine.breaker"] {
            assert!(!matches!(look_up(key), Known::Nothing(_)), "{key}");
        }
        assert_eq!(look_up("server.max_connections"), Known::Leaf(Kind::Number { example: 2_000 }));
        assert_eq!(look_up("api_port"), Known::Leaf(Kind::Number { example: 8_080 }));
        assert_eq!(look_up("server.stream_transport"), Known::Leaf(Kind::Switch));
        assert_eq!(look_up("gateway.fallback"), Known::Leaf(Kind::List));
        assert_eq!(look_up("gateway.openai.max_tokens"), Known::Leaf(Kind::Number { example: 4_096 }));
        assert_eq!(look_up("gateway.providers.mine.think_tags"), Known::Leaf(Kind::Switch));
        assert_eq!(look_up("gateway.providers.mine.fill"), Known::Leaf(Kind::Text));
        assert_eq!(look_up("gateway.providers"), Known::Section);
        assert_eq!(look_up("gateway.providers.mine.headers"), Known::Section);
        assert_eq!(look_up("gateway.providers.mine.headers.x-team"), Known::Leaf(Kind::Text));
        assert_eq!(look_up("gateway.openai.headers.x-team"), Known::Leaf(Kind::Text));
        assert!(matches!(look_up("gateway.providers.mine.headers.x-team.more"), Known::Nothing(_)));
        let meant = |key| match look_up(key) {
            Known::Nothing(meant) => meant,
            known => panic!("{key} is {known:?}"),
        };
        assert_eq!(meant("server.max_conections"), "did you mean `max_connections`?");
        assert_eq!(meant("max_connections"), "did you mean `server.max_connections`?");
        assert!(meant("gateway.providers.mine.xyz").starts_with("known: kind, base_url, "));
        assert_eq!(meant("socket.path"), "`socket` has no keys below it");
    }
}
