//! The arguments of a method, and how they travel.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{
    Attribute, Error, FnArg, GenericArgument, Ident, Lifetime, Pat, PatType, Path, PathArguments, Result, ReturnType,
    Type, TypeParamBound, spanned::Spanned as _,
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
            input.attrs.iter().try_for_each(only_of_lints)?;
            if let Some(item) = incoming(plain(&input.ty))? {
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

/// The type without the groups that a `macro_rules!` puts around it, and without parentheses.
pub(crate) fn plain(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => plain(&group.elem),
        Type::Paren(paren) => plain(&paren.elem),
        ty => ty,
    }
}

/// Refuses attributes that would say something of the argument: it is declared in more places than its author wrote.
fn only_of_lints(attribute: &Attribute) -> Result<()> {
    if ["allow", "expect", "warn", "deny", "forbid"].iter().any(|lint| attribute.path().is_ident(lint)) {
        return Ok(());
    }
    Err(Error::new_spanned(
        attribute,
        "an argument has its name and its type: #[cfg] stands on a method, and attributes of serde in a type of yours",
    ))
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

/// What a method takes by reference is read as a value of its own.
fn lent(inner: &Type, written: &Type) -> Result<()> {
    let mut borrows = false;
    called(inner, &mut borrows, "a reference to a reference does not travel: take one `&`")?;
    if borrows {
        let text = "leave the `&` out: a type with a lifetime is taken as a value, which borrows from the request";
        return Err(Error::new_spanned(written, text));
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
    let mut written = plain(&input.ty).clone();
    say_lifetime_of_cow(&mut written);
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
        let inner = plain(&reference.elem);
        return match inner {
            Type::Path(path) if path.path.is_ident("str") => {
                let field = quote_spanned!(span=> ::std::borrow::Cow<'call, str>);
                Ok(argument(field, borrow, quote!(::std::borrow::Cow::Borrowed(#ident)), true, true))
            }
            Type::Slice(slice) if is_byte(&slice.elem) => {
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
                lent(inner, &written)?;
                let lent = quote_spanned!(span=> #bellrope::service::Lent);
                let field = if may_be_unsized(inner) {
                    quote!(#lent<'call, #inner, <#inner as #bellrope::service::Lend>::Owned>)
                } else {
                    quote_spanned!(span=> #bellrope::service::Lent<'call, #inner>)
                };
                let sent = quote!(#bellrope::service::Lent::Borrowed(#ident));
                Ok(argument(field, quote!(), sent, true, true))
            }
        };
    }
    if is_cow_of_bytes(&written) {
        return Err(Error::new_spanned(written, "bytes are `&[u8]` or `bellrope::service::Bytes<'_>`"));
    }
    let mut borrows = false;
    let field = called(&written, &mut borrows, INSIDE)?;
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
        Type::Reference(found) if reference == INSIDE => {
            let text = inside(&found.elem);
            Err(Error::new_spanned(found, text))
        }
        Type::Reference(found) => Err(Error::new_spanned(found, reference)),
        Type::ImplTrait(found) => Err(of_no_name(found, "impl", &found.bounds)),
        Type::TraitObject(found) => Err(of_no_name(found, "dyn", &found.bounds)),
        Type::FnPtr(_) | Type::Ptr(_) | Type::Never(_) => {
            Err(Error::new_spanned(ty, "this cannot travel: what does is a value that serde writes and reads"))
        }
        Type::Infer(_) => Err(Error::new_spanned(ty, "what travels has one type, which both sides know: name it")),
        Type::Path(path) if path.qself.is_none() && path.path.segments.first().is_some_and(|it| it.ident == "Self") => {
            Err(Error::new_spanned(path, "clients do not know what implements the service: name the type"))
        }
        Type::Path(path) => {
            if let Some(found) = path.path.segments.last().filter(|last| last.ident == "Incoming") {
                let text = "a stream from the caller is an argument of its own, `items: Incoming<T>`";
                return Err(Error::new_spanned(found, text));
            }
            if let Some(found) = path.path.segments.last().filter(|last| last.ident == "BoxStream") {
                return Err(Error::new_spanned(found, STREAM));
            }
            if let Some(found) = path.path.segments.last().filter(|last| last.ident == "BoxFuture") {
                return Err(Error::new_spanned(found, FUTURE));
            }
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

/// Whether it has the name of a type of the standard library of which there are only references.
fn may_be_unsized(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return false };
    path.path.segments.last().is_some_and(|last| ["Path", "OsStr", "CStr"].iter().any(|name| last.ident == name))
}

/// Whether serde would write a list of numbers of it, and want to read bytes.
fn is_cow_of_bytes(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return false };
    let Some(last) = path.path.segments.last().filter(|last| last.ident == "Cow") else { return false };
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return false };
    matches!(arguments.args.last(), Some(GenericArgument::Type(Type::Slice(slice))) if is_byte(&slice.elem))
}

fn is_byte(ty: &Type) -> bool {
    matches!(plain(ty), Type::Path(path) if path.path.is_ident("u8"))
}

/// `Cow<str>` as `Cow<'_, str>`: a signature may leave the lifetime out, and a field or an `async fn` may not.
fn say_lifetime_of_cow(ty: &mut Type) {
    let Type::Path(path) = ty else { return };
    let Some(last) = path.path.segments.last_mut() else { return };
    let PathArguments::AngleBracketed(arguments) = &mut last.arguments else { return };
    if last.ident == "Cow" && arguments.args.len() == 1 {
        arguments.args.insert(0, GenericArgument::Lifetime(Lifetime::new("'_", last.ident.span())));
        return;
    }
    for argument in &mut arguments.args {
        if let GenericArgument::Type(inner) = argument {
            say_lifetime_of_cow(inner);
        }
    }
}

const INSIDE: &str = "a reference cannot be in here";

/// What is to be taken in place of a reference inside of an argument.
fn inside(elem: &Type) -> &'static str {
    match plain(elem) {
        Type::Path(path) if path.path.is_ident("str") => {
            "a text in here is read as `Cow<'_, str>`, which borrows where it can (JSON may have escapes): take that in place of \
             the reference"
        }
        Type::Slice(slice) if is_byte(&slice.elem) => {
            "bytes in here are `bellrope::service::Bytes<'_>`: take that in place of the reference"
        }
        _ => "this must be owned in here: leave the `&` out",
    }
}

const STREAM: &str = "a method answers with a stream as `impl Stream<Item = T>`";
const FUTURE: &str = "a method that waits is an `async fn`";

/// The name of the first trait among some bounds.
pub(crate) fn trait_in<'a>(bounds: impl IntoIterator<Item = &'a TypeParamBound>) -> Option<&'a Ident> {
    bounds.into_iter().find_map(|bound| match bound {
        TypeParamBound::Trait(bound) => bound.path.segments.last().map(|last| &last.ident),
        _ => None,
    })
}

/// What is wrong with `impl Trait` or `dyn Trait`.
fn of_no_name<'a>(found: &impl ToTokens, keyword: &str, bounds: impl IntoIterator<Item = &'a TypeParamBound>) -> Error {
    match trait_in(bounds) {
        Some(name) if name == "Stream" => Error::new_spanned(found, STREAM),
        Some(name) if name == "Future" => Error::new_spanned(found, FUTURE),
        _ => Error::new_spanned(
            found,
            format!("what travels has one type, which both sides know: name it in place of `{keyword}`"),
        ),
    }
}

fn fill_lifetime(lifetime: &mut Lifetime, borrows: &mut bool) {
    if lifetime.ident == "_" {
        *borrows = true;
        *lifetime = Lifetime::new("'call", Span::call_site().located_at(lifetime.span()));
    }
}
