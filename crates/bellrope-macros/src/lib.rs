//! The attribute `#[bellrope::service]`. See the module `bellrope::service`, through which it is used.
//!
//! The code that it writes holds no logic: it names methods and types, and calls what `bellrope::service` has for all of
//! them.
#![forbid(unsafe_code)]

mod arguments;
mod client;
mod implementation;
mod method;
mod model;
mod options;
mod output;
mod server;
mod service;

use proc_macro::TokenStream;
use syn::{Item, parse_macro_input};

use self::options::Options;

/// Makes a service of a trait, or something that serves of its implementation: see the module `bellrope::service`.
///
/// On a trait it takes `name = "..."`, the name on the wire in place of the trait's; `codec = "json"` (the default),
/// `"postcard"` or the path of a type that is a `Codec`; `samples("...", ...)`, texts and numbers that its types take, where
/// Bellrope cannot guess any; and `crate = "..."`, the path of Bellrope where it has another name.
/// A method may have `#[blocking]` and `#[name = "..."]`.
#[proc_macro_attribute]
pub fn service(options: TokenStream, item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as Item);
    let expanded = Options::parse(options.into()).and_then(|options| match item {
        Item::Trait(item) => service::expand(&options, item),
        Item::Impl(item) => implementation::expand(&options, &item),
        other => Err(syn::Error::new_spanned(
            other,
            "#[bellrope::service] stands on a trait, which it makes a service of, or on `impl TheTrait for ...`",
        )),
    });
    expanded.unwrap_or_else(syn::Error::into_compile_error).into()
}
