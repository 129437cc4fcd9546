//! The arguments of a method, and how they travel.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{
    Error, FnArg, GenericArgument, Ident, Lifetime, Pat, PatType, Path, PathArguments, Result, ReturnType, Type,
    spanned::Spanned as _,
};

/// An argument that travels with the request.
pub(crate) struct Argument {
    pub(crate) ident: Ident,
    /// As its author wrote it.
    pub(crate) written: Type,
    /// The field of the request that it becomes.
    pub(crate) field: TokenStream,
    /// The attributes of that field.
    pub(crate) attributes: TokenStream,
    /// What a client puts into the field.
    pub(crate) sent: TokenStream,
    /// Whether the method gets a reference to the field.
    pub(crate) by_reference: bool,
    /// Whether the field borrows from the request.
    pub(crate) borrows: bool,
}

/// All arguments of a method.
pub(crate) struct Arguments {
    /// In the order of their author; `None` stands for the stream.
    pub(crate) all: Vec<Option<Argument>>,
    /// What each item of the stream from the caller is.
    pub(crate) incoming: Option<Type>,
}

impl Arguments {
    pub(crate) fn parse<'a>(inputs: impl Iterator<Item = &'a FnArg>, bellrope: &Path) -> Result<Self> {
        let mut arguments = Self { all: Vec::new(), incoming: None };
        for input in inputs {
            let FnArg::Typed(input) = input else { continue };
            if let Some(item) = incoming(&input.ty)? {
                if arguments.incoming.replace(item).is_some() {
                    return Err(Error::new_spanned(&input.ty, "a method takes one stream: one argument `Incoming<T>`"));
                }
                arguments.all.push(None);
            } else {
                arguments.all.push(Some(argument(input, bellrope)?));
            }
        }
        Ok(arguments)
    }

    /// Those that travel with the request.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &Argument> {
        self.all.iter().flatten()
    }

    /// Whether the request borrows.
    pub(crate) fn borrow(&self) -> bool {
        self.fields().any(|argument| argument.borrows)
    }
}

/// The type of the items, if this is a stream of them.
fn incoming(ty: &Type) -> Result<Option<Type>> {
    let Type::Path(path) = ty else { return Ok(None) };
    let Some(last) = path.path.segments.last().filter(|last| last.ident == "Incoming") else { return Ok(None) };
    if let PathArguments::AngleBracketed(arguments) = &last.arguments {
        if let (1, Some(GenericArgument::Type(item))) = (arguments.args.len(), arguments.args.first()) {
            return owned(item).map(|()| Some(item.clone()));
        }
    }
    Err(Error::new_spanned(ty, "say what its items are: `Incoming<T>`"))
}

/// What is read where nothing can be borrowed from.
pub(crate) fn owned(ty: &Type) -> Result<()> {
    let mut borrows = false;
    called(
        ty,
        &mut borrows,
        "this must be owned, because it is read from bytes that are gone by then: take `String` for `&str`",
    )?;
    if borrows {
        return Err(Error::new_spanned(ty, "this must be owned: it is read from bytes that are gone by then"));
    }
    Ok(())
}

fn argument(input: &PatType, bellrope: &Path) -> Result<Argument> {
    let Pat::Ident(pattern) = &*input.pat else {
        return Err(Error::new_spanned(&input.pat, "an argument has a name, under which it travels"));
    };
    if let Some(by_ref) = &pattern.by_ref {
        return Err(Error::new_spanned(by_ref, "an argument is its name and its type, without `ref`"));
    }
    if let Some(mutability) = &pattern.mutability {
        return Err(Error::new_spanned(mutability, "`mut` belongs to the implementation of the method"));
    }
    let ident = &pattern.ident;
    let written = (*input.ty).clone();
    let span = written.span();
    let argument = |field, attributes, sent, by_reference, borrows| Argument {
        ident: ident.clone(),
        written: written.clone(),
        field,
        attributes,
        sent,
        by_reference,
        borrows,
    };
    let borrow = quote!(#[serde(borrow)]);
    if let Type::Reference(reference) = &written {
        if let Some(lifetime) = &reference.lifetime {
            return Err(Error::new_spanned(lifetime, "an argument lives as long as its call: leave the lifetime out"));
        }
        if let Some(mutability) = &reference.mutability {
            return Err(Error::new_spanned(mutability, "an argument travels one way, so it cannot be `&mut`"));
        }
        let inner = &*reference.elem;
        return match inner {
            Type::Path(path) if path.path.is_ident("str") => {
                let field = quote_spanned!(span=> ::std::borrow::Cow<'call, str>);
                Ok(argument(field, borrow, quote!(::std::borrow::Cow::Borrowed(#ident)), true, true))
            }
            Type::Slice(slice) if matches!(&*slice.elem, Type::Path(path) if path.path.is_ident("u8")) => {
                let field = quote_spanned!(span=> #bellrope::service::Bytes<'call>);
                let path = quote!(#bellrope::service::Bytes::borrow).to_string().replace(' ', "");
                let borrow = quote!(#[serde(borrow, deserialize_with = #path)]);
                Ok(argument(field, borrow, quote!(#bellrope::service::Bytes::from(#ident)), true, true))
            }
            Type::Slice(slice) => {
                let item = &slice.elem;
                owned(item)?;
                let field = quote_spanned!(span=> #bellrope::service::Lent<'call, [#item], ::std::vec::Vec<#item>>);
                let sent = quote!(#bellrope::service::Lent::Borrowed(#ident));
                Ok(argument(field, quote!(), sent, true, true))
            }
            inner => {
                owned(inner)?;
                let field = quote_spanned!(span=> #bellrope::service::Lent<'call, #inner>);
                let sent = quote!(#bellrope::service::Lent::Borrowed(#ident));
                Ok(argument(field, quote!(), sent, true, true))
            }
        };
    }
    let mut borrows = false;
    let inside =
        "a text with escapes cannot be borrowed from JSON: take `Cow<'_, str>` in place of a reference in here";
    let field = called(&written, &mut borrows, inside)?;
    let attributes = if borrows { borrow } else { quote!() };
    Ok(argument(quote!(#field), attributes, quote!(#ident), false, borrows))
}

/// The type with the lifetime of the call where none is said. Notes whether there was such a place. A reference is an error,
/// with these words.
fn called(ty: &Type, borrows: &mut bool, reference: &str) -> Result<Type> {
    let mut ty = ty.clone();
    fill(&mut ty, borrows, reference)?;
    Ok(ty)
}

fn fill(ty: &mut Type, borrows: &mut bool, reference: &str) -> Result<()> {
    match ty {
        Type::Reference(found) => Err(Error::new_spanned(found, reference)),
        Type::ImplTrait(found) => Err(Error::new_spanned(
            found,
            "what travels has one type, which both sides know: name it in place of `impl`",
        )),
        Type::Path(path) => {
            for segment in &mut path.path.segments {
                match &mut segment.arguments {
                    PathArguments::AngleBracketed(arguments) => {
                        for argument in &mut arguments.args {
                            match argument {
                                GenericArgument::Lifetime(lifetime) => fill_lifetime(lifetime, borrows),
                                GenericArgument::Type(ty) => fill(ty, borrows, reference)?,
                                _ => {}
                            }
                        }
                    }
                    PathArguments::Parenthesized(arguments) => {
                        if let ReturnType::Type(_, ty) = &mut arguments.output {
                            fill(ty, borrows, reference)?;
                        }
                    }
                    PathArguments::None => {}
                }
            }
            Ok(())
        }
        Type::Tuple(tuple) => tuple.elems.iter_mut().try_for_each(|ty| fill(ty, borrows, reference)),
        Type::Array(array) => fill(&mut array.elem, borrows, reference),
        Type::Slice(slice) => fill(&mut slice.elem, borrows, reference),
        Type::Paren(paren) => fill(&mut paren.elem, borrows, reference),
        Type::Group(group) => fill(&mut group.elem, borrows, reference),
        _ => Ok(()),
    }
}

fn fill_lifetime(lifetime: &mut Lifetime, borrows: &mut bool) {
    if lifetime.ident == "_" {
        *borrows = true;
        *lifetime = Lifetime::new("'call", Span::call_site().located_at(lifetime.span()));
    }
}
