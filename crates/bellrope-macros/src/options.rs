//! What stands in the brackets of the attribute.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{LitStr, Path, Result, Token, parse::Parser as _, parse_quote, punctuated::Punctuated};

/// The options of a service.
pub(crate) struct Options {
    /// Its name on the wire, if that is not the trait's.
    pub(crate) name: Option<LitStr>,
    codec: Option<LitStr>,
    /// Values that its types take.
    pub(crate) samples: Vec<LitStr>,
    /// The path of Bellrope.
    pub(crate) bellrope: Path,
}

impl Options {
    pub(crate) fn parse(tokens: TokenStream) -> Result<Self> {
        let mut options = Self { name: None, codec: None, samples: Vec::new(), bellrope: parse_quote!(::bellrope) };
        let parser = syn::meta::parser(|meta| {
            if meta.path.is_ident("name") {
                options.name = Some(checked_name(meta.value()?.parse()?)?);
            } else if meta.path.is_ident("codec") {
                options.codec = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("samples") {
                let inside;
                syn::parenthesized!(inside in meta.input);
                options.samples = Punctuated::<LitStr, Token![,]>::parse_terminated(&inside)?.into_iter().collect();
            } else if meta.path.is_ident("crate") {
                options.bellrope = meta.value()?.parse::<LitStr>()?.parse()?;
            } else {
                return Err(meta.error(
                    "there are the options `name`, `codec`, `samples` and `crate`, such as codec = \"postcard\"",
                ));
            }
            Ok(())
        });
        parser.parse2(tokens)?;
        Ok(options)
    }

    /// Refuses what has no meaning on an implementation.
    pub(crate) fn refuse_those_of_traits(&self) -> Result<()> {
        match (&self.codec, self.samples.first()) {
            (Some(codec), _) => Err(syn::Error::new_spanned(codec, "the codec of a service stands on its trait")),
            (_, Some(sample)) => Err(syn::Error::new_spanned(sample, "the samples of a service stand on its trait")),
            (None, None) => Ok(()),
        }
    }

    /// The type of the codec.
    pub(crate) fn codec(&self) -> Result<TokenStream> {
        let bellrope = &self.bellrope;
        let Some(codec) = &self.codec else { return Ok(quote!(#bellrope::service::Json)) };
        match codec.value().as_str() {
            "json" => Ok(quote!(#bellrope::service::Json)),
            "postcard" => Ok(quote!(#bellrope::service::Postcard)),
            other if ["json", "postcard"].iter().any(|known| known.eq_ignore_ascii_case(other)) => {
                Err(syn::Error::new_spanned(codec, format!("the codec is called \"{}\"", other.to_ascii_lowercase())))
            }
            own if own.contains("::") || own.starts_with(char::is_uppercase) => {
                codec.parse::<Path>().map(|path| quote!(#path))
            }
            _ => Err(syn::Error::new_spanned(
                codec,
                "a codec is \"json\", \"postcard\", or the path of a type that is a Codec, such as \"crate::Lines\"",
            )),
        }
    }
}

/// A name that may travel, as part of one.
pub(crate) fn checked_name(name: LitStr) -> Result<LitStr> {
    let value = name.value();
    if (1..=120).contains(&value.len()) && !value.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Ok(name);
    }
    Err(syn::Error::new_spanned(name, "a name has 1 to 120 bytes, and neither blanks nor control characters"))
}
