use std::{error::Error, fmt};

use crate::error::CallError;

/// How a call to a service ended, if not with what was asked for.
///
/// ```
/// use bellrope::{CallError, service::ServiceError};
///
/// let refused: ServiceError<String> = ServiceError::Application("no such file".to_owned());
/// assert_eq!(refused.to_string(), "no such file");
/// assert!(!refused.is_retryable() && refused.call_error().is_none());
/// assert_eq!(refused.application().unwrap(), "no such file");
/// let lost: ServiceError<String> = CallError::NotExecuted.into();
/// assert!(lost.is_retryable());
/// ```
#[derive(Debug)]
pub enum ServiceError<E> {
    /// The method has answered with its own error.
    Application(E),
    /// The call failed.
    Call(CallError),
}

impl<E> ServiceError<E> {
    /// The method's own error.
    #[must_use]
    pub fn application(self) -> Option<E> {
        match self {
            Self::Application(error) => Some(error),
            Self::Call(_) => None,
        }
    }

    /// Why the call failed, if it did.
    #[must_use]
    pub fn call_error(&self) -> Option<&CallError> {
        match self {
            Self::Application(_) => None,
            Self::Call(error) => Some(error),
        }
    }

    /// Whether the same call may be sent again without the risk that it runs twice.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.call_error().is_some_and(CallError::is_retryable)
    }
}

impl<E> From<CallError> for ServiceError<E> {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl<E: fmt::Display> fmt::Display for ServiceError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Application(error) => error.fmt(f),
            Self::Call(error) => error.fmt(f),
        }
    }
}

/// An application's error need not be one, so that a `String` will do.
impl<E: fmt::Debug + fmt::Display> Error for ServiceError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.call_error().and_then(CallError::source)
    }
}
