//! An implementation of a service, to be given to a server as it is.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Error, ImplItem, ItemImpl, Result, spanned::Spanned as _};

use crate::{options::Options, output::placed};

/// Writes the implementation, and what makes a service of it.
pub(crate) fn expand(options: &Options, item: &ItemImpl) -> Result<TokenStream> {
    let Some((the_trait, _)) = &item.trait_ else {
        return Err(Error::new_spanned(
            &item.self_ty,
            "this stands on the implementation of a service, `impl TheTrait for ...`, or on the trait itself",
        ));
    };
    if let Some(name) = &options.name {
        return Err(Error::new_spanned(name, "the name of a service stands on its trait"));
    }
    options.refuse_those_of_traits()?;
    for item in &item.items {
        let ImplItem::Fn(method) = item else { continue };
        let mut attributes = method.attrs.iter();
        if let Some(found) = attributes.find(|it| ["blocking", "name"].iter().any(|ours| it.path().is_ident(ours))) {
            return Err(Error::new_spanned(
                found,
                "#[blocking] and #[name = \"...\"] stand on the method in the trait, and not on its implementation",
            ));
        }
    }
    let mut server = the_trait.clone();
    let last = server.segments.last_mut().expect("a path has a segment");
    last.ident = format_ident!("{}Server", last.ident);
    let bellrope = &options.bellrope;
    let self_ty = &item.self_ty;
    let (generics, _, conditions) = item.generics.split_for_impl();
    // What the compiler has against the type, it says of what its author wrote.
    let register = quote!(#bellrope::service::Service::register(#server::new(self), builder));
    let register = placed(self_ty.span(), &register);
    Ok(quote! {
        #item

        impl #generics #bellrope::service::Service for #self_ty #conditions {
            fn register(self, builder: #bellrope::server::ServerBuilder) -> #bellrope::server::ServerBuilder {
                #register
            }
        }
    })
}
