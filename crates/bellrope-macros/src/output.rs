//! What a method answers with.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::quote;
use syn::{
    Error, GenericArgument, Path, PathArguments, Result, ReturnType, Type, TypeParamBound, spanned::Spanned as _,
};

use crate::arguments::{owned, plain, trait_in};

/// What a method answers with, or what each item of its stream is.
pub(crate) struct Output {
    pub(crate) kind: OutputKind,
    /// As its author wrote it.
    pub(crate) written: TokenStream,
    /// What is asked for.
    value: TokenStream,
    /// The application's error.
    error: Option<TokenStream>,
    /// Whether it is a stream.
    pub(crate) stream: bool,
    /// Whether it has a name, which may be that of something else.
    is_path: bool,
}

const ALIAS: &str =
    "this is a `Result` under another name, which would be taken for a value: say both types, `Result<T, E>`";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// A value: the method cannot fail by itself.
    Plain,
    /// A value or the application's error.
    Result,
    /// A value, or the service has failed.
    Failing,
}

impl Output {
    pub(crate) fn parse(output: &ReturnType) -> Result<Self> {
        let ReturnType::Type(_, ty) = output else {
            return Ok(Self {
                kind: OutputKind::Plain,
                written: quote!(()),
                value: quote!(()),
                error: None,
                stream: false,
                is_path: false,
            });
        };
        match stream_item(plain(ty))? {
            Some(item) => Ok(Self { stream: true, ..Self::of(plain(&item))? }),
            None => Self::of(plain(ty)),
        }
    }

    fn of(ty: &Type) -> Result<Self> {
        match ty {
            Type::ImplTrait(found) if trait_in(&found.bounds).is_none_or(|name| name != "Future") => {
                return Err(Error::new_spanned(
                    found,
                    "a method answers with a type that has a name, or `impl Stream<Item = T>`",
                ));
            }
            ty => owned(ty)?,
        }
        let written = quote!(#ty);
        let value_alone = Self {
            kind: OutputKind::Plain,
            written: written.clone(),
            value: written,
            error: None,
            stream: false,
            is_path: matches!(ty, Type::Path(_)),
        };
        let Type::Path(path) = ty else { return Ok(value_alone) };
        let Some(last) = path.path.segments.last().filter(|last| last.ident == "Result") else {
            return Ok(value_alone);
        };
        let types: Vec<_> = match &last.arguments {
            PathArguments::AngleBracketed(arguments) => arguments.args.iter().collect(),
            _ => Vec::new(),
        };
        let [GenericArgument::Type(value), GenericArgument::Type(error)] = types[..] else {
            return Err(Error::new_spanned(ty, "say both types, `Result<T, E>`, because both travel"));
        };
        let failing = matches!(plain(error), Type::Path(path)
            if path.path.segments.last().is_some_and(|last| last.ident == "HandlerError"));
        if failing {
            return Ok(Self { kind: OutputKind::Failing, value: quote!(#value), ..value_alone });
        }
        Ok(Self { kind: OutputKind::Result, value: quote!(#value), error: Some(quote!(#error)), ..value_alone })
    }

    /// What travels.
    pub(crate) fn answer(&self, bellrope: &Path) -> TokenStream {
        let Self { written, value, .. } = self;
        match self.kind {
            OutputKind::Result => written.clone(),
            OutputKind::Plain | OutputKind::Failing => {
                let (before, after) = (self.placed(&quote!(#bellrope::service::Plain<)), self.placed(&quote!(>)));
                quote!(#before #value #after)
            }
        }
    }

    /// What has the compiler say, in words of ours, that an error does not travel.
    pub(crate) fn check_error(&self, bellrope: &Path) -> Option<TokenStream> {
        let error = self.error.as_ref()?;
        let travels = placed(error.span(), &quote!(#bellrope::service::travels));
        Some(quote!(const _: fn() = #travels::<#error>;))
    }

    /// What has the compiler say that a `Result` is called otherwise, so that it is taken for a value.
    pub(crate) fn check_alias(&self, bellrope: &Path) -> Option<TokenStream> {
        if self.kind != OutputKind::Plain || !self.is_path {
            return None;
        }
        let value = &self.value;
        let refuse = self.placed(&quote!(::core::assert!));
        Some(quote! {
            const _: () = {
                #[allow(unused_imports)]
                use #bellrope::service::OtherAnswer as _;
                #refuse(!#bellrope::service::Answered::<#value>::IS_RESULT, #ALIAS);
            };
        })
    }

    /// These tokens of ours where its author wrote the type, for what the compiler has against it.
    pub(crate) fn placed(&self, tokens: &TokenStream) -> TokenStream {
        placed(self.written.span(), tokens)
    }

    /// The value and the error, as clients see them.
    pub(crate) fn for_clients(&self) -> (TokenStream, TokenStream) {
        let error = self.error.clone().unwrap_or_else(|| quote!(::std::convert::Infallible));
        (self.value.clone(), error)
    }
}

/// These tokens of ours in that place of the sources. What names mean in them does not change.
pub(crate) fn placed(place: Span, tokens: &TokenStream) -> TokenStream {
    let place = Span::call_site().located_at(place);
    let placed = |mut token: TokenTree| {
        token.set_span(place);
        token
    };
    tokens.clone().into_iter().map(placed).collect()
}

/// The type of the items, if this is a stream of them.
fn stream_item(ty: &Type) -> Result<Option<Type>> {
    let Type::ImplTrait(stream) = ty else { return Ok(None) };
    for bound in &stream.bounds {
        let TypeParamBound::Trait(bound) = bound else { continue };
        let Some(last) = bound.path.segments.last().filter(|last| last.ident == "Stream") else { continue };
        if let PathArguments::AngleBracketed(arguments) = &last.arguments {
            for argument in &arguments.args {
                if let GenericArgument::AssocType(item) = argument {
                    if item.ident == "Item" {
                        return Ok(Some(item.ty.clone()));
                    }
                }
            }
        }
        return Err(Error::new_spanned(&bound.path, "say what its items are: `impl Stream<Item = T>`"));
    }
    Ok(None)
}
