//! The tokens that tools show, and who asks by them.

use std::borrow::Cow;

use bellrope_books::{KeyHolder, Tokens, holds_token};
use bellrope_gateway::{Asker, AskerKind, inbound::Fault, text::from_base64};
use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, USER_AGENT},
};

use super::paths::Endpoint;

/// Where tools show a key, beside `Authorization`.
pub(super) const KEYS: [&str; 2] = ["x-api-key", "api-key"];
/// Where tools of other formats do.
const OTHERS: [&str; 4] = ["x-goog-api-key", "x-auth-token", "x-api-token", "proxy-authorization"];

/// Refuses a head that shows two keys in one place: readers differ in which of them counts, and a provider would be sent
/// another than the one that was looked at.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Fault> {
    let is_doubled = |name: &&str| headers.get_all(*name).iter().nth(1).is_some();
    match [AUTHORIZATION.as_str(), KEYS[0], KEYS[1]].iter().find(|name| is_doubled(name)) {
        None => Ok(()),
        Some(name) => {
            Err(Fault::invalid(None, format!("the header {name} stands there several times; send one key in it")))
        }
    }
}

/// Who may ask, by the keys that tools show.
#[derive(Debug)]
pub(crate) struct Keys {
    /// `None`: there is no place for them, so there are none.
    tokens: Option<Tokens>,
    required: bool,
}

impl Keys {
    pub(crate) fn new(tokens: Option<Tokens>, required: bool) -> Self {
        Self { tokens, required }
    }

    /// Who asks. A tool may show several keys, such as one of ours and a stale one of somebody else: one of ours that is
    /// right counts, wherever it stands. What is not ours goes no further than this.
    ///
    /// # Errors
    /// A key is one of ours, and is wrong; or none is, and one is needed.
    pub(super) fn asker(&self, headers: &HeaderMap, endpoint: &Endpoint<'_>) -> Result<Asker, Fault> {
        let endpoint_path = endpoint.path();
        let mut is_wrong = false;
        for shown in shown(headers).map(Cow::Borrowed).chain(elsewhere(headers)) {
            match self.tokens.as_ref().map_or(KeyHolder::Foreign, |tokens| tokens.find(&shown)) {
                KeyHolder::Token(name) => return Ok(Asker::new(AskerKind::Token, &name, endpoint_path)),
                KeyHolder::Wrong => is_wrong = true,
                KeyHolder::Foreign => {}
            }
        }
        if is_wrong {
            return Err(Fault::unauthorized(
                "this token is not known; `bellrope token list` names those that are, `bellrope token add NAME` makes one",
            ));
        }
        // Tools look there before anybody gave them a key.
        if self.required && *endpoint != Endpoint::Root {
            return Err(Fault::unauthorized(
                "a token is needed (tokens.required); `bellrope token add NAME` makes one, to be sent as `Authorization: \
                 Bearer TOKEN` or `x-api-key: TOKEN`",
            ));
        }
        let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let program = agent.split(['/', ' ', ';', '(']).next().unwrap_or_default();
        Ok(Asker::new(AskerKind::Program, program, endpoint_path))
    }

    /// The key that counts of those that a tool shows: one of ours that is right, else the first.
    pub(super) fn shown<'a>(&self, headers: &'a HeaderMap) -> Option<Cow<'a, str>> {
        let is_ours = |key: &Cow<'_, str>| {
            matches!(self.tokens.as_ref().map(|tokens| tokens.find(key)), Some(KeyHolder::Token(_)))
        };
        let mut all = shown(headers).map(Cow::Borrowed).chain(elsewhere(headers));
        all.find(is_ours).or_else(|| shown(headers).find(|key| !key.is_empty()).map(Cow::Borrowed))
    }
}

/// Every key of a request.
fn shown(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let bearer = headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
        let value = value.to_str().ok()?.trim();
        let (scheme, key) = value.split_once(' ').unwrap_or(("", value));
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let plain = KEYS.iter().flat_map(|name| headers.get_all(*name)).filter_map(|value| value.to_str().ok());
    bearer.chain(plain.map(str::trim))
}

/// Tokens of ours where no tool of these formats shows a key. A request without its token would go past its budget, and nobody
/// would know.
fn elsewhere(headers: &HeaderMap) -> impl Iterator<Item = Cow<'_, str>> {
    let odd = headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
        let value = value.to_str().ok()?.trim();
        let (scheme, rest) = value.split_once(' ').unwrap_or(("", value));
        match scheme.to_ascii_lowercase().as_str() {
            "bearer" => None,
            // A name and a password.
            "basic" => String::from_utf8(from_base64(rest.trim())?).ok().map(Cow::Owned),
            _ => Some(Cow::Borrowed(rest.trim())),
        }
    });
    let others = OTHERS.iter().flat_map(|name| headers.get_all(*name)).filter_map(|value| value.to_str().ok());
    odd.chain(others.map(Cow::Borrowed)).flat_map(|odd| {
        let parts: Vec<_> = odd.split([':', ' ', ',']).filter(|part| holds_token(part)).map(str::to_owned).collect();
        parts.into_iter().map(Cow::Owned)
    })
}

#[cfg(test)]
mod tests {
    use bellrope_gateway::inbound::ToolFormat;
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_place_with_two_keys_is_refused_in_words() {
        let mut twice = headers(&[("authorization", "Bearer a"), ("x-api-key", "b")]);
        assert!(check(&twice).is_ok());
        twice.append("x-api-key", HeaderValue::from_static("b"));
        let fault = check(&twice).unwrap_err();
        assert!(fault.status == 400 && fault.to_string().contains("x-api-key"), "{fault}");
        for name in ["authorization", "api-key"] {
            let mut twice = HeaderMap::new();
            twice.append(name, HeaderValue::from_static("Bearer a"));
            twice.append(name, HeaderValue::from_static("Bearer b"));
            assert!(check(&twice).unwrap_err().to_string().contains(name));
        }
    }

    #[test]
    fn one_key_counts_of_several() {
        let home = tempfile::tempdir().unwrap();
        let tokens = Tokens::at(home.path().join("tokens.json"));
        let token = tokens.add("codex", &[]).unwrap().token;
        let keys = Keys::new(Some(tokens), false);
        let bearer = format!("Bearer {token}");
        for pairs in [
            &[("authorization", &*bearer)][..],
            &[("x-api-key", &*token)],
            &[("authorization", "Bearer sk-other"), ("x-api-key", &*token)],
            &[("authorization", &*bearer), ("api-key", "sk-other")],
        ] {
            assert_eq!(keys.shown(&headers(pairs)).as_deref(), Some(&*token), "{pairs:?}");
        }
        assert_eq!(
            keys.shown(&headers(&[("authorization", "Bearer sk-1"), ("x-api-key", "sk-2")])).as_deref(),
            Some("sk-1")
        );
        assert_eq!(keys.shown(&headers(&[("authorization", "Basic dTpw"), ("x-api-key", " ")])), None);
    }

    #[test]
    fn a_token_of_ours_counts_or_is_refused_in_every_place_that_takes_a_key() {
        let home = tempfile::tempdir().unwrap();
        let tokens = Tokens::at(home.path().join("tokens.json"));
        let token = tokens.add("codex", &[]).unwrap().token;
        let keys = Keys::new(Some(tokens), false);
        let basic = |text: &str| {
            const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
            let mut out = "Basic ".to_owned();
            for group in text.as_bytes().chunks(3) {
                let [a, b, c] = [0, 1, 2].map(|at| u32::from(group.get(at).copied().unwrap_or(0)));
                let bits = a << 16 | b << 8 | c;
                let digit = |at: usize| char::from(DIGITS[(bits >> (18 - 6 * at)) as usize & 63]);
                out.extend((0..4).map(|at| if at <= group.len() { digit(at) } else { '=' }));
            }
            out
        };
        for shown in [&*token, "brt_0000"] {
            for (place, value) in [
                ("authorization", shown.to_owned()),
                ("authorization", format!("Token {shown}")),
                ("authorization", format!("ApiKey  {shown}")),
                ("authorization", basic(&format!("user:{shown}"))),
                ("authorization", basic(&format!("{shown}:"))),
                ("x-goog-api-key", shown.to_owned()),
                ("x-auth-token", shown.to_owned()),
                ("proxy-authorization", format!("Bearer {shown}")),
            ] {
                let map = headers(&[(place, &value)]);
                let asker = keys.asker(&map, &Endpoint::Models).map(|asker| asker.kind).map_err(|fault| fault.status);
                let is_right = shown == token;
                assert_eq!(asker, if is_right { Ok(AskerKind::Token) } else { Err(401) }, "{place}: {value}");
                assert_eq!(keys.shown(&map).as_deref() == Some(&*token), is_right, "{place}: {value}");
            }
        }
        for value in ["Basic dTpw", "Token sk-1", "Basic !", "Negotiate x"] {
            let asker = keys.asker(&headers(&[("authorization", value)]), &Endpoint::Models).unwrap();
            assert_eq!(asker.kind, AskerKind::Unknown, "{value}");
        }
    }

    // Row 61: Bearer plus a stale x-api-key.
    #[test]
    fn a_token_of_ours_counts_in_whatever_place_it_is_shown_and_others_are_nobodys() {
        let home = tempfile::tempdir().unwrap();
        let tokens = Tokens::at(home.path().join("tokens.json"));
        let token = tokens.add("codex", &[]).unwrap().token;
        let endpoint = Endpoint::Ask(ToolFormat::Responses);
        let (may, must) = (Keys::new(Some(tokens.clone()), false), Keys::new(Some(tokens), true));
        let bearer = format!("Bearer {token}");
        let name = |keys: &Keys, pairs: &[(&'static str, &str)]| {
            keys.asker(&headers(pairs), &endpoint)
                .map(|asker| (asker.kind, asker.name().to_owned()))
                .map_err(|fault| fault.status)
        };
        let ours = Ok((AskerKind::Token, "codex".to_owned()));
        for keys in [&may, &must] {
            assert_eq!(name(keys, &[("authorization", &bearer)]), ours);
            assert_eq!(name(keys, &[("authorization", &format!("bearer  {token} "))]), ours);
            assert_eq!(name(keys, &[("authorization", &token)]), ours);
            assert_eq!(name(keys, &[("authorization", &format!("Token {token}"))]), ours);
            assert_eq!(name(keys, &[("authorization", "brt_0000")]), Err(401));
            assert_eq!(name(keys, &[("x-api-key", &token)]), ours);
            assert_eq!(name(keys, &[("authorization", &bearer), ("x-api-key", "sk-ant-stale")]), ours);
            assert_eq!(name(keys, &[("authorization", "Bearer sk-stale"), ("x-api-key", &token)]), ours);
            assert_eq!(name(keys, &[("authorization", &bearer), ("x-api-key", "brt_0000")]), ours);
            assert_eq!(name(keys, &[("authorization", "Bearer brt_0000")]), Err(401));
            assert_eq!(name(keys, &[("x-api-key", &token[..20]), ("authorization", "Bearer sk-1")]), Err(401));
        }
        let agent = ("user-agent", "claude-cli/2.0.1 (external, cli)");
        assert_eq!(
            name(&may, &[("authorization", "Bearer sk-1"), agent]),
            Ok((AskerKind::Program, "claude-cli".into()))
        );
        assert_eq!(name(&may, &[]), Ok((AskerKind::Unknown, "unknown".into())));
        assert_eq!(name(&must, &[("authorization", "Bearer sk-1"), agent]), Err(401));
        assert!(must.asker(&headers(&[]), &Endpoint::Root).is_ok());
    }
}
