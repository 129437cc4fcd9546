use std::{
    borrow::Borrow,
    ffi::{CStr, CString, OsStr, OsString},
    ops::Deref,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An argument that its method takes by reference: its caller's own where it is written, an owned one where it is read.
#[derive(Debug)]
pub enum Lent<'a, T: ?Sized, O = T> {
    /// The caller's.
    Borrowed(&'a T),
    /// What was read.
    Owned(O),
}

impl<T: ?Sized, O: Borrow<T>> Deref for Lent<'_, T, O> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Borrowed(value) => value,
            Self::Owned(value) => value.borrow(),
        }
    }
}

impl<T: Serialize + ?Sized, O: Borrow<T>> Serialize for Lent<'_, T, O> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.deref().serialize(serializer)
    }
}

impl<'de, T: ?Sized, O: Deserialize<'de>> Deserialize<'de> for Lent<'_, T, O> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        O::deserialize(deserializer).map(Self::Owned)
    }
}

/// What is read for an argument that a method takes by reference.
pub trait Lend {
    /// It lends itself.
    type Owned: Borrow<Self>;
}

impl<T> Lend for T {
    type Owned = T;
}

impl Lend for Path {
    type Owned = PathBuf;
}

impl Lend for OsStr {
    type Owned = OsString;
}

impl Lend for CStr {
    type Owned = CString;
}
