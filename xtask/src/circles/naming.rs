//! Walks through a crate's code and notes which file names what another file defines.

use std::collections::BTreeMap;

use proc_macro2::{Group, Ident, TokenStream, TokenTree};
use syn::{
    Attribute, Block, ImplItem, Item, ItemMacro, ItemUse, Macro, Meta, PatIdent, Path, Stmt, TraitItem,
    ext::IdentExt as _,
    spanned::Spanned as _,
    visit::{self, Visit},
};

use super::{
    modules::Crate,
    resolve::{Place, Target},
    scope::{FileId, Kind, Leaf, ModuleId, Scope, attributes, is_for_tests, leaves, name},
};

/// By file and file: the names that the first one uses of the second, each with the line where it first stands.
pub(super) type Arrows = BTreeMap<(FileId, FileId), BTreeMap<String, usize>>;

/// What a crate's files name of each other.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) arrows: Arrows,
    /// Paths that begin in this crate and lead nowhere, as file, line and path: gaps of this check.
    pub(super) lost: Vec<(FileId, usize, String)>,
}

/// Everything that the files of a crate name of each other.
pub(super) fn names(of: &Crate) -> Found {
    let mut found = Found::default();
    for (module, content) in of.modules.iter().enumerate() {
        let mut walk = Walk { of, module, blocks: Vec::new(), found: &mut found };
        content.items.iter().for_each(|item| walk.visit_item(item));
    }
    found
}

/// Attributes whose words name no item.
const PLAIN: &[&str] = &[
    "allow",
    "cfg",
    "cold",
    "deny",
    "derive",
    "doc",
    "expect",
    "forbid",
    "inline",
    "macro_export",
    "macro_use",
    "must_use",
    "non_exhaustive",
    "path",
    "repr",
    "warn",
];

struct Walk<'a> {
    of: &'a Crate,
    module: ModuleId,
    /// The blocks around the place where the walk is, the innermost last.
    blocks: Vec<Scope>,
    found: &'a mut Found,
}

/// Whether a path that leads nowhere is a gap, or may be something else than a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Certain {
    Yes,
    No,
}

impl Walk<'_> {
    fn place(&self) -> Place<'_> {
        Place { module: self.module, blocks: &self.blocks }
    }

    fn file(&self) -> FileId {
        self.of.modules[self.module].file
    }

    fn note(&mut self, targets: Vec<Target>, line: usize) {
        let from = self.file();
        for target in targets {
            if let Target::Item(definition) = target
                && definition.file != from
            {
                let names = self.found.arrows.entry((from, definition.file)).or_default();
                names.entry(definition.name).or_insert(line);
            }
        }
    }

    fn name(&mut self, path: &[String], line: usize, certain: Certain) {
        let targets = self.of.resolve(self.place(), path);
        if targets.is_empty() && certain == Certain::Yes {
            self.found.lost.push((self.file(), line, path.join("::")));
        }
        let no_macro = |target: &Target| !matches!(target, Target::Item(item) if item.kind == Kind::Macro);
        self.note(targets.into_iter().filter(no_macro).collect(), line);
    }

    fn name_macro(&mut self, path: &[String], line: usize) {
        let targets = match path {
            [name] => self.of.resolve_macro(self.place(), name),
            path => self.of.resolve(self.place(), path),
        };
        let only_macro = |target: &Target| matches!(target, Target::Item(item) if item.kind == Kind::Macro);
        self.note(targets.into_iter().filter(only_macro).collect(), line);
    }

    /// Notes the paths in tokens that are no syntax tree: what macros and attributes are given, and bodies of macros.
    fn tokens(&mut self, tokens: &TokenStream) {
        let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => {
                    self.group(group);
                    at += 1;
                }
                TokenTree::Ident(ident) if !follows_field_or_variable(&tokens, at) => {
                    at = self.path_in_tokens(ident, &tokens, at);
                }
                _ => at += 1,
            }
        }
    }

    fn group(&mut self, group: &Group) {
        self.tokens(&group.stream());
    }

    /// The path that begins with this token. Returns where it ends.
    fn path_in_tokens(&mut self, first: &Ident, tokens: &[TokenTree], at: usize) -> usize {
        let mut path = vec![name(first)];
        let mut end = at + 1;
        while is_punct(tokens, end, ':') && is_punct(tokens, end + 1, ':') {
            let Some(TokenTree::Ident(ident)) = tokens.get(end + 2) else { break };
            path.push(name(ident));
            end += 3;
        }
        let line = first.span().start().line;
        let is_alone = path.len() == 1;
        if is_punct(tokens, end, '!') && matches!(tokens.get(end + 1), Some(TokenTree::Group(_))) {
            self.name_macro(&path, line);
        } else if !(is_alone && (is_field(tokens, end) || path[0] == "Self")) {
            self.name(&path, line, Certain::No);
        }
        end
    }
}

/// Whether the word at `at` is a field, a lifetime, a variable of a macro, or goes on from something else.
fn follows_field_or_variable(tokens: &[TokenTree], at: usize) -> bool {
    let before = |distance: usize, c| at.checked_sub(distance).is_some_and(|at| is_punct(tokens, at, c));
    let own_crate = matches!(&tokens[at], TokenTree::Ident(ident) if ident == "crate");
    before(1, '\'')
        || before(1, ':') && before(2, ':')
        || before(1, '.') && !before(2, '.')
        || before(1, '$') && !own_crate
}

/// Whether what stands before `end` is the name of a field or argument: `name: value`, `name = value`.
fn is_field(tokens: &[TokenTree], end: usize) -> bool {
    is_punct(tokens, end, ':') && !is_punct(tokens, end + 1, ':')
        || is_punct(tokens, end, '=') && !is_punct(tokens, end + 1, '=')
}

fn is_punct(tokens: &[TokenTree], at: usize, c: char) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == c)
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        // Items at the top were chosen before; those within functions were not.
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes: &[Attribute] = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            ImplItem::Macro(item) => &item.attrs,
            _ => &[],
        };
        if !is_for_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &'ast TraitItem) {
        let attributes: &[Attribute] = match item {
            TraitItem::Const(item) => &item.attrs,
            TraitItem::Fn(item) => &item.attrs,
            TraitItem::Type(item) => &item.attrs,
            TraitItem::Macro(item) => &item.attrs,
            _ => &[],
        };
        if !is_for_tests(attributes) {
            visit::visit_trait_item(self, item);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !is_for_tests(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_field_value(&mut self, field: &'ast syn::FieldValue) {
        if !is_for_tests(&field.attrs) {
            visit::visit_field_value(self, field);
        }
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        if !is_for_tests(&variant.attrs) {
            visit::visit_variant(self, variant);
        }
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        if !is_for_tests(&arm.attrs) {
            visit::visit_arm(self, arm);
        }
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if !is_for_tests(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_expr_block(&mut self, block: &'ast syn::ExprBlock) {
        if !is_for_tests(&block.attrs) {
            visit::visit_expr_block(self, block);
        }
    }

    /// A module has a walk of its own.
    fn visit_item_mod(&mut self, _: &'ast syn::ItemMod) {}

    fn visit_block(&mut self, block: &'ast Block) {
        let mut scope = Scope::default();
        for statement in &block.stmts {
            if let Stmt::Item(item) = statement
                && !is_for_tests(attributes(item))
            {
                scope.add(item, self.file());
            }
        }
        self.blocks.push(scope);
        visit::visit_block(self, block);
        self.blocks.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        for leaf in leaves(item) {
            let (import, is_glob) = match leaf {
                Leaf::One(import, _) => (import, false),
                Leaf::All(import) => (import, true),
            };
            let mut targets = self.of.resolve_import(self.place(), &import);
            if targets.is_empty() {
                self.found.lost.push((self.file(), import.line, import.path.join("::")));
            }
            // What is handed on is named. What a glob import gives to its own module alone is named where it is used.
            if is_glob && import.exported {
                let modules = targets.iter().filter_map(|target| match target {
                    Target::Module(module) => Some(*module),
                    Target::Item(_) | Target::Outside => None,
                });
                let all: Vec<_> = modules.flat_map(|module| self.of.all_in(module)).collect();
                targets.extend(all.into_iter().map(Target::Item));
            }
            self.note(targets, import.line);
        }
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| name(&segment.ident)).collect();
        if path.leading_colon.is_none() && segments.first().is_some_and(|first| first != "Self") {
            self.name(&segments, path.span().start().line, Certain::Yes);
        }
        visit::visit_path(self, path);
    }

    /// A constant in a pattern looks like a variable.
    fn visit_pat_ident(&mut self, pattern: &'ast PatIdent) {
        let ident = pattern.ident.unraw().to_string();
        if pattern.subpat.is_none() && ident.chars().all(|c| c == '_' || c.is_uppercase() || c.is_ascii_digit()) {
            self.name(&[ident], pattern.ident.span().start().line, Certain::No);
        }
        visit::visit_pat_ident(self, pattern);
    }

    fn visit_item_macro(&mut self, item: &'ast ItemMacro) {
        if item.ident.is_some() {
            self.tokens(&item.mac.tokens);
        } else {
            visit::visit_item_macro(self, item);
        }
    }

    fn visit_macro(&mut self, invoked: &'ast Macro) {
        let path: Vec<String> = invoked.path.segments.iter().map(|segment| name(&segment.ident)).collect();
        if invoked.path.leading_colon.is_none() {
            self.name_macro(&path, invoked.path.span().start().line);
        }
        self.tokens(&invoked.tokens);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if PLAIN.iter().any(|plain| attribute.path().is_ident(plain)) {
            return;
        }
        match &attribute.meta {
            Meta::Path(_) => {}
            Meta::NameValue(value) => visit::visit_expr(self, &value.value),
            Meta::List(list) => {
                self.tokens(&list.tokens);
                self.paths_in_text(&list.tokens);
            }
        }
    }

    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}
}

impl Walk<'_> {
    /// serde is told functions as text: `#[serde(with = "crate::bytes")]`.
    fn paths_in_text(&mut self, tokens: &TokenStream) {
        for token in tokens.clone() {
            match token {
                TokenTree::Group(group) => self.paths_in_text(&group.stream()),
                TokenTree::Literal(literal) => {
                    let text = syn::parse_str::<syn::LitStr>(&literal.to_string());
                    let Some(path) = text.ok().and_then(|text| text.parse::<Path>().ok()) else { continue };
                    let path: Vec<String> = path.segments.iter().map(|segment| name(&segment.ident)).collect();
                    self.name(&path, literal.span().start().line, Certain::No);
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
    }
}
