//! What has been found out of types so far, and which value is to be read next.

use std::{any::type_name, cell::Cell, collections::HashMap};

use super::{
    contents::{Contents, Kind},
    model::Shape,
    offers::Offers,
    refused::{Mark, Refusals},
    steps::{Place, Step},
    variants::{Marks, Variant},
    ways::{FAR, Ways},
};

/// Values within values that are read at the most, all together.
pub(super) const MOST_STEPS: usize = 1_000_000;
/// How deep a type may be inside of itself before another variant is tried.
const MOST_DEPTH: usize = 4;

/// What has been found out so far.
///
/// Each value that is read has every type that something new may be found in once, with all that is inside of it. Elsewhere a
/// type is read *shortly*: without elements, options and all but the shortest variants, so that types that name one another
/// take no more time than there are of them.
pub(super) struct Found {
    /// Whether the codec is one for people, to which some types show another form.
    pub(super) named: bool,
    pub(super) known: Vec<Traced>,
    by_names: HashMap<Names, usize>,
    /// By the first type of these names, and what reads it.
    by_reader: HashMap<(usize, usize), usize>,
    /// Where the value that is being read stands. After an error, where that was.
    pub(super) path: Vec<Step>,
    pub(super) offers: Offers,
    pub(super) ways: Ways,
    pub(super) refusals: Refusals,
    /// Which value it is.
    pass: u32,
    /// How many types that are read shortly there are around what is being read.
    pub(super) short: usize,
    /// Types and variants that this value has with all that is inside of them.
    tried: Vec<Place>,
    /// The enums that had to choose how to end.
    pub(super) ended: Vec<usize>,
    pub(super) too_deep: bool,
    /// Which type asked what comes, where no names travel.
    pub(super) asked: Option<String>,
    /// Whether it ended at an enum without variants.
    pub(super) is_never: bool,
    /// Whether something new was seen.
    pub(super) learnt: bool,
    /// Whether something was read of a type of which no whole value can be.
    pub(super) advanced: bool,
    /// Whether there are two types that cannot be told apart.
    pub(super) is_torn: bool,
    pub(super) steps: usize,
    /// Why something could not be found out.
    pub(super) doubts: Vec<String>,
}

/// The names of a type: of what reads it, of its value, its own, and those of fields or variants. Two may share all of them: there
/// may be blocks with items in them, and `#[serde(remote)]`.
type Names = (&'static str, &'static str, &'static str, &'static [&'static str]);

/// A type that has a name.
pub(super) struct Traced {
    pub(super) name: &'static str,
    /// The first type of the same names, mostly itself.
    pub(super) first: usize,
    pub(super) contents: Option<Contents>,
    /// Whether it was in a value that could be made, or no value with it can be.
    is_looked_at: bool,
    /// Of an enum.
    pub(super) variants: Vec<Variant>,
    marks: Marks,
    /// No variant before it is open.
    first_open: Cell<usize>,
    /// No variant before it is unknown.
    first_unknown: Cell<usize>,
    /// Names of variants, if some have several (`#[serde(alias)]`): serde does not say which are whose.
    aliased: Option<&'static [&'static str]>,
    /// Whether there is no value of it.
    pub(super) is_never: bool,
    /// How many of it are being read now, each inside of the one before.
    active: usize,
    /// The last value that had it with all that is inside of it.
    pass: u32,
    /// The variant by which it ends soonest, if that is known.
    pub(super) ending: Option<usize>,
    /// The one that is tried for that.
    pub(super) trial: usize,
}

impl Traced {
    /// What is inside of it or of its variants.
    pub(super) fn all_contents(&self) -> impl Iterator<Item = &Contents> {
        self.contents.iter().chain(self.variants.iter().filter_map(|variant| variant.contents.as_ref()))
    }
}

impl Found {
    pub(super) fn new(named: bool, samples: &'static [&'static str]) -> Self {
        Self {
            named,
            known: Vec::new(),
            by_names: HashMap::new(),
            by_reader: HashMap::new(),
            path: Vec::new(),
            offers: Offers::new(samples),
            ways: Ways::default(),
            refusals: Refusals::default(),
            pass: 0,
            short: 0,
            tried: Vec::new(),
            ended: Vec::new(),
            too_deep: false,
            asked: None,
            is_never: false,
            learnt: false,
            advanced: false,
            is_torn: false,
            steps: 0,
            doubts: Vec::new(),
        }
    }

    /// Forgets what is under way, before a value is read.
    pub(super) fn begin(&mut self) {
        self.path.clear();
        self.tried.clear();
        self.offers.begin();
        self.refusals.begin();
        self.ways.begin(self.steps);
        self.ended.clear();
        (self.pass, self.short) = (self.pass + 1, 0);
        (self.too_deep, self.asked, self.is_never) = (false, None, false);
        (self.learnt, self.advanced) = (false, false);
        self.known.iter_mut().for_each(|traced| traced.active = 0);
    }

    /// Has looked at all that the value has, as far as that goes. Answers whether something of it was new.
    pub(super) fn looked(&mut self) -> bool {
        let mut is_new = self.learnt;
        for (at, variant) in std::mem::take(&mut self.tried) {
            let traced = &mut self.known[at];
            let looked_at = match variant {
                Some(variant) => traced.variants.get_mut(variant).map(|variant| &mut variant.is_looked_at),
                None => Some(&mut traced.is_looked_at),
            };
            is_new |= looked_at.is_some_and(|looked_at| !std::mem::replace(looked_at, true));
        }
        is_new
    }

    /// Has every type and every variant looked at once more.
    pub(super) fn look_again(&mut self) {
        for traced in &mut self.known {
            traced.is_looked_at = false;
            traced.first_open.set(0);
            traced.variants.iter_mut().for_each(|variant| variant.is_looked_at = false);
        }
        self.ways.forget();
    }

    /// What a type or a variant is called, for people.
    pub(super) fn name(&self, (at, variant): Place) -> String {
        let traced = &self.known[at];
        match variant.and_then(|variant| traced.variants.get(variant)) {
            Some(variant) => format!("{}.{}", traced.name, variant.name),
            None => traced.name.to_owned(),
        }
    }

    pub(super) fn contents(&mut self, (at, variant): Place) -> Option<&mut Contents> {
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

    /// The name under which the variant of this number is read; `None` in it if there is no such variant. `None` if it is not
    /// clear which name is whose.
    pub(super) fn variant_is_read(&self, at: usize, number: usize) -> Option<Option<&str>> {
        let traced = self.known.get(at).filter(|traced| !traced.variants.is_empty() && traced.aliased.is_none())?;
        // Whether some have several names is known when all were read.
        let mut unknown = traced.first_unknown.get();
        while traced.variants.get(unknown).is_some_and(|variant| variant.contents.is_some()) {
            unknown += 1;
        }
        traced.first_unknown.set(unknown);
        let read = || traced.variants.get(number).map(|variant| variant.name.as_str());
        (unknown >= traced.variants.len()).then(read)
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

    /// Whether all was seen and looked at.
    pub(super) fn is_complete(&self) -> bool {
        (0..self.known.len()).all(|at| !self.is_open(at))
    }

    /// Whether all was seen.
    pub(super) fn is_known(&self) -> bool {
        let is_open = |contents: &Option<Contents>| contents.as_ref().is_none_or(Contents::is_open);
        self.known.iter().all(|traced| match traced.variants.is_empty() {
            true => traced.is_never || !is_open(&traced.contents),
            false => !traced.variants.iter().any(|variant| is_open(&variant.contents)),
        })
    }

    /// Whether something of it was not seen yet, or not looked at.
    pub(super) fn is_open(&self, at: usize) -> bool {
        let traced = &self.known[at];
        match traced.variants.is_empty() {
            true if traced.is_never => false,
            true => traced.contents.as_ref().is_none_or(Contents::is_open) || !traced.is_looked_at,
            false => self.first_open(at).is_some(),
        }
    }

    fn first_open(&self, at: usize) -> Option<usize> {
        let traced = &self.known[at];
        let mut open = traced.first_open.get();
        while traced.variants.get(open).is_some_and(|variant| !variant.is_open()) {
            open += 1;
        }
        traced.first_open.set(open);
        (open < traced.variants.len()).then_some(open)
    }

    /// The place of a type. What is read by two functions may be two types, or one of which the compiler has made two: that is
    /// told apart when all is known.
    pub(super) fn place<V, T>(&mut self, reader: usize, name: &'static str, names: &'static [&'static str]) -> usize {
        let place = self.known.len();
        let first = *self.by_names.entry((type_name::<V>(), type_name::<T>(), name, names)).or_insert(place);
        if let Some(place) = self.by_reader.get(&(first, reader)) {
            return *place;
        }
        self.by_reader.insert((first, reader), place);
        self.known.push(Traced {
            name,
            first,
            contents: None,
            is_looked_at: false,
            variants: Vec::new(),
            marks: Marks::default(),
            first_open: Cell::new(0),
            first_unknown: Cell::new(0),
            aliased: None,
            is_never: false,
            active: 0,
            pass: 0,
            ending: None,
            trial: 0,
        });
        place
    }

    /// Begins to read a value of a type. Answers what is to be given to [`Self::leave`]; `None` if it is too deep.
    pub(super) fn enter(&mut self, place: usize) -> Option<usize> {
        self.path.push(Step::Type(place));
        let traced = &mut self.known[place];
        traced.active += 1;
        self.too_deep |= traced.active > MOST_DEPTH;
        let outer = self.short;
        let is_new = self.known[place].pass == 0;
        let is_first = outer == 0 && self.known[place].pass != self.pass;
        if is_new || (is_first && (self.is_open(place) || self.distance(place) < FAR)) {
            self.known[place].pass = self.pass;
            self.short = 0;
        } else {
            self.short += 1;
        }
        (!self.too_deep).then_some(outer)
    }

    /// Has read it.
    pub(super) fn leave(&mut self, place: usize, outer: usize) {
        self.known[place].active -= 1;
        self.short = outer;
    }

    /// Whether there is to be nothing in an option, a list or a map that is read next.
    pub(super) fn is_nothing(&mut self) -> bool {
        self.path.push(Step::May);
        // The last part of a tuple may be left out where lengths travel: then it is not to be.
        let is_short = self.short > 0 && !self.offers.is_last(&self.path);
        self.refusals.is_nothing(&self.path, is_short) || self.offers.nothing(&self.path)
    }

    /// Where a part begins, for [`Refusals::failed`].
    pub(super) fn mark(&self) -> Mark {
        self.refusals.mark(self.offers.given())
    }

    /// The variant that is read next.
    pub(super) fn choose(&mut self, place: usize, names: &'static [&'static str]) -> usize {
        if names.is_empty() {
            self.known[place].is_never = true;
            self.is_never = true;
        }
        if self.known[place].variants.is_empty() {
            self.known[place].variants = names.iter().map(|name| Variant::new(name)).collect();
        }
        let chosen = if self.short > 0 {
            self.ended.push(place);
            self.ending(place)
        } else {
            let open = self.first_open(place);
            open.or_else(|| self.variant_on_the_way(place)).unwrap_or_else(|| self.ending(place))
        };
        self.refusals.chose(place, chosen);
        if self.short == 0 {
            self.tried.push((place, Some(chosen)));
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
        let is_own = mark.is_some_and(|mark| traced.marks.is_own(variant, mark));
        if !is_own && variant > 0 {
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
        if self.short > 0 {
            return None;
        }
        let traced = &mut self.known[place.0];
        let contents = match place.1 {
            Some(variant) => &mut traced.variants.get_mut(variant)?.contents,
            None => {
                self.tried.push(place);
                &mut traced.contents
            }
        };
        self.learnt |= contents.is_none();
        let contents = contents.get_or_insert_with(|| Contents::new(kind));
        if !contents.is_blocked || !matches!(kind, Kind::Struct(_)) {
            return None;
        }
        let next = contents.parts.iter().position(Option::is_none);
        next.or_else(|| self.part_on_the_way(place))
    }

    /// Notes what a part is.
    pub(super) fn note(&mut self, place: Place, part: usize, shape: Shape) {
        if self.short > 0 {
            // It is known, unless the one that reads it was told now to read something else.
            let contents = self.contents(place).filter(|contents| !contents.is_blocked);
            let known = contents.and_then(|contents| contents.parts.get(part)?.as_ref());
            if known.is_some_and(|known| *known != shape && known.merged(&shape).is_none()) {
                self.tear(place);
            }
            return;
        }
        let Some(contents) = self.contents(place) else { return };
        if contents.parts.len() <= part {
            contents.parts.resize(part + 1, None);
        }
        let known = contents.parts[part].take();
        let merged = known.as_ref().map_or_else(|| Some(shape.clone()), |known| known.merged(&shape));
        let (is_new, is_torn) = (merged != known, merged.is_none());
        contents.parts[part] = Some(merged.unwrap_or(shape));
        self.learnt |= is_new;
        if is_torn {
            self.tear(place);
        }
    }

    /// One visitor reads two types.
    fn tear(&mut self, place: Place) {
        let name = self.name(place);
        self.doubts.push(format!("there are two types {name} that cannot be told apart, as one visitor reads both"));
        self.is_torn = true;
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
        if self.short > 0 {
            return;
        }
        if let Some(contents) = self.contents(place).filter(|contents| !contents.is_whole) {
            contents.is_whole = true;
            self.learnt = true;
            self.ways.closed();
        }
    }
}
