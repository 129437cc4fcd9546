//! Names that a language takes: none is a word of its own, and none stands for two things.

use std::collections::HashSet;

/// Names that are taken, in one place of a program.
#[derive(Clone)]
pub(super) struct Names {
    taken: HashSet<String>,
}

impl Names {
    /// Those that a language, or what is generated, has itself.
    pub(super) fn without(reserved: &[&str]) -> Self {
        Self { taken: reserved.iter().map(|name| (*name).to_owned()).collect() }
    }

    /// The name, or one like it that is free, which is taken from now on.
    pub(super) fn take(&mut self, wanted: &str) -> String {
        let name = identifier(wanted);
        let free = |name: &String| !self.taken.contains(name);
        let name = std::iter::once(name.clone())
            .chain(std::iter::once(format!("{name}_")).filter(|_| self.taken.contains(&name)))
            .find(free)
            .unwrap_or_else(|| (2_usize..).map(|number| format!("{name}{number}")).find(free).unwrap_or_default());
        self.taken.insert(name.clone());
        name
    }

    /// For types: the second of a name is numbered, so that both look like types.
    pub(super) fn take_type(&mut self, wanted: &str, reserved: &[&str]) -> String {
        let name = capital(&identifier(wanted));
        if reserved.contains(&name.as_str()) || !self.taken.contains(&name) {
            return self.take(&name);
        }
        let free = (2_usize..).map(|number| format!("{name}{number}")).find(|name| !self.taken.contains(name));
        self.take(&free.unwrap_or(name))
    }
}

/// What is left of a name if it must be one in every language.
pub(super) fn identifier(wanted: &str) -> String {
    let wanted = wanted.strip_prefix("r#").unwrap_or(wanted);
    let mut name: String = wanted.chars().take(128).map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}

/// Whether it is a name in every language as it stands.
pub(super) fn is_identifier(name: &str) -> bool {
    !name.is_empty() && identifier(name) == name
}

/// With a capital at its beginning and behind each `_` or dot, which go.
pub(super) fn camel(name: &str) -> String {
    identifier(name).split('_').map(capital).collect()
}

/// With a capital at its beginning.
pub(super) fn capital(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}
