//! Which variant or field of what is known comes next: the one by which something that is not known is nearest, or by which a value
//! ends soonest.

use super::{
    contents::Contents,
    found::{Found, Place},
    model::Shape,
    ways::{FAR, each_type, height},
};

impl Found {
    /// How far it is to the nearest type that is open.
    pub(super) fn distance(&mut self, at: usize) -> u32 {
        if self.ways.is_due {
            self.measure();
        }
        match self.ways.distances.get(at) {
            Some(0) | None if !self.is_open(at) => FAR,
            Some(distance) => *distance,
            None => 0,
        }
    }

    fn measure(&mut self) {
        let count = self.known.len();
        let mut parents = vec![Vec::new(); count];
        let mut cost = count;
        for (at, traced) in self.known.iter().enumerate() {
            for contents in traced.all_contents() {
                cost += contents.parts.len();
                for part in contents.parts.iter().flatten() {
                    each_type(part, &mut |inside| parents[inside].push(at));
                }
            }
        }
        let mut distances = vec![FAR; count];
        let mut found: Vec<_> = (0..count).filter(|at| self.is_open(*at)).collect();
        found.iter().for_each(|at| distances[*at] = 0);
        let mut next = 0;
        while let Some(at) = found.get(next).copied() {
            next += 1;
            for parent in &parents[at] {
                if distances[*parent] == FAR {
                    distances[*parent] = distances[at] + 1;
                    found.push(*parent);
                }
            }
        }
        (self.ways.distances, self.ways.is_due) = (distances, false);
        (self.ways.cost, self.ways.done_at) = (cost, self.steps);
    }

    fn distance_through(&mut self, shapes: &[Option<Shape>]) -> u32 {
        let mut inside = Vec::new();
        shapes.iter().flatten().for_each(|shape| each_type(shape, &mut |at| inside.push(at)));
        inside.into_iter().map(|at| self.distance(at)).min().unwrap_or(FAR)
    }

    /// The variant in which something that is not known is nearest.
    pub(super) fn variant_on_the_way(&mut self, at: usize) -> Option<usize> {
        if self.distance(at) == FAR {
            return None;
        }
        let mut nearest = (FAR, None);
        for variant in 0..self.known[at].variants.len() {
            let Some(parts) = self.seen((at, Some(variant))).map(|(_, parts)| parts.to_vec()) else { continue };
            let distance = self.distance_through(&parts);
            if distance < nearest.0 {
                nearest = (distance, Some(variant));
            }
        }
        nearest.1
    }

    /// The same of the fields of a struct.
    pub(super) fn part_on_the_way(&mut self, place: Place) -> Option<usize> {
        let parts = self.seen(place)?.1.to_vec();
        let distances: Vec<_> = parts.chunks(1).map(|part| self.distance_through(part)).collect();
        let nearest = distances.iter().min().copied().filter(|distance| *distance < FAR)?;
        distances.iter().position(|distance| *distance == nearest)
    }

    /// The variant by which an enum ends soonest, as far as that is known.
    pub(super) fn ending(&mut self, at: usize) -> usize {
        if self.known[at].ending.is_none() && self.ways.ended_at != Some(self.ways.closed) {
            self.find_endings();
        }
        let traced = &self.known[at];
        traced.ending.unwrap_or(traced.trial.min(traced.variants.len().saturating_sub(1)))
    }

    /// Another variant is to be the ending of an enum, if there is one.
    pub(super) fn find_other_ending(&mut self, at: usize) {
        self.known[at].ending = None;
        self.ways.ended_at = None;
    }

    fn find_endings(&mut self) -> bool {
        self.ways.ended_at = Some(self.ways.closed);
        let mut heights = vec![FAR; self.known.len()];
        let mut is_new = true;
        while std::mem::take(&mut is_new) {
            // What is inside of a type was mostly found after it.
            for at in (0..self.known.len()).rev() {
                let height = self.endings_of(at, &heights).map_or(FAR, |(height, _)| height);
                if height < heights[at] {
                    heights[at] = height;
                    is_new = true;
                }
            }
        }
        let mut found = false;
        for at in 0..self.known.len() {
            let ending = self.endings_of(at, &heights).and_then(|(_, variant)| variant);
            found |= ending.is_some() && self.known[at].ending.is_none();
            self.known[at].ending = self.known[at].ending.or(ending);
        }
        found
    }

    /// How many levels the least value of a type has, and its variant.
    fn endings_of(&self, at: usize, heights: &[u32]) -> Option<(u32, Option<usize>)> {
        let traced = &self.known[at];
        let level = |contents: &Contents| {
            let inside = contents.parts.iter().flatten().map(|part| height(part, heights)).max().unwrap_or(0);
            (contents.is_whole && inside < FAR).then(|| inside.saturating_add(1))
        };
        if traced.variants.is_empty() {
            return traced.contents.as_ref().filter(|_| !traced.is_never).and_then(level).map(|level| (level, None));
        }
        let ends = traced.variants.iter().enumerate().filter_map(|(number, variant)| {
            let level = level(variant.contents.as_ref()?)?;
            Some(((variant.is_refused, level), number))
        });
        ends.min().map(|((_, level), number)| (level, Some(number)))
    }

    /// After a value that was too deep: has an enum end in another way. `false` if there is none.
    pub(super) fn end_otherwise(&mut self) -> bool {
        if self.find_endings() {
            return true;
        }
        for at in self.ended.iter().rev() {
            let choice = &mut self.known[*at];
            if choice.ending.is_none() && choice.trial + 1 < choice.variants.len() {
                choice.trial += 1;
                return true;
            }
        }
        self.refusals.have_nothing_again()
    }
}
