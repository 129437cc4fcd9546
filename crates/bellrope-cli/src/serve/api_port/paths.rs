//! The paths, the methods they take, and the form of their errors.

use std::borrow::Cow;

use bellrope_gateway::inbound::{ErrorForm, Fault, ToolFormat};
use hyper::{HeaderMap, Method};

use super::stored::Deed;

/// Where one model is asked for, before its name.
const MODEL: &str = "/v1/models/";
/// Where a response is asked for, before its id.
const RESPONSE: &str = "/v1/responses/";

/// What a path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint<'a> {
    /// An answer.
    Ask(ToolFormat),
    /// The tokens of a request.
    CountTokens,
    Embeddings,
    Models,
    /// The model of this name, with the escapes of a path.
    Model(&'a str),
    /// The response with this id, and what is done with it.
    Response(&'a str, Deed),
    /// Nothing: tools look there whether anybody listens.
    Root,
}

/// The paths that have no name in them, each with its method.
const PATHS: [(&str, &str, Endpoint<'static>); 7] = [
    ("POST", "/v1/chat/completions", Endpoint::Ask(ToolFormat::ChatCompletions)),
    ("POST", "/v1/responses", Endpoint::Ask(ToolFormat::Responses)),
    ("POST", "/v1/completions", Endpoint::Ask(ToolFormat::Completions)),
    ("POST", "/v1/embeddings", Endpoint::Embeddings),
    ("POST", "/v1/messages", Endpoint::Ask(ToolFormat::Messages)),
    ("POST", "/v1/messages/count_tokens", Endpoint::CountTokens),
    ("GET, HEAD", "/v1/models", Endpoint::Models),
];

/// A path as it is meant. A tool that adds its path to a base URL with a slash at its end sends two of them, or one at the end.
pub(super) fn meant(path: &str) -> Cow<'_, str> {
    let path = path.trim_end_matches('/');
    if !path.contains("//") {
        return path.into();
    }
    let mut last = '\0';
    path.chars().filter(|c| std::mem::replace(&mut last, *c) != '/' || *c != '/').collect()
}

impl<'a> Endpoint<'a> {
    /// What a path without slashes at its end stands for.
    ///
    /// # Errors
    /// Nothing; the words list what there is.
    pub(super) fn of(path: &'a str) -> Result<Self, Fault> {
        if let Some((.., endpoint)) = PATHS.iter().find(|(_, known, _)| *known == path) {
            return Ok(*endpoint);
        }
        if let Some(name) = path.strip_prefix(MODEL) {
            return Ok(Self::Model(name));
        }
        if let Some(id) = path.strip_prefix(RESPONSE).filter(|id| id.starts_with("resp")) {
            match id.split_once('/') {
                None => return Ok(Self::Response(id, Deed::Whole)),
                Some((id, "cancel")) => return Ok(Self::Response(id, Deed::Cancel)),
                Some((id, "input_items")) => return Ok(Self::Response(id, Deed::Input)),
                Some(_) => {}
            }
        }
        if matches!(path, "" | "/v1" | "/api/hello") {
            return Ok(Self::Root);
        }
        let known: Vec<_> = PATHS.iter().map(|(_, path, _)| *path).collect();
        Err(Fault::not_found(format!(
            "there is no such path; known: {}, {MODEL}NAME, {RESPONSE}ID, {RESPONSE}ID/cancel, {RESPONSE}ID/input_items",
            known.join(", ")
        )))
    }

    /// The form of its errors, and of what both have.
    pub(super) fn form(&self, headers: &HeaderMap) -> ErrorForm {
        match self {
            Self::Ask(format) => format.errors(),
            Self::CountTokens => ErrorForm::Anthropic,
            Self::Embeddings | Self::Response(..) => ErrorForm::OpenAi,
            Self::Models | Self::Model(_) | Self::Root => form_by(headers),
        }
    }

    /// The form of errors where there is no such path.
    pub(super) fn form_of_unknown(path: &str, headers: &HeaderMap) -> ErrorForm {
        if path.starts_with("/v1/messages") { ErrorForm::Anthropic } else { form_by(headers) }
    }

    /// The path, as the books are to know it.
    pub(super) fn path(&self) -> &'static str {
        match self {
            Self::Model(_) => MODEL,
            Self::Response(..) => RESPONSE,
            Self::Root => "/",
            known => PATHS.iter().find(|(.., endpoint)| endpoint == known).map_or("", |(_, path, _)| *path),
        }
    }

    /// Refuses a method that the path does not take.
    pub(super) fn check_method(&self, method: &Method) -> Result<(), Fault> {
        let (path, taken) = match self {
            Self::Model(_) => ("a model", "GET, HEAD"),
            Self::Root => ("this path", "GET, HEAD"),
            // Whether there is one or not.
            Self::Response(_, deed) => deed.methods(),
            known => match PATHS.iter().find(|(.., endpoint)| endpoint == known) {
                Some((method, path, _)) => (*path, *method),
                None => return Ok(()),
            },
        };
        if taken.split(", ").any(|taken| taken == method) {
            return Ok(());
        }
        Err(Fault::method_not_allowed(path, taken))
    }
}

/// Anthropic's own clients say which version of its format they speak.
fn form_by(headers: &HeaderMap) -> ErrorForm {
    if headers.contains_key("anthropic-version") { ErrorForm::Anthropic } else { ErrorForm::OpenAi }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_that_a_base_url_has_too_many_are_passed_over() {
        for path in ["/v1/messages", "/v1//messages", "//v1/messages", "//v1///messages//", "/v1/messages/"] {
            assert_eq!(meant(path), "/v1/messages", "{path}");
        }
        assert_eq!((meant("/"), meant("//"), meant("/v1//")), ("".into(), "".into(), "/v1".into()));
        assert_eq!(meant("/v1/models/a%2F%2Fb/c"), "/v1/models/a%2F%2Fb/c");
    }

    #[test]
    fn every_format_has_its_path_here() {
        for format in ToolFormat::ALL {
            assert_eq!(Endpoint::of(format.path()).unwrap(), Endpoint::Ask(format));
        }
    }

    #[test]
    fn an_unknown_path_lists_those_that_there_are() {
        for path in ["/v1/nowhere", "/v1/messages/batches", "/v2/messages", "/v1/responses/compact", "/v1/modelsx"] {
            let fault = Endpoint::of(path).unwrap_err();
            assert_eq!(fault.status, 404);
            for (_, known, _) in PATHS {
                assert!(fault.to_string().contains(known), "{fault}");
            }
        }
        assert_eq!(Endpoint::of("/v1/models/a/b").unwrap(), Endpoint::Model("a/b"));
        assert_eq!(Endpoint::of("/v1/responses/resp_1").unwrap(), Endpoint::Response("resp_1", Deed::Whole));
        assert_eq!(Endpoint::of("/v1/responses/resp_1/cancel").unwrap(), Endpoint::Response("resp_1", Deed::Cancel));
        let input = Endpoint::Response("resp_1", Deed::Input);
        assert_eq!(Endpoint::of("/v1/responses/resp_1/input_items").unwrap(), input);
        assert!(Endpoint::of("/v1/responses/resp_1/output_items").is_err());
    }

    #[test]
    fn a_response_that_is_not_there_takes_no_other_method_than_one_that_is() {
        for (deed, taken, allow) in [
            (Deed::Whole, &[Method::GET, Method::DELETE][..], "GET, DELETE"),
            (Deed::Cancel, &[Method::POST], "POST"),
            (Deed::Input, &[Method::GET], "GET"),
        ] {
            for method in [Method::GET, Method::POST, Method::DELETE, Method::PATCH, Method::PUT] {
                let refused = Endpoint::Response("resp_1", deed).check_method(&method).err();
                let expected = (!taken.contains(&method)).then_some((405, Some(allow)));
                assert_eq!(refused.map(|fault| (fault.status, fault.allow)), expected, "{method} {deed:?}");
            }
        }
        for endpoint in [Endpoint::Models, Endpoint::Model("a")] {
            assert!(endpoint.check_method(&Method::HEAD).is_ok() && endpoint.check_method(&Method::PATCH).is_err());
        }
    }

    #[test]
    fn each_path_takes_its_method_alone() {
        for (method, path, _) in PATHS {
            let endpoint = Endpoint::of(path).unwrap();
            for other in [Method::GET, Method::POST, Method::PUT, Method::HEAD] {
                let outcome = endpoint.check_method(&other);
                assert_eq!(outcome.is_ok(), method.split(", ").any(|method| other == method), "{other} {path}");
            }
        }
        assert!(
            Endpoint::Root.check_method(&Method::HEAD).is_ok() && Endpoint::Root.check_method(&Method::POST).is_err()
        );
    }
}
