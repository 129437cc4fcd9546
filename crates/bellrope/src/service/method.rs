//! What the macro says of a method.

use std::{convert::Infallible, marker::PhantomData};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{codec::Codec, error::ServiceError};
use crate::error::CallError;

/// A method of a service, as its clients see it.
pub trait Method {
    /// On the wire.
    const NAME: &'static str;
    /// Its place in its trait.
    const INDEX: usize;
    /// Texts and numbers that its types take, where they take none that is tried else.
    const SAMPLES: &'static [&'static str] = &[];
    /// Its service's.
    type Codec: Codec;
    /// What it is answered with, or what each item of its stream is.
    type Output: Output;
    /// What each item of the stream from its caller is; `()` if there is none.
    type Sent: Serialize + DeserializeOwned;
    /// What is sent first.
    type Request<'call>: Serialize + Deserialize<'call>;
}

/// What a method answers with: a `Result`, or something [`Plain`].
pub trait Output: Serialize + DeserializeOwned {
    /// What is asked for.
    type Value;
    /// What may come in place of it.
    type Error;

    /// One of both.
    fn split(self) -> Result<Self::Value, Self::Error>;
}

impl<T: Serialize + DeserializeOwned, E: Serialize + DeserializeOwned> Output for Result<T, E> {
    type Value = T;
    type Error = E;

    fn split(self) -> Self {
        self
    }
}

/// What may be the error of a method.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a method of a service",
    label = "serde neither writes nor reads this, so it does not travel",
    note = "derive `Serialize` and `Deserialize` for an error of the application; a method that fails for the service answers with \
            `Result<T, HandlerError>`, by that name and by no alias of it"
)]
pub trait Travels {}

#[diagnostic::do_not_recommend]
impl<E: Serialize + DeserializeOwned> Travels for E {}

/// Has the compiler say so.
pub fn travels<E: Travels>() {}

/// Tells whether a type is a `Result` that its author calls otherwise: `Answered::<T>::IS_RESULT`. It would be taken for a value.
///
/// ```compile_fail
/// type Answer<T> = Result<T, String>;
///
/// #[bellrope::service]
/// trait Odd {
///     fn odd(&self) -> Answer<u32>;
/// }
/// ```
#[derive(Debug)]
pub struct Answered<T>(PhantomData<T>);

impl<T, E> Answered<Result<T, E>> {
    /// It is one.
    pub const IS_RESULT: bool = true;
}

/// What is asked where the type is no `Result`.
pub trait OtherAnswer {
    /// It is none.
    const IS_RESULT: bool = false;
}

impl<T> OtherAnswer for Answered<T> {}

/// What is no `Result`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Plain<T>(pub T);

impl<T: Serialize + DeserializeOwned> Output for Plain<T> {
    type Value = T;
    type Error = Infallible;

    fn split(self) -> Result<T, Infallible> {
        Ok(self.0)
    }
}

/// What a client's method returns.
pub(super) type Outcome<M> = Result<<<M as Method>::Output as Output>::Value, Failed<M>>;

/// Why it returns something else.
pub(super) type Failed<M> = ServiceError<<<M as Method>::Output as Output>::Error>;

/// Writes what a method is given into an empty buffer.
pub(super) fn write<M: Method>(value: &(impl Serialize + ?Sized), buffer: &mut Vec<u8>) -> Result<(), CallError> {
    buffer.clear();
    M::Codec::encode(value, &mut *buffer).map_err(|fault| CallError::Unwritable { method: M::NAME, fault })
}

/// Reads what a method has answered with.
pub(super) fn read<M: Method>(bytes: &[u8]) -> Outcome<M> {
    let answer = M::Codec::decode::<M::Output>(bytes);
    let answer = answer.map_err(|fault| CallError::Unreadable { method: M::NAME, fault })?;
    answer.split().map_err(ServiceError::Application)
}
