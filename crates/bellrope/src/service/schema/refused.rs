//! What is tried next when a value was refused.

use super::{
    contents::{Contents, Kind},
    found::{Found, Place},
    model::Shape,
    offers::{Step, inside_of_its_type},
};

/// A step by which a value that was refused stands in another one.
enum Around {
    Part(Place, usize),
    /// Nothing was read of the variant.
    Variant(usize, usize),
    /// An option, a list or a map, whose step this is.
    May(usize),
}

impl Found {
    /// Has something else given in the part that was refused, or another variant. `false` if all was tried.
    pub(super) fn another_value(&mut self) -> bool {
        let mark = self.refusals.failed.unwrap_or_default();
        self.offers.another(mark.given) || self.refusals.fill(mark.shortened) || self.another_variant(mark.chosen)
    }

    fn another_variant(&mut self, from: usize) -> bool {
        let mut chosen = self.refusals.chosen.split_off(from.min(self.refusals.chosen.len()));
        while let Some((at, number)) = chosen.pop() {
            let is_fresh = self.known[at].variants.get(number).is_some_and(|variant| !variant.is_refused);
            if is_fresh && self.has_another_variant(at, number) {
                let variant = &mut self.known[at].variants[number];
                (variant.is_refused, variant.is_looked_at) = (true, true);
                self.find_other_ending(at);
                return true;
            }
        }
        false
    }

    fn has_another_variant(&self, at: usize, than: usize) -> bool {
        let mut variants = self.known[at].variants.iter().enumerate();
        variants.any(|(number, variant)| number != than && variant.may_be())
    }

    /// From the outside in.
    fn around(&self) -> Vec<Around> {
        let mut around = Vec::new();
        let mut place: Option<Place> = None;
        for (index, step) in self.path.iter().enumerate() {
            match step {
                Step::Type(at) => place = Some((*at, None)),
                Step::Variant(variant) => place = place.map(|(at, _)| (at, Some(*variant))),
                Step::Part(part) => around.extend(place.take().map(|place| Around::Part(place, *part))),
                // What is refused after it was read is not in it.
                Step::May if index + 1 < self.path.len() => around.push(Around::May(index)),
                Step::May => {}
            }
        }
        if let Some((at, Some(variant))) = place {
            around.push(Around::Variant(at, variant));
        }
        around
    }

    /// No value can be made of what was read last: has the types around it read field by field, up to where another variant or
    /// nothing may be in its place. `false` if that is done already.
    pub(super) fn block(&mut self) -> bool {
        let around = self.around();
        let innermost = around.iter().rev().find_map(|around| match around {
            Around::Part(place, part) => Some((*place, *part)),
            _ => None,
        });
        let is_unread =
            |around: &Around| matches!(around, Around::Variant(at, number) if self.has_another_variant(*at, *number));
        match innermost {
            // What is refused unread is never read as something else.
            _ if around.last().is_some_and(is_unread) => {}
            Some((place, part)) => self.doubt(place, part),
            None => self.doubts.push("it takes none of the values that were tried".to_owned()),
        }
        let mut changed = false;
        for around in around.into_iter().rev() {
            match around {
                Around::May(_) => break,
                Around::Variant(at, number) => {
                    let Some(variant) = self.known[at].variants.get_mut(number) else { continue };
                    changed |= variant.contents.is_none();
                    variant.contents.get_or_insert_with(|| Contents::new(Kind::Newtype)).block();
                    if self.has_another_variant(at, number) {
                        break;
                    }
                }
                Around::Part(place, part) => {
                    let is_new = self.contents(place).is_some_and(Contents::block);
                    changed |= is_new;
                    if let Some(open) = self.contents(place).and_then(|contents| contents.parts.get_mut(part)) {
                        // Nothing at all was seen of it, not even where it was read alone.
                        if open.is_none() && !is_new {
                            *open = Some(Shape::Any);
                            changed = true;
                        }
                    }
                    if place.1.is_some_and(|number| self.has_another_variant(place.0, number)) {
                        break;
                    }
                }
            }
        }
        changed
    }

    /// All that can be seen of what was refused was seen: has nothing in the option, the list or the map that it is in. `false` if it
    /// is in none.
    pub(super) fn leave_empty(&mut self) -> bool {
        for around in self.around().into_iter().rev() {
            match around {
                Around::May(index) => {
                    return self.refusals.nothing.insert(inside_of_its_type(&self.path[..=index]).to_vec());
                }
                Around::Variant(at, number) | Around::Part((at, Some(number)), _)
                    if self.has_another_variant(at, number) =>
                {
                    return false;
                }
                _ => {}
            }
        }
        false
    }

    fn doubt(&mut self, place: Place, part: usize) {
        let words = format!("{} takes none of the values that were tried", self.part_name(place, part));
        if !self.doubts.contains(&words) {
            self.doubts.push(words);
        }
    }

    /// What a part is called, for people.
    pub(super) fn part_name(&self, place: Place, part: usize) -> String {
        let name = self.name(place);
        match self.seen(place).map(|(kind, _)| kind) {
            Some(Kind::Struct(names)) => format!("{name}.{}", names.get(part).unwrap_or(&"")),
            Some(Kind::Tuple(_)) => format!("{name}.{part}"),
            _ => name,
        }
    }
}
