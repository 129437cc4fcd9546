//! One method of a service.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{
    Attribute, Error, Expr, ExprLit, Ident, Lit, LitStr, Meta, Path, ReceiverKind, Result, ReturnType, Safety,
    Signature, Token, TraitItemFn, ext::IdentExt as _, parse_quote, punctuated::Punctuated, spanned::Spanned as _,
};

use crate::{
    arguments::Arguments,
    options::checked_name,
    output::{Output, OutputKind},
};

/// A method.
pub(crate) struct Method {
    /// Its place among the others.
    pub(crate) index: usize,
    pub(crate) style: Style,
    /// On the wire.
    pub(crate) name: LitStr,
    pub(crate) ident: Ident,
    /// The type of its requests.
    pub(crate) request: Ident,
    pub(crate) arguments: Arguments,
    pub(crate) output: Output,
    /// As its author wrote it, without the attributes that are ours.
    item: TraitItemFn,
}

/// How a method is called, and where it runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Worker,
    Blocking,
    Async,
    ServerStream,
    ClientStream,
    Duplex,
}

impl Method {
    pub(crate) fn parse(
        service: &Ident,
        prefix: &str,
        index: usize,
        mut item: TraitItemFn,
        bellrope: &Path,
    ) -> Result<Self> {
        let Signature { ident, .. } = &item.sig;
        let ident = ident.clone();
        let (mut blocking, mut own_name) = (None, None);
        for attribute in std::mem::take(&mut item.attrs) {
            if attribute.path().is_ident("blocking") {
                attribute.meta.require_path_only()?;
                blocking = Some(attribute);
            } else if attribute.path().is_ident("name") {
                own_name = Some(name_of(&attribute)?);
            } else {
                refuse_conditional(&attribute)?;
                item.attrs.push(attribute);
            }
        }
        check_signature(&item.sig)?;
        let arguments = Arguments::parse(item.sig.inputs.iter(), bellrope)?;
        let output = Output::parse(&item.sig.output)?;
        let style = style(&item, blocking.as_ref(), &arguments, &output)?;
        let plain = ident.unraw().to_string();
        let own = own_name.as_ref().map_or_else(|| plain.clone(), LitStr::value);
        let name = LitStr::new(&format!("{prefix}.{own}"), own_name.map_or(ident.span(), |name| name.span()));
        // Apart, so that no two methods of two services have one: `Foo::bar_baz` and `FooBar::baz`.
        let request = format_ident!("__{}__{}", service.unraw(), plain, span = ident.span());
        Ok(Self { index, style, name, ident, request, arguments, output, item })
    }

    /// The attributes that hold for whatever is made of the method.
    pub(crate) fn conditions(&self) -> impl Iterator<Item = Attribute> {
        self.item.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg")).cloned()
    }

    /// The attributes that hold for the method of a client.
    pub(crate) fn client_attributes(&self) -> impl Iterator<Item = Attribute> {
        self.item.attrs.iter().filter_map(|attribute| kept(attribute, &["doc", "cfg", "deprecated"]))
    }

    /// The type of its requests, with a lifetime if it has one.
    pub(crate) fn request_type(&self, lifetime: &TokenStream) -> TokenStream {
        let request = &self.request;
        if self.arguments.borrow() { quote!(#request<#lifetime>) } else { quote!(#request) }
    }

    /// The method as it stands in the trait.
    pub(crate) fn in_trait(&self) -> TraitItemFn {
        let mut item = self.item.clone();
        if let Some(keyword) = item.sig.asyncness.take() {
            let output = match &item.sig.output {
                ReturnType::Default => quote!(()),
                ReturnType::Type(_, ty) => quote!(#ty),
            };
            let future = quote_spanned!(keyword.span()=>
                impl ::core::future::Future<Output = #output> + ::core::marker::Send);
            item.sig.output = parse_quote!(-> #future);
            item.default = item.default.map(|body| parse_quote!({ async move #body }));
        } else if self.output.stream {
            if let ReturnType::Type(_, ty) = &mut item.sig.output {
                let send = quote_spanned!(ty.span()=> ::core::marker::Send);
                *ty = parse_quote!(#ty + #send);
            }
        }
        item
    }

    /// What its requests are, and what is said of it.
    pub(crate) fn describe(&self, codec: &TokenStream, samples: &[LitStr], bellrope: &Path) -> TokenStream {
        let Self { index, name, .. } = self;
        let samples = (!samples.is_empty()).then(|| quote!(const SAMPLES: &'static [&'static str] = &[#(#samples),*];));
        let conditions: Vec<_> = self.conditions().collect();
        let fields = self.arguments.fields().map(|argument| {
            let (attributes, ident, field) = (&argument.attributes, &argument.ident, &argument.field);
            quote!(#attributes #ident: #field)
        });
        let (declared, used) = (self.request_type(&quote!('call)), self.request_type(&quote!('_)));
        let serde = LitStr::new(&quote!(#bellrope::service::serde).to_string().replace(' ', ""), Span::call_site());
        // In place of the type's own name, which nobody wrote.
        let expected = format!("the arguments of {} by their names", name.value());
        let answer = self.output.answer(bellrope);
        let check_error = self.output.check_error(bellrope).map(|check| quote!(#(#conditions)* #check));
        let check_alias = self.output.check_alias(bellrope).map(|check| quote!(#(#conditions)* #check));
        let sent = self.arguments.incoming.as_ref().map_or_else(|| quote!(()), |item| quote!(#item));
        quote! {
            #check_error

            #check_alias

            #(#conditions)*
            #[doc(hidden)]
            #[allow(non_camel_case_types, non_snake_case)]
            #[derive(#bellrope::service::serde::Serialize, #bellrope::service::serde::Deserialize)]
            #[serde(crate = #serde, expecting = #expected)]
            struct #declared {
                #(#fields,)*
            }

            #(#conditions)*
            impl #bellrope::service::Method for #used {
                const NAME: &'static str = #name;
                const INDEX: usize = #index;
                #samples
                type Codec = #codec;
                type Output = #answer;
                type Sent = #sent;
                type Request<'call> = #declared;
            }
        }
    }

    /// Whether it answers with failures of the service.
    pub(crate) fn fails(&self) -> bool {
        self.output.kind == OutputKind::Failing
    }
}

fn name_of(attribute: &Attribute) -> Result<LitStr> {
    if let Meta::NameValue(meta) = &attribute.meta {
        if let Expr::Lit(ExprLit { lit: Lit::Str(name), .. }) = &meta.value {
            return checked_name(name.clone());
        }
    }
    Err(Error::new_spanned(attribute, "a method's name on the wire is a text: #[name = \"read\"]"))
}

/// The attribute, if it has one of these names, or what is left of it under its condition.
fn kept(attribute: &Attribute, names: &[&str]) -> Option<Attribute> {
    let is_kept = |path: &Path| names.iter().any(|name| path.is_ident(name));
    let Some((condition, conditional)) = conditional(attribute) else {
        return is_kept(attribute.path()).then(|| attribute.clone());
    };
    let left: Vec<_> = conditional.into_iter().filter(|meta| is_kept(meta.path())).collect();
    (!left.is_empty()).then(|| parse_quote!(#[cfg_attr(#condition, #(#left),*)]))
}

/// The condition of a `cfg_attr`, and what it holds for.
fn conditional(attribute: &Attribute) -> Option<(Meta, Vec<Meta>)> {
    if !attribute.path().is_ident("cfg_attr") {
        return None;
    }
    let all = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok()?;
    let mut all = all.into_iter();
    Some((all.next()?, all.collect()))
}

/// What the macro itself reads is not there for it under a condition.
fn refuse_conditional(attribute: &Attribute) -> Result<()> {
    let all = conditional(attribute).map_or_else(Vec::new, |(_, all)| all);
    match all.iter().find(|meta| ["blocking", "name", "cfg"].iter().any(|own| meta.path().is_ident(own))) {
        Some(found) => Err(Error::new_spanned(found, "this stands by itself, and not in a `cfg_attr`")),
        None => Ok(()),
    }
}

fn check_signature(signature: &Signature) -> Result<()> {
    if let Some(parameter) = signature.generics.params.first() {
        return Err(Error::new_spanned(
            parameter,
            "a method has one type for each argument, which both sides know: it cannot be generic, and lifetimes are left out",
        ));
    }
    if let Some(clause) = &signature.generics.where_clause {
        return Err(Error::new_spanned(clause, "a method has no `where`"));
    }
    if let Some(keyword) = &signature.constness {
        return Err(Error::new_spanned(keyword, "a method is `fn` or `async fn`"));
    }
    if let Safety::Safe(_) | Safety::Unsafe(_) = &signature.safety {
        return Err(Error::new_spanned(&signature.safety, "a method is `fn` or `async fn`"));
    }
    if let Some(abi) = &signature.abi {
        return Err(Error::new_spanned(abi, "a method is `fn` or `async fn`"));
    }
    match signature.receiver() {
        Some(receiver) if matches!(receiver.kind, ReceiverKind::Reference(_, None, None)) => Ok(()),
        Some(receiver) => Err(Error::new_spanned(receiver, "calls come from many at once: a method takes `&self`")),
        None => Err(Error::new_spanned(&signature.ident, "a method takes `&self` first")),
    }
}

fn style(item: &TraitItemFn, blocking: Option<&Attribute>, arguments: &Arguments, output: &Output) -> Result<Style> {
    let incoming = arguments.incoming.as_ref();
    match (output.stream, item.sig.asyncness.is_some()) {
        (true, true) => Err(Error::new_spanned(
            item.sig.asyncness,
            "a method that answers with a stream is no `async fn`: write `fn name(...) -> impl Stream<Item = T>`, and await \
             inside of the stream",
        )),
        (_, true) | (true, _) if blocking.is_some() => Err(Error::new_spanned(
            blocking,
            "#[blocking] is for a `fn` that answers once; an `async fn` or a stream runs on tokio",
        )),
        (true, false) => Ok(if incoming.is_some() { Style::Duplex } else { Style::ServerStream }),
        (false, true) => Ok(if incoming.is_some() { Style::ClientStream } else { Style::Async }),
        (false, false) => match incoming {
            Some(items) => Err(Error::new(
                items.span(),
                "a method that takes a stream waits for it: make it an `async fn`, or answer with `impl Stream<Item = T>`",
            )),
            None => Ok(if blocking.is_some() { Style::Blocking } else { Style::Worker }),
        },
    }
}
