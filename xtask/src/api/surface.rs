//! Reads one library and lists what others can name of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use syn::{Attribute, Fields, ImplItem, Item, Meta, TraitItem, Type, UseTree, Visibility, ext::IdentExt as _};

use crate::sources;

/// Re-exports of re-exports that are followed.
const DEPTH: usize = 8;

/// A module with its children.
pub(crate) struct Module {
    /// What stands at the head of its file: its documentation, among it.
    pub(crate) head: Vec<Attribute>,
    pub(crate) items: Vec<Item>,
    pub(crate) children: BTreeMap<String, Module>,
}

/// The public paths of the library with this root file.
pub(crate) fn paths(library: &str, root: &Path) -> anyhow::Result<BTreeSet<String>> {
    let root = library_at(root)?;
    let mut methods = BTreeMap::new();
    collect_methods(&root, &mut methods);
    let mut lister = Lister { root: &root, methods, found: BTreeSet::new() };
    lister.module(&[], library, DEPTH);
    Ok(lister.found)
}

/// Reads a library with all of its modules.
pub(crate) fn library_at(root: &Path) -> anyhow::Result<Module> {
    read(root, root.parent().unwrap_or(Path::new("")))
}

/// Reads a file whose child modules lie in the folder `children`.
fn read(file: &Path, children: &Path) -> anyhow::Result<Module> {
    let parsed = syn::parse_file(&sources::text(file)?)
        .map_err(|error| anyhow::anyhow!("{}:{}: {error}", file.display(), error.span().start().line))?;
    Ok(Module { head: parsed.attrs, ..read_items(parsed.items, children)? })
}

fn read_items(all: Vec<Item>, folder: &Path) -> anyhow::Result<Module> {
    let mut module = Module { head: Vec::new(), items: Vec::new(), children: BTreeMap::new() };
    for mut item in all {
        if is_left_out(attributes(&item)) {
            continue;
        }
        if let Item::Mod(child) = &mut item {
            let name = child.ident.unraw().to_string();
            let below = folder.join(&name);
            let read = match child.content.take() {
                Some((_, items)) => read_items(items, &below)?,
                None if below.join("mod.rs").exists() => read(&below.join("mod.rs"), &below)?,
                None => read(&folder.join(format!("{name}.rs")), &below)?,
            };
            module.children.insert(name, read);
        }
        module.items.push(item);
    }
    Ok(module)
}

/// Public methods and constants by the name of their type.
fn collect_methods(module: &Module, methods: &mut BTreeMap<String, BTreeSet<String>>) {
    for item in &module.items {
        let Item::Impl(block) = item else { continue };
        let (Type::Path(of), None) = (&*block.self_ty, &block.trait_) else { continue };
        let Some(of) = of.path.segments.last() else { continue };
        let names = block.items.iter().filter_map(|item| match item {
            ImplItem::Fn(item) if is_public(&item.vis) && !is_left_out(&item.attrs) => Some(&item.sig.ident),
            ImplItem::Const(item) if is_public(&item.vis) && !is_left_out(&item.attrs) => Some(&item.ident),
            _ => None,
        });
        methods.entry(of.ident.to_string()).or_default().extend(names.map(|name| name.unraw().to_string()));
    }
    module.children.values().for_each(|child| collect_methods(child, methods));
}

struct Lister<'a> {
    root: &'a Module,
    methods: BTreeMap<String, BTreeSet<String>>,
    found: BTreeSet<String>,
}

impl<'a> Lister<'a> {
    /// Lists a module, which others see as `seen`.
    fn module(&mut self, place: &[String], seen: &str, depth: usize) {
        let (Some(module), Some(depth)) = (self.at(place), depth.checked_sub(1)) else { return };
        for item in &module.items {
            match item {
                Item::Use(item) if is_public(&item.vis) => {
                    for (path, name) in leaves(&item.tree) {
                        self.reexport(place, &path, seen, &name, depth);
                    }
                }
                Item::Macro(item) if has(&item.attrs, "macro_export") => {
                    if let Some(name) = &item.ident {
                        // Whatever module it stands in, it is seen at the root.
                        let library = seen.split("::").next().unwrap_or(seen);
                        self.found.insert(format!("{library}::{name}!"));
                    }
                }
                Item::Mod(item) if !is_public(&item.vis) => self.macros(place, &item.ident.unraw().to_string(), seen),
                item => {
                    if let Some(name) = public_name(item) {
                        self.item(item, place, &format!("{seen}::{name}"), depth);
                    }
                }
            }
        }
    }

    /// Macros are seen at the root though their module is not.
    fn macros(&mut self, place: &[String], child: &str, seen: &str) {
        let place = [place, &[child.to_owned()]].concat();
        let Some(module) = self.at(&place) else { return };
        let library = seen.split("::").next().unwrap_or(seen);
        for item in &module.items {
            if let Item::Macro(item) = item
                && has(&item.attrs, "macro_export")
                && let Some(name) = &item.ident
            {
                self.found.insert(format!("{library}::{name}!"));
            }
        }
    }

    /// Lists an item, which others see as `seen`.
    fn item(&mut self, item: &Item, place: &[String], seen: &str, depth: usize) {
        let (name, parts) = match item {
            Item::Mod(item) => {
                let child = [place, &[item.ident.unraw().to_string()]].concat();
                self.found.insert(seen.to_owned());
                return self.module(&child, seen, depth);
            }
            Item::Struct(item) => (item.ident.to_string(), fields(&item.fields)),
            Item::Enum(item) => {
                (item.ident.to_string(), item.variants.iter().map(|variant| format!("::{}", variant.ident)).collect())
            }
            Item::Trait(item) => (item.ident.to_string(), item.items.iter().filter_map(trait_part).collect()),
            _ => (String::new(), Vec::new()),
        };
        let methods = self.methods.get(&name).into_iter().flatten().map(|method| format!("::{method}"));
        let parts: Vec<_> = parts.into_iter().chain(methods).map(|part| format!("{seen}{part}")).collect();
        self.found.extend(parts);
        self.found.insert(seen.to_owned());
    }

    /// Lists what a `pub use` of `path` in the module at `place` shows as `name`.
    fn reexport(&mut self, place: &[String], path: &[String], seen: &str, name: &str, depth: usize) {
        match self.resolve(place, path, depth) {
            Some((place, None)) => self.module(&place, seen, depth),
            Some((place, Some(item))) => self.item(item, &place, &format!("{seen}::{name}"), depth),
            None => {
                self.found.insert(format!("{seen}::{name} = {}", path.join("::")));
            }
        }
    }

    /// The module that a path leads to and the item in it; no item for a glob. Nothing for what is of another crate.
    fn resolve(&self, place: &[String], path: &[String], depth: usize) -> Option<(Vec<String>, Option<&'a Item>)> {
        let depth = depth.checked_sub(1)?;
        let (last, before) = path.split_last()?;
        let mut place = place.to_vec();
        for (index, segment) in before.iter().enumerate() {
            match segment.as_str() {
                "crate" if index == 0 => place.clear(),
                "self" if index == 0 => {}
                "super" => {
                    place.pop()?;
                }
                name => place = self.child(place, name, depth)?,
            }
        }
        if last == "*" {
            return Some((place, None));
        }
        for item in &self.at(&place)?.items {
            if let Item::Use(item) = item {
                for (path, _) in leaves(&item.tree).into_iter().filter(|(path, name)| name == last && path.len() > 1) {
                    if let Some(found) = self.resolve(&place, &path, depth) {
                        return Some(found);
                    }
                }
            } else if public_name(item).as_ref() == Some(last) {
                return Some((place, Some(item)));
            }
        }
        None
    }

    /// The module that others know as `name` in the one at `place`: a child, or what an import calls so.
    fn child(&self, place: Vec<String>, name: &str, depth: usize) -> Option<Vec<String>> {
        let (depth, module) = (depth.checked_sub(1)?, self.at(&place)?);
        if module.children.contains_key(name) {
            return Some([place, vec![name.to_owned()]].concat());
        }
        let imports = module.items.iter().filter_map(|item| if let Item::Use(item) = item { Some(item) } else { None });
        let mut named = imports.flat_map(|item| leaves(&item.tree)).filter(|(_, known)| known == name);
        named.find_map(|(path, _)| {
            path.iter().try_fold(place.clone(), |place, segment| match segment.as_str() {
                "crate" => Some(Vec::new()),
                "self" => Some(place),
                segment => self.child(place, segment, depth),
            })
        })
    }

    fn at(&self, place: &[String]) -> Option<&'a Module> {
        place.iter().try_fold(self.root, |module, name| module.children.get(name))
    }
}

/// Each path of an import, with the name that it is given; `*` for a glob.
fn leaves(tree: &UseTree) -> Vec<(Vec<String>, String)> {
    match tree {
        UseTree::Path(tree) => {
            let first = tree.ident.unraw().to_string();
            let below = leaves(&tree.tree).into_iter();
            below
                .map(|(path, name)| match path.as_slice() {
                    // The module itself, under its own name unless it is given another.
                    [only] if only == "self" => {
                        (vec![first.clone()], if name == "self" { first.clone() } else { name })
                    }
                    _ => ([vec![first.clone()], path].concat(), name),
                })
                .collect()
        }
        UseTree::Name(tree) => vec![(vec![tree.ident.unraw().to_string()], tree.ident.unraw().to_string())],
        UseTree::Rename(tree) => vec![(vec![tree.ident.unraw().to_string()], tree.rename.unraw().to_string())],
        UseTree::Glob(_) => vec![(vec!["*".to_owned()], "*".to_owned())],
        UseTree::Group(tree) => tree.items.iter().flat_map(leaves).collect(),
    }
}

fn fields(fields: &Fields) -> Vec<String> {
    let public = fields.iter().enumerate().filter(|(_, field)| is_public(&field.vis));
    public.map(|(index, field)| field.ident.as_ref().map_or(format!(".{index}"), |name| format!(".{name}"))).collect()
}

fn trait_part(item: &TraitItem) -> Option<String> {
    match item {
        TraitItem::Fn(item) => Some(format!("::{}", item.sig.ident)),
        TraitItem::Const(item) => Some(format!("::{}", item.ident)),
        TraitItem::Type(item) => Some(format!("::{}", item.ident)),
        _ => None,
    }
}

/// The name of an item that is public.
fn public_name(item: &Item) -> Option<String> {
    let (visibility, name) = match item {
        Item::Const(item) => (&item.vis, &item.ident),
        Item::Enum(item) => (&item.vis, &item.ident),
        Item::Fn(item) => (&item.vis, &item.sig.ident),
        Item::Mod(item) => (&item.vis, &item.ident),
        Item::Static(item) => (&item.vis, &item.ident),
        Item::Struct(item) => (&item.vis, &item.ident),
        Item::Trait(item) => (&item.vis, &item.ident),
        Item::Type(item) => (&item.vis, &item.ident),
        Item::Union(item) => (&item.vis, &item.ident),
        _ => return None,
    };
    is_public(visibility).then(|| name.unraw().to_string())
}

pub(crate) fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// Whether this is for tests, or hidden from documentation.
pub(crate) fn is_left_out(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            matches!(&*list.tokens.to_string(), "test" | "loom" | "doctest")
        }
        Meta::List(list) => list.path.is_ident("doc") && list.tokens.to_string() == "hidden",
        _ => false,
    })
}

fn has(attributes: &[Attribute], name: &str) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident(name))
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_can_name_is_listed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "lib.rs",
            "mod deep; pub mod open; use deep as under; pub use under::{Thing as Shown, far::{self, LONG}}; pub use other::Their;
             #[cfg(test)] mod tests; #[doc(hidden)] pub mod internal { pub fn f() {} }",
        );
        write(
            "deep.rs",
            "pub struct Thing { pub field: u8, secret: u8 } impl Thing { pub fn act(&self) {} fn hide(&self) {} }
             pub mod far { pub const LONG: u8 = 1; } pub struct Unseen; #[macro_export] macro_rules! made { () => {} }",
        );
        write("open.rs", "pub enum Way { Up, Down } pub(crate) fn inner() {} pub use crate::deep::Thing;");
        let found = paths("lib", &folder.path().join("lib.rs")).unwrap();
        let expected = [
            "lib::LONG",
            "lib::Shown",
            "lib::Shown.field",
            "lib::Shown::act",
            "lib::Their = other::Their",
            "lib::far",
            "lib::far::LONG",
            "lib::made!",
            "lib::open",
            "lib::open::Thing",
            "lib::open::Thing.field",
            "lib::open::Thing::act",
            "lib::open::Way",
            "lib::open::Way::Down",
            "lib::open::Way::Up",
        ];
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }
}
