//! The clients of a service.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::{Ident, ext::IdentExt as _};

use crate::{
    method::{Method, Style},
    model::Service,
};

/// Writes a client.
pub(crate) fn expand(service: &Service, blocking: bool) -> TokenStream {
    let Service { ident, visibility, bellrope, methods, .. } = service;
    let face = Face::new(service, blocking);
    let Face { client, raw, asyncness, awaited, .. } = &face;
    let count = methods.len();
    let (once, streamed): (Vec<_>, Vec<_>) =
        methods.iter().partition(|method| matches!(method.style, Style::Worker | Style::Blocking | Style::Async));
    let once = once.into_iter().map(|method| call(service, method, &face));
    let streamed: Vec<_> = streamed.into_iter().map(|method| call(service, method, &face)).collect();
    let what = if blocking {
        format!(
            "Calls [`{ident}`] and waits for the answers. Clones share one connection across threads. What it stands on may also \
             be another [`ByteClient`]({}::service::ByteClient).",
            quote!(#bellrope).to_string().replace(' ', "")
        )
    } else {
        format!("Calls [`{ident}`] from tokio tasks. Clones share one connection.")
    };
    // A method of the service's own goes first.
    let has = |name: &str| methods.iter().any(|method| method.ident.unraw() == name);
    let connect = (!has("connect")).then(|| {
        quote! {
            /// Connects to the server at `path`. A client with other settings is made of one that calls bytes, with `From`.
            ///
            /// # Errors
            /// Why there is no connection.
            pub #asyncness fn connect(
                path: impl ::core::convert::Into<::std::path::PathBuf>,
            ) -> ::core::result::Result<Self, #bellrope::client::ConnectError> {
                let client = #raw::connect(path)#awaited?;
                ::core::result::Result::Ok(<Self as ::core::convert::From<#raw>>::from(client))
            }
        }
    });
    // A blocking client stands on whatever calls bytes; streams and connecting are of the shared one.
    let (declared, generic, bounded, below) = if blocking {
        let bounded = quote!(<__Below: #bellrope::service::ByteClient>);
        (quote!(<__Below = #raw>), quote!(<__Below>), bounded, quote!(__Below))
    } else {
        (quote!(), quote!(), quote!(), raw.clone())
    };
    quote! {
        #[doc = #what]
        #[derive(::core::clone::Clone, ::core::fmt::Debug)]
        #[allow(dead_code)]
        #visibility struct #client #declared {
            caller: #bellrope::service::ServiceCaller<#below>,
        }

        impl #bounded ::core::convert::From<#below> for #client #generic {
            fn from(client: #below) -> Self {
                Self { caller: #bellrope::service::ServiceCaller::new(client, #count) }
            }
        }

        impl #bounded ::core::convert::AsRef<#below> for #client #generic {
            fn as_ref(&self) -> &#below {
                self.caller.raw()
            }
        }

        #[allow(dead_code, deprecated, non_snake_case)]
        impl #client {
            #connect
            #(#streamed)*
        }

        #[allow(dead_code, deprecated, non_snake_case)]
        impl #bounded #client #generic {
            #(#once)*
        }
    }
}

/// What blocking and async clients differ in.
struct Face {
    client: Ident,
    /// What calls bytes.
    raw: TokenStream,
    asyncness: TokenStream,
    awaited: TokenStream,
    items: TokenStream,
    outgoing: TokenStream,
    upload: TokenStream,
}

impl Face {
    fn new(service: &Service, blocking: bool) -> Self {
        let Service { ident, bellrope, .. } = service;
        if blocking {
            return Self {
                client: format_ident!("{ident}BlockingClient"),
                raw: quote!(#bellrope::Client),
                asyncness: quote!(),
                awaited: quote!(),
                items: quote!(#bellrope::service::Items),
                outgoing: quote!(#bellrope::service::Outgoing),
                upload: quote!(#bellrope::service::Upload),
            };
        }
        Self {
            client: format_ident!("{ident}Client"),
            raw: quote!(#bellrope::AsyncClient),
            asyncness: quote!(async),
            awaited: quote!(.await),
            items: quote!(#bellrope::service::AsyncItems),
            outgoing: quote!(#bellrope::service::AsyncOutgoing),
            upload: quote!(#bellrope::service::AsyncUpload),
        }
    }
}

fn call(service: &Service, method: &Method, face: &Face) -> TokenStream {
    let Service { bellrope, .. } = service;
    let Face { asyncness, awaited, items, outgoing, upload, .. } = face;
    let Method { ident, request, arguments, output, .. } = method;
    let attributes: Vec<_> = method.client_attributes().collect();
    let conditions: Vec<_> = attributes.iter().filter(|attribute| !attribute.path().is_ident("doc")).collect();
    let with = format_ident!("{}_with", ident.unraw(), span = ident.span());
    let (value, error) = output.for_clients();
    let (returned, form) = match method.style {
        Style::Worker | Style::Blocking | Style::Async => (value, quote!(call)),
        Style::ServerStream => (quote!(#items<#value, #error>), quote!(stream)),
        Style::ClientStream => {
            let item = &arguments.incoming;
            (quote!(#upload<#item, #value, #error>), quote!(upload))
        }
        Style::Duplex => {
            let item = &arguments.incoming;
            (quote!((#outgoing<#item>, #items<#value, #error>)), quote!(duplex))
        }
    };
    let names: Vec<_> = arguments.fields().map(|argument| &argument.ident).collect();
    let types: Vec<_> = arguments.fields().map(|argument| &argument.written).collect();
    let fields = arguments.fields().map(|argument| {
        let (field, sent) = (&argument.ident, &argument.sent);
        if *field == sent.to_string() { quote!(#field) } else { quote!(#field: #sent) }
    });
    let options = free_name("options", &names);
    let marker = method.request_type(&quote!('static));
    let as_above = format!("As [`{ident}`](Self::{ident}), with options.");
    let defaults = quote!(&#bellrope::client::CallOptions::new());
    quote! {
        #(#attributes)*
        pub #asyncness fn #ident(
            &self,
            #(#names: #types,)*
        ) -> ::core::result::Result<#returned, #bellrope::service::ServiceError<#error>> {
            self.#with(#(#names,)* #defaults)#awaited
        }

        #[doc = #as_above]
        #(#conditions)*
        #[allow(clippy::too_many_arguments)]
        pub #asyncness fn #with(
            &self,
            #(#names: #types,)*
            #options: &#bellrope::client::CallOptions,
        ) -> ::core::result::Result<#returned, #bellrope::service::ServiceError<#error>> {
            let request = #bellrope::service::EncodedRequest::of::<#marker>(&#request { #(#fields,)* })?;
            self.caller.#form::<#marker>(request, #options)#awaited
        }
    }
}

/// A name that no argument has.
fn free_name(name: &str, taken: &[&Ident]) -> Ident {
    let mut name = name.to_owned();
    while taken.iter().any(|ident| ident.unraw() == name) {
        name = format!("call_{name}");
    }
    Ident::new(&name, Span::call_site())
}
