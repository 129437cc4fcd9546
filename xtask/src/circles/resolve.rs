//! Follows a path to the files that define what it names.

use super::{
    modules::{Crate, Module},
    scope::{Definition, Import, Kind, ModuleId, Named, Scope},
};

/// What a path, or a part of one, leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Module(ModuleId),
    Item(Definition),
    /// Something that is not of this crate.
    Outside,
}

/// A place from which paths are seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) module: ModuleId,
    /// The blocks around it, the innermost last.
    pub(super) blocks: &'a [Scope],
}

/// Imports that are being followed, so that one which names itself ends.
type Following<'a> = Vec<&'a Import>;

impl Crate {
    /// Everything that a path names; nothing if it begins in this crate and leads nowhere.
    pub(super) fn resolve(&self, place: Place<'_>, path: &[String]) -> Vec<Target> {
        self.follow(place, path, &mut Vec::new())
    }

    /// What `import`, which stands at `place`, leads to.
    pub(super) fn resolve_import(&self, place: Place<'_>, import: &Import) -> Vec<Target> {
        if import.outside { vec![Target::Outside] } else { self.resolve(place, &import.path) }
    }

    /// The macros that this name without a path can mean: those in scope, and those of the modules around.
    pub(super) fn resolve_macro(&self, place: Place<'_>, name: &str) -> Vec<Target> {
        let mut module = Some(place.module);
        let mut blocks = place.blocks;
        while let Some(id) = module {
            let place = Place { module: id, blocks };
            let mut found = self.follow(place, &[name.to_owned()], &mut Vec::new());
            found.retain(|target| matches!(target, Target::Item(definition) if definition.kind == Kind::Macro));
            if !found.is_empty() {
                return found;
            }
            (module, blocks) = (self.modules[id].parent, &[]);
        }
        Vec::new()
    }

    fn follow<'a>(&'a self, place: Place<'a>, path: &[String], following: &mut Following<'a>) -> Vec<Target> {
        let Some((first, mut rest)) = path.split_first() else { return Vec::new() };
        let mut targets = match first.as_str() {
            "crate" | "$crate" => vec![Target::Module(0)],
            // `self` may stand before `super`, too.
            "self" | "super" => {
                let mut module = if first == "self" { Some(place.module) } else { self.modules[place.module].parent };
                while let Some((_, after)) = rest.split_first().filter(|(next, _)| *next == "super") {
                    (module, rest) = (module.and_then(|module| self.modules[module].parent), after);
                }
                module.map(Target::Module).into_iter().collect()
            }
            first => {
                let found = self.look_up(place, first, following);
                if found.is_empty() { vec![Target::Outside] } else { found }
            }
        };
        for segment in rest {
            // A value of the same name is not what is meant before `::`.
            targets
                .retain(|target| !matches!(target, Target::Item(Definition { kind: Kind::Value | Kind::Macro, .. })));
            targets = targets
                .into_iter()
                .flat_map(|target| match target {
                    Target::Module(module) => {
                        let mut found = self.look_into(module, segment, following);
                        if found.is_empty() {
                            found.extend(self.guess(module, segment));
                        }
                        found
                    }
                    // Variants, associated functions and constants are where their type is.
                    Target::Item(_) | Target::Outside => vec![target],
                })
                .collect();
        }
        targets
    }

    /// What a first segment means: the innermost block that has it, else the module.
    fn look_up<'a>(&'a self, place: Place<'a>, name: &str, following: &mut Following<'a>) -> Vec<Target> {
        for (depth, block) in place.blocks.iter().enumerate().rev() {
            let place = Place { blocks: &place.blocks[..=depth], ..place };
            let found = self.search(place, block, name, following);
            if !found.is_empty() {
                return found;
            }
        }
        self.look_into(place.module, name, following)
    }

    /// What a name means in a module.
    fn look_into<'a>(&'a self, module: ModuleId, name: &str, following: &mut Following<'a>) -> Vec<Target> {
        let place = Place { module, blocks: &[] };
        self.search(place, &self.modules[module].scope, name, following)
    }

    /// What a name that is not declared in a module may be all the same: something out of a glob import from outside,
    /// or made there by a macro that nobody expands here.
    fn guess(&self, module: ModuleId, name: &str) -> Option<Target> {
        let Module { file, scope, .. } = &self.modules[module];
        let place = Place { module, blocks: &[] };
        if scope.globs.iter().any(|glob| self.resolve_import(place, glob).contains(&Target::Outside)) {
            return Some(Target::Outside);
        }
        let definition = Definition { file: *file, name: name.to_owned(), kind: Kind::Type };
        scope.has_made_items.then_some(Target::Item(definition))
    }

    fn search<'a>(
        &'a self,
        place: Place<'a>,
        scope: &'a Scope,
        name: &str,
        following: &mut Following<'a>,
    ) -> Vec<Target> {
        let mut found: Vec<Target> = Vec::new();
        for named in scope.names.get(name).into_iter().flatten() {
            match named {
                Named::Module(module) => found.push(Target::Module(*module)),
                Named::Item(definition) => found.push(Target::Item(definition.clone())),
                Named::Import(import) => found.extend(self.follow_import(place, import, following)),
            }
        }
        if !found.is_empty() {
            return found;
        }
        for glob in &scope.globs {
            for target in self.follow_import(place, glob, following) {
                match target {
                    Target::Module(module) => {
                        following.push(glob);
                        found.extend(self.look_into(module, name, following));
                        following.pop();
                    }
                    Target::Item(Definition { kind: Kind::Enum(ref variants), .. })
                        if variants.iter().any(|variant| variant == name) =>
                    {
                        found.push(target);
                    }
                    Target::Item(_) | Target::Outside => {}
                }
            }
        }
        found
    }

    fn follow_import<'a>(&'a self, place: Place<'a>, import: &'a Import, following: &mut Following<'a>) -> Vec<Target> {
        if import.outside {
            return vec![Target::Outside];
        }
        if following.iter().any(|one| std::ptr::eq(*one, import)) {
            return Vec::new();
        }
        following.push(import);
        let found = self.follow(place, &import.path, following);
        following.pop();
        found
    }

    /// Every item that a glob import of this module gives on.
    pub(super) fn all_in(&self, module: ModuleId) -> Vec<Definition> {
        let mut found = Vec::new();
        self.collect_all(module, &mut Vec::new(), &mut found);
        found
    }

    fn collect_all(&self, module: ModuleId, seen: &mut Vec<ModuleId>, found: &mut Vec<Definition>) {
        if seen.contains(&module) {
            return;
        }
        seen.push(module);
        let scope = &self.modules[module].scope;
        let place = Place { module, blocks: &[] };
        for named in scope.names.values().flatten() {
            match named {
                Named::Item(definition) => found.push(definition.clone()),
                Named::Import(import) if import.exported => {
                    found.extend(self.resolve_import(place, import).into_iter().filter_map(|target| match target {
                        Target::Item(definition) => Some(definition),
                        Target::Module(_) | Target::Outside => None,
                    }));
                }
                Named::Import(_) | Named::Module(_) => {}
            }
        }
        for glob in scope.globs.iter().filter(|glob| glob.exported) {
            for target in self.resolve_import(place, glob) {
                if let Target::Module(module) = target {
                    self.collect_all(module, seen, found);
                }
            }
        }
    }
}
