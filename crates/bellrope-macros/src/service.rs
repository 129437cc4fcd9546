//! A trait that becomes a service.

use std::collections::HashMap;

use proc_macro2::TokenStream;
use quote::{ToTokens as _, quote, quote_spanned};
use syn::{Error, ItemTrait, Result, TraitItem, ext::IdentExt as _};

use crate::{client, method::Method, model::Service, options::Options, server};

/// Writes the trait and all that is made of it.
pub(crate) fn expand(options: &Options, mut item: ItemTrait) -> Result<TokenStream> {
    let service = parse(options, &mut item)?;
    let Service { bellrope, codec, samples, methods, .. } = &service;
    // Whoever implements it and cannot be one of these is shown the trait.
    let span = item.ident.span();
    let (send, sync) = (quote_spanned!(span=> ::core::marker::Send), quote_spanned!(span=> ::core::marker::Sync));
    item.supertraits.push(syn::parse_quote!(#send));
    item.supertraits.push(syn::parse_quote!(#sync));
    item.supertraits.push(syn::parse_quote_spanned!(span=> 'static));
    item.items = methods.iter().map(|method| TraitItem::Fn(method.in_trait())).collect();
    let descriptions = methods.iter().map(|method| method.describe(codec, samples, bellrope));
    let server = server::expand(&service);
    let clients = [false, true].map(|blocking| client::expand(&service, blocking));
    Ok(quote! {
        #item

        #(#descriptions)*

        #server

        #(#clients)*
    })
}

fn parse(options: &Options, item: &mut ItemTrait) -> Result<Service> {
    if let Some(parameter) = item.generics.params.first() {
        return Err(Error::new_spanned(
            parameter,
            "a service has one set of types, which both sides know: it cannot be generic",
        ));
    }
    if let Some(keyword) = &item.unsafety {
        return Err(Error::new_spanned(keyword, "a service is no `unsafe trait`"));
    }
    let prefix = options.name.as_ref().map_or_else(|| item.ident.unraw().to_string(), syn::LitStr::value);
    let (mut methods, mut faults): (Vec<Method>, Option<Error>) = (Vec::new(), None);
    for item_in in std::mem::take(&mut item.items) {
        let method = match item_in {
            TraitItem::Fn(method) => Method::parse(&item.ident, &prefix, methods.len(), method, &options.bellrope),
            other => Err(Error::new_spanned(other, "a service has methods and nothing else")),
        };
        match method {
            Ok(method) => methods.push(method),
            Err(fault) => match &mut faults {
                Some(faults) => faults.combine(fault),
                None => faults = Some(fault),
            },
        }
    }
    if let Some(faults) = faults {
        return Err(faults);
    }
    check_names(&methods)?;
    Ok(Service {
        ident: item.ident.clone(),
        visibility: item.vis.clone(),
        bellrope: options.bellrope.clone(),
        codec: options.codec()?,
        samples: options.samples.clone(),
        methods,
    })
}

/// No two methods have one name, on the wire or at the clients.
fn check_names(methods: &[Method]) -> Result<()> {
    let mut on_the_wire = HashMap::new();
    let idents: HashMap<_, _> = methods.iter().map(|method| (method.ident.unraw().to_string(), method)).collect();
    for method in methods {
        let other = on_the_wire.insert(method.name.value(), method);
        // Two under conditions may never be there both; if they are, the compiler says so, or the server.
        if other.is_some_and(|other| other.conditions().next().is_none() || method.conditions().next().is_none()) {
            return Err(Error::new_spanned(
                &method.name,
                format!("two methods are called {:?} on the wire", method.name.value()),
            ));
        }
        // The standard library's take `self`, which the compiler looks at first.
        if let Some(hidden) = ["into", "try_into"].into_iter().find(|hidden| method.ident.unraw() == hidden) {
            let text = format!(
                "`client.{hidden}()` is what every type has of the standard library, and never this one; rename it, and give \
                 it its name on the wire with #[name = \"{hidden}\"]"
            );
            return Err(Error::new_spanned(&method.ident, text));
        }
        let with = format!("{}_with", method.ident.unraw());
        if let Some(other) = idents.get(&with) {
            let text = format!(
                "clients have `{with}` already: it is `{}` with options; rename this one, and give it its name on the wire \
                 with #[name = \"{with}\"]",
                method.ident
            );
            return Err(Error::new_spanned(other.ident.to_token_stream(), text));
        }
    }
    Ok(())
}
