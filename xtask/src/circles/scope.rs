//! What a module or a block declares: its items, its child modules and its imports.

use std::collections::HashMap;

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Ident, Item, ItemUse, Meta, UseTree, Visibility, ext::IdentExt as _, punctuated::Punctuated};

/// A module of a crate, by its place in the crate's list.
pub(super) type ModuleId = usize;
/// A source file, by its place in the crate's list.
pub(super) type FileId = usize;

/// The names that are visible in a module or block, by themselves or through an import.
#[derive(Debug, Default)]
pub(super) struct Scope {
    pub(super) names: HashMap<String, Vec<Named>>,
    pub(super) globs: Vec<Import>,
    /// Whether a macro was invoked where items stand, so that there may be items that nobody can see here.
    pub(super) has_made_items: bool,
}

/// What a name stands for.
#[derive(Debug)]
pub(super) enum Named {
    Module(ModuleId),
    Item(Definition),
    Import(Import),
}

/// An item at the place where it is defined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Definition {
    pub(super) file: FileId,
    pub(super) name: String,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Type, trait or alias.
    Type,
    /// An enum and its variants, which a glob import can name.
    Enum(Vec<String>),
    /// Function, constant or static.
    Value,
    Macro,
}

/// The path of an import, without the name that it is given.
#[derive(Debug, Clone)]
pub(super) struct Import {
    pub(super) path: Vec<String>,
    /// The line of the path's last segment.
    pub(super) line: usize,
    /// The path begins with `::`, so it leads out of the crate.
    pub(super) outside: bool,
    /// Others see what is imported.
    pub(super) exported: bool,
}

/// One leaf of a `use` tree.
#[derive(Debug)]
pub(super) enum Leaf {
    /// An import and the name that it is given; no name for `as _`.
    One(Import, Option<String>),
    All(Import),
}

impl Scope {
    /// Adds what an item declares, but for modules.
    pub(super) fn add(&mut self, item: &Item, file: FileId) {
        let mut define = |ident: &Ident, kind| self.define(ident, file, kind);
        match item {
            Item::Const(item) => define(&item.ident, Kind::Value),
            Item::Enum(item) => {
                let variants = item.variants.iter().map(|variant| name(&variant.ident)).collect();
                define(&item.ident, Kind::Enum(variants));
            }
            Item::Fn(item) => define(&item.sig.ident, Kind::Value),
            Item::Static(item) => define(&item.ident, Kind::Value),
            Item::Struct(item) => define(&item.ident, Kind::Type),
            Item::Trait(item) => define(&item.ident, Kind::Type),
            Item::TraitAlias(item) => define(&item.ident, Kind::Type),
            Item::Type(item) => define(&item.ident, Kind::Type),
            Item::Union(item) => define(&item.ident, Kind::Type),
            Item::Macro(item) => match &item.ident {
                Some(ident) => define(ident, Kind::Macro),
                None => self.add_made(&item.mac.tokens, file),
            },
            Item::ExternCrate(item) if item.ident == "self" => {
                if let Some((_, ident)) = &item.rename {
                    let import = Import { path: vec!["crate".to_owned()], line: 0, outside: false, exported: true };
                    self.names.entry(name(ident)).or_default().push(Named::Import(import));
                }
            }
            Item::Use(item) => {
                for leaf in leaves(item) {
                    match leaf {
                        Leaf::One(import, Some(name)) => {
                            self.names.entry(name).or_default().push(Named::Import(import));
                        }
                        Leaf::One(_, None) => {}
                        Leaf::All(import) => self.globs.push(import),
                    }
                }
            }
            _ => {}
        }
    }

    fn define(&mut self, ident: &Ident, file: FileId, kind: Kind) {
        let name = name(ident);
        self.names.entry(name.clone()).or_default().push(Named::Item(Definition { file, name, kind }));
    }

    /// Adds what the invocation of a macro where items stand seems to declare: every name after a keyword that
    /// declares one.
    fn add_made(&mut self, tokens: &TokenStream, file: FileId) {
        self.has_made_items = true;
        let mut kind = None;
        for token in tokens.clone() {
            let declares = kind.take();
            let TokenTree::Ident(ident) = token else { continue };
            if let Some(kind) = declares {
                self.define(&ident, file, kind);
            }
            kind = match ident.to_string().as_str() {
                "struct" | "union" | "trait" | "type" | "enum" => Some(Kind::Type),
                "fn" | "const" | "static" => Some(Kind::Value),
                _ => None,
            };
        }
    }
}

/// The leaves of a `use` item.
pub(super) fn leaves(item: &ItemUse) -> Vec<Leaf> {
    let exported = !matches!(item.vis, Visibility::Inherited);
    let mut found = Vec::new();
    let start = Import { path: Vec::new(), line: 0, outside: item.leading_colon.is_some(), exported };
    collect_leaves(&item.tree, &start, &mut found);
    found
}

fn collect_leaves(tree: &UseTree, before: &Import, found: &mut Vec<Leaf>) {
    let with = |ident: &Ident| {
        let mut path = before.path.clone();
        path.push(name(ident));
        Import { path, line: ident.span().start().line, ..*before }
    };
    // `a::{self}` is `a`.
    let one = |ident: &Ident| {
        if ident == "self" && !before.path.is_empty() { before.clone() } else { with(ident) }
    };
    match tree {
        UseTree::Path(tree) => collect_leaves(&tree.tree, &with(&tree.ident), found),
        UseTree::Name(tree) => {
            let import = one(&tree.ident);
            let name = import.path.last().cloned();
            found.push(Leaf::One(import, name));
        }
        UseTree::Rename(tree) => {
            let name = (tree.rename != "_").then(|| name(&tree.rename));
            found.push(Leaf::One(one(&tree.ident), name));
        }
        UseTree::Glob(_) => found.push(Leaf::All(before.clone())),
        UseTree::Group(tree) => tree.items.iter().for_each(|tree| collect_leaves(tree, before, found)),
    }
}

/// A name as paths write it, `r#type` as `type`.
pub(super) fn name(ident: &Ident) -> String {
    ident.unraw().to_string()
}

/// Whether these attributes leave their item to tests: `#[test]`, or a `#[cfg(...)]` that cannot hold without `test`.
pub(super) fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let path = attribute.path();
        if path.is_ident("cfg") {
            attribute.parse_args::<Meta>().is_ok_and(|condition| without_tests(&condition) == Some(false))
        } else {
            path.segments.last().is_some_and(|last| last.ident == "test")
        }
    })
}

/// What a condition is where `test` does not hold; nothing if it depends on something else.
fn without_tests(condition: &Meta) -> Option<bool> {
    let list = || -> Vec<Option<bool>> {
        let Meta::List(list) = condition else { return Vec::new() };
        let parts = list.parse_args_with(Punctuated::<Meta, syn::Token![,]>::parse_terminated);
        parts.map(|parts| parts.iter().map(without_tests).collect()).unwrap_or_default()
    };
    let path = condition.path();
    if path.is_ident("test") {
        Some(false)
    } else if path.is_ident("not") {
        list().first().copied().flatten().map(|holds| !holds)
    } else if path.is_ident("all") {
        let parts = list();
        if parts.contains(&Some(false)) {
            Some(false)
        } else {
            parts.iter().all(|part| *part == Some(true)).then_some(true)
        }
    } else if path.is_ident("any") {
        let parts = list();
        if parts.contains(&Some(true)) {
            Some(true)
        } else {
            parts.iter().all(|part| *part == Some(false)).then_some(false)
        }
    } else {
        None
    }
}

/// The attributes of an item.
pub(super) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether one of the attributes is this word.
pub(super) fn has(attributes: &[Attribute], word: &str) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident(word))
}
