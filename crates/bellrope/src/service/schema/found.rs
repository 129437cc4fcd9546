//! What has been found out of types so far, and which value is to be read next.

use std::{
    any::type_name,
    collections::{BTreeSet, HashMap},
};

use super::model::{Form, Type};

/// Values within values that are read at the most, all together.
pub(super) const MOST_STEPS: usize = 200_000;
/// Texts and numbers that are tried, for types that do not take any.
pub(super) const TEXTS: [&str; 9] = [
    "a",
    "aaaa",
    "1",
    "127.0.0.1",
    "127.0.0.1:1",
    "00000000-0000-0000-0000-000000000001",
    "http://a.b/",
    "2000-01-01T00:00:00Z",
    "1.0.0",
];
pub(super) const NUMBERS: [u8; 4] = [1, 0, 2, 100];
/// How deep a type may be inside of itself before another variant is tried.
pub(super) const MOST_DEPTH: usize = 24;

/// What has been found out so far.
pub(super) struct Found {
    /// Whether the codec is one for people, to which some types show another form.
    pub(super) named: bool,
    known: Vec<Traced>,
    by_key: HashMap<(&'static str, &'static str), usize>,
    /// Variants whose contents are being read: type and number.
    pub(super) inside: Vec<(usize, usize)>,
    /// Types that are being read inside of themselves: nothing new is learnt there, and it is to end soon.
    pub(super) recursing: usize,
    /// The enum that last had to choose how to end.
    pub(super) last_choice: Option<usize>,
    pub(super) too_deep: bool,
    /// Whether a type asked what comes, where no names travel.
    pub(super) asked: bool,
    /// How many texts or numbers each kind of reader has refused, by its name.
    refused: HashMap<&'static str, usize>,
    /// The kind of reader that was last given one.
    last_given: Option<&'static str>,
    pub(super) steps: usize,
}

/// A type that has a name.
struct Traced {
    name: &'static str,
    form: Option<Form>,
    /// Of an enum.
    variants: Vec<Variant>,
    /// How many of it are being read now, each inside of the one before.
    active: usize,
    /// The variant by which it ends where it is inside of itself.
    ending: usize,
}

struct Variant {
    name: &'static str,
    form: Option<Form>,
    /// Enums that were seen inside of it.
    reaches: BTreeSet<usize>,
}

impl Found {
    pub(super) fn new(named: bool) -> Self {
        Self {
            named,
            known: Vec::new(),
            by_key: HashMap::new(),
            inside: Vec::new(),
            recursing: 0,
            last_choice: None,
            too_deep: false,
            asked: false,
            refused: HashMap::new(),
            last_given: None,
            steps: 0,
        }
    }

    /// Forgets what is under way, before a value is read.
    pub(super) fn begin(&mut self) {
        self.inside.clear();
        (self.recursing, self.last_choice, self.too_deep, self.asked) = (0, None, false, false);
        self.last_given = None;
        self.known.iter_mut().for_each(|traced| traced.active = 0);
    }

    /// Which of the values that are tried comes next for this kind of reader.
    pub(super) fn offer(&mut self, reader: &'static str) -> usize {
        self.last_given = Some(reader);
        self.refused.get(reader).copied().unwrap_or(0)
    }

    /// After a value that was refused: has whoever was last given a text or a number try another. `false` if there is none.
    pub(super) fn offer_another(&mut self) -> bool {
        let Some(reader) = self.last_given else { return false };
        let refused = self.refused.entry(reader).or_default();
        *refused += 1;
        *refused < TEXTS.len()
    }

    /// After a value that was too deep: has the enum that chose last end in another way. `false` if there is none.
    pub(super) fn end_otherwise(&mut self) -> bool {
        let Some(choice) = self.last_choice.map(|place| &mut self.known[place]) else { return false };
        choice.ending += 1;
        choice.ending < choice.variants.len()
    }

    /// All types that were found, if nothing about them is left open.
    pub(super) fn types(self) -> Option<Vec<Type>> {
        let mut taken: HashMap<&str, usize> = HashMap::new();
        let mut types = Vec::new();
        for traced in self.known {
            let form = if traced.variants.is_empty() {
                traced.form?
            } else {
                let variants =
                    traced.variants.into_iter().map(|variant| Some((variant.name.to_owned(), variant.form?)));
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
        self.known.iter().all(|traced| traced.variants.iter().all(|variant| variant.form.is_some()))
    }

    /// The place of a type, told apart by what serde makes of it: two may have one name.
    pub(super) fn place<V>(&mut self, name: &'static str) -> usize {
        let key = (type_name::<V>(), name);
        if let Some(place) = self.by_key.get(&key) {
            return *place;
        }
        let place = self.known.len();
        self.by_key.insert(key, place);
        self.known.push(Traced { name, form: None, variants: Vec::new(), active: 0, ending: 0 });
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
        !self.too_deep
    }

    /// Has read it, with this form.
    pub(super) fn leave(&mut self, place: usize, form: Option<Form>) {
        let learnt = self.recursing == 0;
        let traced = &mut self.known[place];
        self.recursing -= usize::from(traced.active > 1);
        traced.active -= 1;
        if learnt && traced.form.is_none() {
            traced.form = form;
        }
    }

    /// The variant that is read next.
    pub(super) fn choose(&mut self, place: usize, names: &'static [&'static str]) -> usize {
        if self.known[place].variants.is_empty() {
            let variant = |name: &&'static str| Variant { name, form: None, reaches: BTreeSet::new() };
            self.known[place].variants = names.iter().map(variant).collect();
        }
        if self.recursing > 0 {
            self.last_choice = Some(place);
            return self.known[place].ending.min(names.len().saturating_sub(1));
        }
        for (outer, variant) in &self.inside {
            self.known[*outer].variants[*variant].reaches.insert(place);
        }
        let open = |variant: &Variant| variant.form.is_none();
        let incomplete: BTreeSet<_> = (0..self.known.len())
            .filter(|other| *other != place && self.known[*other].variants.iter().any(open))
            .collect();
        let variants = &self.known[place].variants;
        let next = variants.iter().position(open);
        let way = || variants.iter().position(|variant| !variant.reaches.is_disjoint(&incomplete));
        next.or_else(way).unwrap_or(self.known[place].ending.min(variants.len().saturating_sub(1)))
    }

    /// What was found inside of a variant.
    pub(super) fn learn(&mut self, place: usize, variant: usize, form: Form) {
        if self.recursing == 0 {
            if let Some(variant) = self.known[place].variants.get_mut(variant) {
                variant.form.get_or_insert(form);
            }
        }
    }
}
