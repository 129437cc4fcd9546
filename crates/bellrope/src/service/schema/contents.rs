//! What is inside of a type or of a variant, as far as it was seen.

use std::collections::HashSet;

use super::model::{Form, Shape};

/// What is inside of a type or of a variant.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) kind: Kind,
    pub(super) parts: Vec<Option<Shape>>,
    /// What tells the fields apart, where each was read alone.
    marks: Vec<Option<u64>>,
    /// The names under which the fields are written.
    pub(super) written: Option<Vec<&'static str>>,
    /// Most parts that were written of a tuple.
    most_written: usize,
    /// Which are further names of fields that have one.
    further: Vec<usize>,
    pub(super) is_whole: bool,
    /// Whether no value of it can be made, so that its fields are read one by one.
    pub(super) is_blocked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Unit,
    Newtype,
    Tuple(usize),
    Struct(&'static [&'static str]),
}

impl Contents {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            parts: Vec::new(),
            marks: Vec::new(),
            written: None,
            most_written: 0,
            further: Vec::new(),
            is_whole: kind == Kind::Unit,
            is_blocked: false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        !self.is_whole && (!self.is_blocked || self.parts.iter().any(Option::is_none))
    }

    /// `false` if it was so already.
    pub(super) fn block(&mut self) -> bool {
        if self.is_blocked || self.is_whole {
            return false;
        }
        self.is_blocked = true;
        match self.kind {
            Kind::Struct(names) => self.parts = vec![None; names.len()],
            Kind::Tuple(len) => self.parts.resize(len, Some(Shape::Any)),
            Kind::Newtype => self.parts.resize(1, Some(Shape::Any)),
            Kind::Unit => {}
        }
        true
    }

    /// Notes what tells a field from others, where each is read alone. `false` if it is another name of one that is known.
    pub(super) fn is_field(&mut self, part: usize, mark: u64) -> bool {
        self.marks.resize(self.parts.len(), None);
        let others: HashSet<_> = self.marks.iter().take(part).flatten().collect();
        // What is no enum has one mark for all.
        let is_own = !others.contains(&mark) || others.len() < 2;
        if is_own {
            self.marks[part] = Some(mark);
        } else {
            self.parts[part].get_or_insert(Shape::Unit);
            self.further.push(part);
        }
        is_own
    }

    /// The most parts of a tuple that were written.
    pub(super) fn most_written(&mut self, written: usize) -> usize {
        self.most_written = self.most_written.max(written);
        self.most_written
    }

    pub(super) fn form(self) -> Form {
        let mut parts = self.parts.into_iter().map(|part| part.unwrap_or(Shape::Any));
        match self.kind {
            Kind::Unit => Form::Unit,
            Kind::Newtype => Form::Newtype(parts.next().unwrap_or(Shape::Any)),
            Kind::Tuple(_) => Form::Tuple(parts.collect()),
            Kind::Struct(names) if self.is_blocked => {
                let fields = names.iter().zip(parts).enumerate().filter(|(at, _)| !self.further.contains(at));
                Form::Struct(fields.map(|(_, (name, part))| ((*name).to_owned(), part)).collect())
            }
            Kind::Struct(names) => {
                let names = self.written.as_deref().unwrap_or(names);
                // Where a field has further names, serde does not say which is whose: all of them are the name of each.
                let clear = names.len() == parts.len();
                let name = |at: usize| if clear { names[at].to_owned() } else { format!("{}#{at}", names.join("|")) };
                Form::Struct(parts.enumerate().map(|(at, part)| (name(at), part)).collect())
            }
        }
    }
}
