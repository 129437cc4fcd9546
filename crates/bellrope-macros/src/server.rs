//! The server's side of a service.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};

use crate::{
    method::{Method, Style},
    model::Service,
};

/// Writes what answers the calls of a service.
pub(crate) fn expand(service: &Service) -> TokenStream {
    let Service { ident, visibility, bellrope, methods, .. } = service;
    let server = format_ident!("{ident}Server");
    let registrations = methods.iter().map(|method| register(service, method));
    let docs = [
        format!("Answers the calls of [`{ident}`]: `Server::builder().service({server}::new(...))`."),
        "The service, which others may share.".to_owned(),
    ];
    let [what, new] = docs;
    quote! {
        #[doc = #what]
        #[allow(dead_code)]
        #visibility struct #server<__Host>(::std::sync::Arc<__Host>);

        #[allow(dead_code)]
        impl<__Host: #ident> #server<__Host> {
            #[doc = #new]
            #[must_use]
            pub fn new(service: __Host) -> Self {
                Self(::std::sync::Arc::new(service))
            }
        }

        impl<__Host: #ident> ::core::convert::From<::std::sync::Arc<__Host>> for #server<__Host> {
            fn from(service: ::std::sync::Arc<__Host>) -> Self {
                Self(service)
            }
        }

        #[allow(deprecated)]
        impl<__Host: #ident> #bellrope::service::Service for #server<__Host> {
            fn register(self, builder: #bellrope::server::ServerBuilder) -> #bellrope::server::ServerBuilder {
                let Self(service) = self;
                #(#registrations)*
                builder
            }
        }
    }
}

fn register(service: &Service, method: &Method) -> TokenStream {
    let Service { ident: the_trait, bellrope, codec, .. } = service;
    let Method { ident, name, output, .. } = method;
    let conditions = method.conditions();
    let server = quote!(#bellrope::service::server);
    let request = method.request_type(&quote!('_));
    let described = method.request_type(&quote!('static));
    let read = if method.arguments.fields().next().is_some() {
        quote!(let request = #server::request::<#codec, #request>(#name, call.payload())?;)
    } else {
        quote!(let _ = #server::request::<#codec, #request>(#name, call.payload())?;)
    };
    let arguments = method.arguments.all.iter().map(|argument| match argument {
        None => quote!(incoming),
        Some(argument) => {
            let field = &argument.ident;
            if argument.by_reference { quote!(&request.#field) } else { quote!(request.#field) }
        }
    });
    let called = quote!(<__Host as #the_trait>::#ident(&service, #(#arguments),*));
    let answered = if method.fails() { quote!(answer?) } else { quote!(answer) };
    let send = if method.fails() { quote!(#server::send_or_fail) } else { quote!(#server::send) };
    let [answer, reply, send] =
        [quote!(#server::answer), quote!(#server::reply), send].map(|path| output.placed(&path));
    let answer = quote!(#answer::<#codec, _>(#name, &#answered));
    let items = output.stream.then(|| quote!(#send::<#codec, _>(#name, chunks, items)));
    let incoming = method
        .arguments
        .incoming
        .as_ref()
        .map(|item| quote!(let (incoming, refusal) = #server::incoming::<#codec, #item>(#name, incoming);));
    let body = match method.style {
        Style::Worker => quote! {
            let builder = builder.unary(#name, move |call, reply| {
                #read
                let answer = #called;
                #reply::<#codec, _>(#name, &#answered, reply)
            });
        },
        Style::Blocking => quote! {
            let builder = builder.unary_blocking(#name, move |call| {
                #read
                let answer = #called;
                #answer
            });
        },
        Style::Async => on_tokio(
            name,
            &quote!(unary_async),
            &quote!(call),
            &quote! {
                #read
                let answer = #called.await;
                #answer
            },
        ),
        Style::ServerStream => on_tokio(
            name,
            &quote!(server_stream),
            &quote!(call, chunks),
            &quote! {
                #read
                let items = #called;
                #items.await
            },
        ),
        Style::ClientStream => on_tokio(
            name,
            &quote!(client_stream),
            &quote!(call, incoming),
            &quote! {
                #read
                #incoming
                let answer = refusal.or(#called).await?;
                #answer
            },
        ),
        Style::Duplex => on_tokio(
            name,
            &quote!(duplex),
            &quote!(call, incoming, chunks),
            &quote! {
                #read
                #incoming
                let items = refusal.begin(|| #called);
                refusal.or(#items).await?
            },
        ),
    };
    quote! {
        #(#conditions)*
        let builder = {
            let service = ::std::sync::Arc::clone(&service);
            #body
            #server::describe::<#described>(builder)
        };
    }
}

/// A handler that runs on tokio: each call has a share of the service.
fn on_tokio(name: &syn::LitStr, register: &TokenStream, given: &TokenStream, work: &TokenStream) -> TokenStream {
    quote! {
        let builder = builder.#register(#name, move |#given| {
            let service = ::std::sync::Arc::clone(&service);
            async move {
                #work
            }
        });
    }
}
