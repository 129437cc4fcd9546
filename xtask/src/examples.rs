//! Each method of `bellrope` that users can call is shown in an example.
//!
//! That is one of its own; one of its type, of another method of that, or of the module that the type stands in, which calls it;
//! or one that its documentation links to, as in `[Example](Self)`. The compiler tries them all as tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use syn::{Attribute, Expr, ImplItem, Item, Lit, Meta, Type, ext::IdentExt as _};

use crate::{
    api::surface::{self, Module, is_left_out, is_public},
    found::Found,
};

/// The library that users write programs with. Its types and methods have names of their own.
const LIBRARY: &str = "bellrope";

/// Methods without an example, each with the reason.
const WITHOUT: &[(&str, &str)] = &[];

/// A type with what its documentation shows.
#[derive(Default)]
struct Documented {
    /// The code of all examples that belong to it.
    code: String,
    methods: BTreeMap<String, String>,
}

/// Looks for methods that no example shows.
///
/// # Errors
/// A file cannot be read or is not Rust.
pub fn check(root: &Path) -> anyhow::Result<Found> {
    let file = root.join("crates").join(LIBRARY).join("src/lib.rs");
    let public = surface::paths(LIBRARY, &file)?;
    let public = public.iter().filter_map(|path| method_of(path)).collect();
    Ok(of(&surface::library_at(&file)?, &public, WITHOUT))
}

/// Type and method, the last two names of a path.
fn method_of(path: &str) -> Option<String> {
    let mut names = path.rsplit("::");
    let (method, of) = (names.next()?, names.next()?);
    Some(format!("{of}::{method}"))
}

fn of(library: &Module, public: &BTreeSet<String>, without: &[(&str, &str)]) -> Found {
    let mut types = BTreeMap::new();
    collect(library, &mut types);
    let (mut all, mut explained, mut faults) = (0, BTreeSet::new(), Vec::new());
    for (name, documented) in &types {
        for (method, documentation) in &documented.methods {
            let path = format!("{name}::{method}");
            if !public.contains(&path) {
                continue;
            }
            all += 1;
            if has_own(documentation) || calls(&documented.code, name, method) {
                continue;
            }
            match without.iter().find(|(left, _)| *left == path) {
                Some(_) => drop(explained.insert(path)),
                None => faults.push(format!(
                    "no example shows {path}: give it one, have that of {name} call it, or link to one that does, as in \
                     [Example](Self)"
                )),
            }
        }
    }
    let stale = without.iter().filter(|(path, _)| !explained.contains(*path));
    faults.extend(stale.map(|(path, _)| format!("{path} has an example, or is not there: take it out of the list")));
    Found::new(format!("{all} methods of {LIBRARY}, {} of them explained", explained.len()), faults)
}

fn collect(module: &Module, types: &mut BTreeMap<String, Documented>) {
    let head = code(&text(&module.head));
    for item in &module.items {
        let (name, attributes) = match item {
            Item::Struct(item) => (item.ident.unraw().to_string(), &item.attrs),
            Item::Enum(item) => (item.ident.unraw().to_string(), &item.attrs),
            Item::Impl(block) => {
                let (Type::Path(of), None) = (&*block.self_ty, &block.trait_) else { continue };
                let Some(of) = of.path.segments.last() else { continue };
                let documented = types.entry(of.ident.unraw().to_string()).or_default();
                for item in &block.items {
                    if let ImplItem::Fn(item) = item
                        && is_public(&item.vis)
                        && !is_left_out(&item.attrs)
                    {
                        let documentation = text(&item.attrs);
                        documented.code.push_str(&code(&documentation));
                        documented.methods.insert(item.sig.ident.unraw().to_string(), documentation);
                    }
                }
                documented.code.push_str(&head);
                continue;
            }
            _ => continue,
        };
        let documented = types.entry(name).or_default();
        documented.code.push_str(&code(&text(attributes)));
        documented.code.push_str(&head);
    }
    module.children.values().for_each(|child| collect(child, types));
}

/// The lines of a documentation.
fn text(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(line) if line.path.is_ident("doc") => match &line.value {
            Expr::Lit(value) => match &value.lit {
                Lit::Str(line) => Some(line.value() + "\n"),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    lines.collect()
}

/// What stands in the blocks of a documentation that are Rust.
fn code(documentation: &str) -> String {
    let (mut code, mut block) = (String::new(), None);
    for line in documentation.lines() {
        match (line.trim().strip_prefix("```"), block) {
            (Some(kind), None) => {
                let kinds = ["", "rust", "no_run", "should_panic"];
                block = Some(kind.split(',').all(|word| kinds.contains(&word.trim())));
            }
            (Some(_), Some(_)) => block = None,
            (None, Some(true)) => code.extend([line, "\n"]),
            (None, _) => {}
        }
    }
    code
}

/// Whether a method's own documentation shows it, or says where it is shown.
fn has_own(documentation: &str) -> bool {
    !code(documentation).is_empty() || documentation.contains("[Example](")
}

/// Whether code calls this method, by `.method(` or by the name of its type.
fn calls(code: &str, of: &str, method: &str) -> bool {
    [format!(".{method}"), format!("{of}::{method}")].iter().any(|call| {
        code.match_indices(call.as_str()).any(|(at, _)| {
            let after = &code[at + call.len()..];
            // A method that is named is as good as one that is called: `map(BreakerState::name)`.
            !after.starts_with(|next: char| next.is_alphanumeric() || next == '_')
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str, without: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lib.rs");
        std::fs::write(&file, source).unwrap();
        let public = surface::paths("lib", &file).unwrap().iter().filter_map(|path| method_of(path)).collect();
        of(&surface::library_at(&file).unwrap(), &public, without).faults
    }

    #[test]
    fn a_method_that_nothing_shows_is_found() {
        let source = "
            /// ```
            /// Bell::new().ring();
            /// ```
            /// ```text
            /// bell.hidden();
            /// ```
            pub struct Bell;
            impl Bell {
                pub fn new() -> Self { Self }
                pub fn ring(&self) {}
                /// ```
                /// Bell::new().tied(Bell::swing);
                /// ```
                pub fn tied(&self) {}
                pub fn swing(&self) {}
                /// As `ring`. [Example](Self).
                pub fn ring_with(&self) {}
                pub fn hidden(&self) {}
                pub(crate) fn inner(&self) {}
            }
            struct Rope;
            impl Rope { pub fn pull(&self) {} }";
        let faults = found(source, &[]);
        assert!(faults.len() == 1 && faults[0].starts_with("no example shows Bell::hidden: "), "{faults:?}");
        assert!(found(source, &[("Bell::hidden", "nobody calls it")]).is_empty());
        let stale = found(source, &[("Bell::hidden", "nobody calls it"), ("Bell::ring", "it was quiet")]);
        assert!(stale.len() == 1 && stale[0].starts_with("Bell::ring has an example"), "{stale:?}");
    }
}
