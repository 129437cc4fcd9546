//! What is known of a service.

use proc_macro2::TokenStream;
use syn::{Ident, LitStr, Path, Visibility};

use crate::method::Method;

/// A service.
pub(crate) struct Service {
    pub(crate) ident: Ident,
    pub(crate) visibility: Visibility,
    pub(crate) bellrope: Path,
    pub(crate) codec: TokenStream,
    /// Values that its types take.
    pub(crate) samples: Vec<LitStr>,
    pub(crate) methods: Vec<Method>,
}
