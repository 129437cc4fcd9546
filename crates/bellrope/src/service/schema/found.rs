//! What has been found out of types so far, and which value is to be read next.

use std::{
    any::type_name,
    collections::{BTreeSet, HashMap, HashSet},
};

use super::{
    contents::{Contents, Kind},
    model::{Form, Shape, Type},
    offers::{Offers, Step},
};

/// Values within values that are read at the most, all together.
pub(super) const MOST_STEPS: usize = 200_000;
/// How deep a type may be inside of itself before another variant is tried.
pub(super) const MOST_DEPTH: usize = 24;

/// What has been found out so far.
pub(super) struct Found {
    /// Whether the codec is one for people, to which some types show another form.
    pub(super) named: bool,
    known: Vec<Traced>,
    by_key: HashMap<Key, usize>,
    /// Where the value that is being read stands. After an error, where that was.
    pub(super) path: Vec<Step>,
    pub(super) offers: Offers,
    /// Variants whose contents are being read: type and number.
    pub(super) inside: Vec<(usize, usize)>,
    /// Types that are being read inside of themselves: nothing new is learnt there, and it is to end soon.
    pub(super) recursing: usize,
    /// The enum that last had to choose how to end.
    last_choice: Option<usize>,
    pub(super) too_deep: bool,
    /// Whether a type asked what comes, where no names travel.
    pub(super) asked: bool,
    /// Whether it ended at an enum without variants.
    pub(super) is_never: bool,
    /// Whether something new was seen.
    pub(super) learnt: bool,
    /// Whether something was read of a type of which no whole value can be.
    pub(super) advanced: bool,
    pub(super) steps: usize,
    /// Why something could not be found out.
    pub(super) doubts: Vec<String>,
}

/// What tells types apart: what reads them, its value's name, their own name, and the names of fields or variants. A name
/// alone is not unique: there may be blocks with items in them, and `#[serde(remote)]`.
type Key = (&'static str, &'static str, &'static str, &'static [&'static str]);

/// A type that has a name.
struct Traced {
    name: &'static str,
    contents: Option<Contents>,
    /// Of an enum.
    variants: Vec<Variant>,
    /// Names of variants, if some have several (`#[serde(alias)]`): serde does not say which are whose.
    aliased: Option<&'static [&'static str]>,
    /// Whether there is no value of it.
    is_never: bool,
    /// How many of it are being read now, each inside of the one before.
    active: usize,
    /// The variant by which it ends where it is inside of itself.
    ending: usize,
}

struct Variant {
    name: String,
    contents: Option<Contents>,
    /// What tells it from others, as far as that is known.
    mark: Option<u64>,
    /// Whether it was read once more after all was known.
    again: bool,
    /// Enums that were seen inside of it.
    reaches: BTreeSet<usize>,
}

/// A type, or one of its variants.
pub(super) type Place = (usize, Option<usize>);

impl Found {
    pub(super) fn new(named: bool) -> Self {
        Self {
            named,
            known: Vec::new(),
            by_key: HashMap::new(),
            path: Vec::new(),
            offers: Offers::default(),
            inside: Vec::new(),
            recursing: 0,
            last_choice: None,
            too_deep: false,
            asked: false,
            is_never: false,
            learnt: false,
            advanced: false,
            steps: 0,
            doubts: Vec::new(),
        }
    }

    /// Forgets what is under way, before a value is read.
    pub(super) fn begin(&mut self) {
        self.inside.clear();
        self.path.clear();
        self.offers.begin();
        (self.recursing, self.last_choice) = (0, None);
        (self.too_deep, self.asked, self.is_never) = (false, false, false);
        (self.learnt, self.advanced) = (false, false);
        self.known.iter_mut().for_each(|traced| traced.active = 0);
    }

    /// After a value that was too deep: has the enum that chose last end in another way. `false` if there is none.
    pub(super) fn end_otherwise(&mut self) -> bool {
        let Some(choice) = self.last_choice.map(|place| &mut self.known[place]) else { return false };
        choice.ending += 1;
        choice.ending < choice.variants.len()
    }

    /// No value can be made of what was read last: has the types around it read field by field. `false` if that is done
    /// already.
    pub(super) fn block(&mut self) -> bool {
        let mut changed = false;
        let path = std::mem::take(&mut self.path);
        let mut place: Option<Place> = None;
        let mut innermost = None;
        for step in &path {
            match step {
                Step::Type(at) => place = Some((*at, None)),
                Step::Variant(variant) => place = place.map(|(at, _)| (at, Some(*variant))),
                Step::Part(part) => {
                    if let Some(place) = place.take() {
                        let is_new = self.contents(place).is_some_and(Contents::block);
                        changed |= is_new;
                        innermost = Some((place, *part, is_new));
                    }
                }
            }
        }
        if let Some((at, Some(variant))) = place {
            // It was refused before anything was read of it.
            if let Some(variant) = self.known[at].variants.get_mut(variant) {
                changed |= variant.contents.is_none();
                variant.contents.get_or_insert_with(|| Contents::new(Kind::Newtype)).block();
            }
        }
        let Some((place, part, is_new)) = innermost else {
            self.doubts.push("it takes none of the values that were tried".to_owned());
            return changed;
        };
        self.doubt(place, part);
        if let Some(open) = self.contents(place).and_then(|contents| contents.parts.get_mut(part)) {
            // Nothing at all was seen of it, not even where it was read alone.
            if open.is_none() && !is_new {
                *open = Some(Shape::Any);
                changed = true;
            }
        }
        changed
    }

    fn doubt(&mut self, place: Place, part: usize) {
        let mut words = self.name(place);
        if let Some(Kind::Struct(names)) = self.contents(place).map(|contents| contents.kind) {
            words.push('.');
            words.push_str(names.get(part).unwrap_or(&""));
        }
        words.push_str(" takes none of the values that were tried");
        if !self.doubts.contains(&words) {
            self.doubts.push(words);
        }
    }

    /// What a type or a variant is called, for people.
    pub(super) fn name(&self, (at, variant): Place) -> String {
        let traced = &self.known[at];
        match variant.and_then(|variant| traced.variants.get(variant)) {
            Some(variant) => format!("{}.{}", traced.name, variant.name),
            None => traced.name.to_owned(),
        }
    }

    fn contents(&mut self, (at, variant): Place) -> Option<&mut Contents> {
        let traced = &mut self.known[at];
        match variant {
            Some(variant) => traced.variants.get_mut(variant)?.contents.as_mut(),
            None => traced.contents.as_mut(),
        }
    }

    /// Kind, parts, and the names under which they are read, of what is known of a type or a variant.
    pub(super) fn seen(&self, (at, variant): Place) -> Option<(Kind, &[Option<Shape>])> {
        let traced = self.known.get(at)?;
        let contents = match variant {
            Some(variant) => traced.variants.get(variant)?.contents.as_ref(),
            None => traced.contents.as_ref(),
        }?;
        Some((contents.kind, &contents.parts))
    }

    /// The names of an enum's variants, if it is clear which is whose.
    pub(super) fn variants(&self, at: usize) -> Option<Vec<&str>> {
        // Whether some have several names is known when all were read.
        let is_clear = |traced: &&Traced| {
            traced.aliased.is_none() && traced.variants.iter().all(|variant| variant.contents.is_some())
        };
        let traced = self.known.get(at).filter(|traced| !traced.variants.is_empty()).filter(is_clear)?;
        Some(traced.variants.iter().map(|variant| variant.name.as_str()).collect())
    }

    /// The name under which a variant is written, which is one of several that are read.
    pub(super) fn variant_is_written(&mut self, at: usize, number: u32, name: &str) {
        if let Some(traced) =
            self.known.get_mut(at).filter(|traced| traced.aliased.is_some_and(|all| all.contains(&name)))
        {
            if let Some(variant) = traced.variants.get_mut(number as usize) {
                name.clone_into(&mut variant.name);
            }
        }
    }

    /// The names under which fields are written, which are some of those that are read.
    pub(super) fn fields_are_written(&mut self, place: Place, names: Vec<&'static str>) {
        if let Some(contents) = self.contents(place).filter(|contents| contents.parts.len() == names.len()) {
            contents.written = Some(names);
        }
    }

    /// All types that were found, if nothing about them is left open.
    pub(super) fn types(self) -> Option<Vec<Type>> {
        let mut taken: HashMap<&str, usize> = HashMap::new();
        let mut types = Vec::new();
        for traced in self.known {
            let form = if traced.is_never {
                Form::Enum(Vec::new())
            } else if traced.variants.is_empty() {
                traced.contents?.form()
            } else {
                let variants =
                    traced.variants.into_iter().map(|variant| Some((variant.name, variant.contents?.form())));
                Form::Enum(variants.collect::<Option<_>>()?)
            };
            let count = taken.entry(traced.name).or_default();
            *count += 1;
            let name = if *count == 1 { traced.name.to_owned() } else { format!("{}{count}", traced.name) };
            types.push(Type { name, form });
        }
        Some(types)
    }

    pub(super) fn is_complete(&self) -> bool {
        (0..self.known.len()).all(|at| !self.is_open(at))
    }

    fn is_open(&self, at: usize) -> bool {
        let traced = &self.known[at];
        match traced.variants.is_empty() {
            true if traced.is_never => false,
            true => traced.contents.as_ref().is_none_or(Contents::is_open),
            false => traced.variants.iter().any(|variant| self.is_variant_open(variant)),
        }
    }

    fn is_variant_open(&self, variant: &Variant) -> bool {
        variant.contents.as_ref().is_none_or(Contents::is_open) || (self.offers.are_empty() && !variant.again)
    }

    /// How many variants there are that were not read once more.
    pub(super) fn open_variants(&self) -> usize {
        self.known.iter().flat_map(|traced| &traced.variants).filter(|variant| !variant.again).count()
    }

    /// Has every variant read once more.
    pub(super) fn read_again(&mut self) {
        self.known.iter_mut().flat_map(|traced| &mut traced.variants).for_each(|variant| variant.again = false);
    }

    /// The place of a type.
    pub(super) fn place<V, T>(&mut self, name: &'static str, names: &'static [&'static str]) -> usize {
        let key = (type_name::<V>(), type_name::<T>(), name, names);
        if let Some(place) = self.by_key.get(&key) {
            return *place;
        }
        let place = self.known.len();
        self.by_key.insert(key, place);
        let (contents, variants) = (None, Vec::new());
        self.known.push(Traced { name, contents, variants, aliased: None, is_never: false, active: 0, ending: 0 });
        place
    }

    /// Begins to read a value of a type. Answers `false` if that is too deep.
    pub(super) fn enter(&mut self, place: usize) -> bool {
        let traced = &mut self.known[place];
        traced.active += 1;
        self.recursing += usize::from(traced.active > 1);
        if traced.active > MOST_DEPTH {
            self.too_deep = true;
        }
        self.path.push(Step::Type(place));
        !self.too_deep
    }

    /// Has read it.
    pub(super) fn leave(&mut self, place: usize) {
        let traced = &mut self.known[place];
        self.recursing -= usize::from(traced.active > 1);
        traced.active -= 1;
    }

    /// The variant that is read next.
    pub(super) fn choose(&mut self, place: usize, names: &'static [&'static str]) -> usize {
        if names.is_empty() {
            self.known[place].is_never = true;
            self.is_never = true;
        }
        if self.known[place].variants.is_empty() {
            let variant = |name: &&'static str| Variant {
                name: (*name).to_owned(),
                contents: None,
                mark: None,
                again: false,
                reaches: BTreeSet::new(),
            };
            self.known[place].variants = names.iter().map(variant).collect();
        }
        if self.recursing > 0 {
            self.last_choice = Some(place);
            return self.known[place].ending.min(self.known[place].variants.len().saturating_sub(1));
        }
        for (outer, variant) in &self.inside {
            if let Some(variant) = self.known[*outer].variants.get_mut(*variant) {
                variant.reaches.insert(place);
            }
        }
        let incomplete: BTreeSet<_> =
            (0..self.known.len()).filter(|other| *other != place && self.is_open(*other)).collect();
        let variants = &self.known[place].variants;
        let next = variants.iter().position(|variant| self.is_variant_open(variant));
        let way = || variants.iter().position(|variant| !variant.reaches.is_disjoint(&incomplete));
        let chosen = next.or_else(way).unwrap_or(self.known[place].ending.min(variants.len().saturating_sub(1)));
        if let Some(variant) = self.known[place].variants.get_mut(chosen) {
            variant.again = true;
        }
        chosen
    }

    /// Notes what tells a variant from others; `None` if there is none of that number. `false` if it is none of its own:
    /// there are fewer variants than names.
    pub(super) fn is_variant(
        &mut self,
        (at, variant): (usize, usize),
        mark: Option<u64>,
        names: &'static [&'static str],
    ) -> bool {
        let traced = &mut self.known[at];
        let others: HashSet<_> =
            traced.variants[..variant.min(traced.variants.len())].iter().filter_map(|other| other.mark).collect();
        // What is no enum has one mark for all.
        let is_own = mark.is_some_and(|mark| !others.contains(&mark) || others.len() < 2);
        if is_own {
            if let Some(variant) = traced.variants.get_mut(variant) {
                variant.mark = mark;
            }
        } else if variant > 0 {
            traced.variants.truncate(variant);
            traced.aliased = Some(names);
            for (number, variant) in traced.variants.iter_mut().enumerate() {
                variant.name = format!("{}#{number}", names.join("|"));
            }
        }
        is_own || variant == 0
    }

    /// Begins to read what is inside of a type or of a variant. Answers which field alone is to be read of it, if no value of
    /// it can be made.
    pub(super) fn open(&mut self, place: Place, kind: Kind) -> Option<usize> {
        if self.recursing > 0 {
            return None;
        }
        let traced = &mut self.known[place.0];
        let contents = match place.1 {
            Some(variant) => &mut traced.variants.get_mut(variant)?.contents,
            None => &mut traced.contents,
        };
        let contents = contents.get_or_insert_with(|| Contents::new(kind));
        let parts = contents.is_blocked.then(|| contents.parts.clone())?;
        if !matches!(kind, Kind::Struct(_)) {
            return None;
        }
        let next = parts.iter().position(Option::is_none);
        let way =
            || parts.iter().position(|part| part.as_ref().is_some_and(|part| self.leads(part, &mut BTreeSet::new())));
        next.or_else(way).or(Some(0))
    }

    /// Whether something inside of it is not known yet.
    fn leads(&self, shape: &Shape, seen: &mut BTreeSet<usize>) -> bool {
        match shape {
            Shape::Optional(inner) => self.leads(inner, seen),
            Shape::List(inner) => inner.as_ref().is_some_and(|inner| self.leads(inner, seen)),
            Shape::Map(entry) => {
                entry.as_ref().is_some_and(|entry| self.leads(&entry.0, seen) || self.leads(&entry.1, seen))
            }
            Shape::Tuple(parts) => parts.iter().any(|part| self.leads(part, seen)),
            Shape::Type(at) => {
                let at = *at as usize;
                let fresh = seen.insert(at);
                let active = self.known[at].active > 0;
                let own = self.known[at].contents.iter();
                let inside = own.chain(self.known[at].variants.iter().filter_map(|variant| variant.contents.as_ref()));
                let mut parts = inside.flat_map(|contents| contents.parts.iter().flatten());
                fresh && ((!active && self.is_open(at)) || parts.any(|part| self.leads(part, seen)))
            }
            _ => false,
        }
    }

    /// Notes what a part is.
    pub(super) fn note(&mut self, place: Place, part: usize, shape: Shape) {
        if self.recursing > 0 {
            return;
        }
        let name = self.name(place);
        let Some(contents) = self.contents(place) else { return };
        if contents.parts.len() <= part {
            contents.parts.resize(part + 1, None);
        }
        let known = contents.parts[part].take();
        let merged = known.as_ref().map_or_else(|| Some(shape.clone()), |known| known.merged(&shape));
        self.learnt |= merged != known;
        if merged.is_none() {
            self.doubts.push(format!(
                "there are two types {name} that cannot be told apart, as their fields have the same names"
            ));
            self.steps = MOST_STEPS;
        }
        if let Some(contents) = self.contents(place) {
            contents.parts[part] = Some(merged.unwrap_or(shape));
        }
    }

    /// Whether a field that is read alone is none that has another name, too.
    pub(super) fn is_field(&mut self, place: Place, part: usize, mark: u64) -> bool {
        self.contents(place).is_none_or(|contents| contents.is_field(part, mark))
    }

    /// The most parts of a tuple that were written.
    pub(super) fn most_written(&mut self, place: Place, written: usize) -> usize {
        self.contents(place).map_or(written, |contents| contents.most_written(written))
    }

    /// All parts were read.
    pub(super) fn close(&mut self, place: Place) {
        if self.recursing == 0 {
            if let Some(contents) = self.contents(place) {
                contents.is_whole = true;
            }
        }
    }
}
