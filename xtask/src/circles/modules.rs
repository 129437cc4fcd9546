//! Reads a crate: its files, the tree of its modules, and what each module declares.

use std::{
    collections::HashMap,
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::Context as _;
use syn::{Attribute, Expr, ExprLit, Item, ItemMod, Lit, Meta, MetaNameValue};

use super::scope::{FileId, Kind, ModuleId, Named, Scope, attributes, has, is_for_tests, name};

/// A crate: what one root file and the files that it declares make.
pub(super) struct Crate {
    /// Without double components; as the root was given.
    pub(super) files: Vec<PathBuf>,
    /// The root first.
    pub(super) modules: Vec<Module>,
    by_path: HashMap<PathBuf, FileId>,
}

pub(super) struct Module {
    pub(super) parent: Option<ModuleId>,
    pub(super) file: FileId,
    pub(super) scope: Scope,
    /// Its items, without those of its child modules and those for tests.
    pub(super) items: Vec<Item>,
}

/// Where the files of a module's children are.
struct Folders {
    /// For `mod child;`.
    children: PathBuf,
    /// For `#[path = "..."] mod child;`.
    paths: PathBuf,
}

impl Crate {
    /// Reads a crate from its root file on.
    ///
    /// # Errors
    /// A file cannot be read, or is no Rust.
    pub(super) fn read(root: &Path) -> anyhow::Result<Self> {
        let mut this = Self { files: Vec::new(), modules: Vec::new(), by_path: HashMap::new() };
        this.read_file(root, None, true)?;
        Ok(this)
    }

    /// Reads a file as a module. Children of a file like `lib.rs` or `mod.rs` lie beside it.
    fn read_file(&mut self, path: &Path, parent: Option<ModuleId>, beside: bool) -> anyhow::Result<ModuleId> {
        let path = normal(path);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let parsed = syn::parse_file(&text)
            .map_err(|error| anyhow::anyhow!("{}:{}: {error}", path.display(), error.span().start().line))?;
        let file = *self.by_path.entry(path.clone()).or_insert_with(|| {
            self.files.push(path.clone());
            self.files.len() - 1
        });
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let children = if beside { folder.clone() } else { path.with_extension("") };
        self.read_module(parsed.items, parent, file, &Folders { children, paths: folder })
    }

    fn read_module(
        &mut self,
        items: Vec<Item>,
        parent: Option<ModuleId>,
        file: FileId,
        folders: &Folders,
    ) -> anyhow::Result<ModuleId> {
        let id = self.modules.len();
        self.modules.push(Module { parent, file, scope: Scope::default(), items: Vec::new() });
        for item in items {
            if is_for_tests(attributes(&item)) {
                continue;
            }
            if let Item::Mod(item) = item {
                self.read_child(item, id, folders)?;
                continue;
            }
            self.modules[id].scope.add(&item, file);
            if has(attributes(&item), "macro_export") {
                self.modules[0].scope.add(&item, file);
            }
            self.modules[id].items.push(item);
        }
        Ok(id)
    }

    fn read_child(&mut self, item: ItemMod, parent: ModuleId, folders: &Folders) -> anyhow::Result<()> {
        let name = name(&item.ident);
        let written = path_attribute(&item.attrs);
        let (lifts_macros, file) = (has(&item.attrs, "macro_use"), self.modules[parent].file);
        let child = match (item.content, written) {
            (Some((_, items)), written) => {
                let children = match written {
                    Some(path) => folders.paths.join(path),
                    None => folders.children.join(&name),
                };
                let folders = Folders { paths: children.clone(), children };
                self.read_module(items, Some(parent), file, &folders)?
            }
            (None, Some(path)) => self.read_file(&folders.paths.join(path), Some(parent), true)?,
            (None, None) => {
                let (flat, deep) =
                    (folders.children.join(format!("{name}.rs")), folders.children.join(&name).join("mod.rs"));
                let is_deep = !flat.exists();
                self.read_file(if is_deep { &deep } else { &flat }, Some(parent), is_deep)?
            }
        };
        if lifts_macros {
            let macros = self.modules[child].scope.names.iter().flat_map(|(name, all)| {
                all.iter().filter_map(move |one| match one {
                    Named::Item(definition) if definition.kind == Kind::Macro => {
                        Some((name.clone(), definition.clone()))
                    }
                    _ => None,
                })
            });
            for (name, definition) in macros.collect::<Vec<_>>() {
                self.modules[parent].scope.names.entry(name).or_default().push(Named::Item(definition));
            }
        }
        self.modules[parent].scope.names.entry(name).or_default().push(Named::Module(child));
        Ok(())
    }
}

/// The value of `#[path = "..."]`.
fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(MetaNameValue { path, value: Expr::Lit(ExprLit { lit: Lit::Str(text), .. }), .. })
            if path.is_ident("path") =>
        {
            Some(text.value())
        }
        _ => None,
    })
}

/// The path without `.` and, where that can be told, `..`.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(normal.components().next_back(), Some(Component::Normal(_))) => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}
