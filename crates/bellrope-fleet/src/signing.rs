//! Who asks, said so that it can be believed.
//!
//! Whoever may publish on our subjects could say any name. So an importing server signs: once, with the answer to an
//! instance's question for its clock, who its link belongs to, and then each call that it sends to that instance. The key is
//! the nkey by which NATS lets it in, or one that is kept for this. What the instance trusts is a public key, or the account
//! that has signed its user's claims.
//!
//! A signature covers the subject, which names the instance, and all of the message, in which are the numbers of link and
//! call: it says nothing anywhere else, nor a second time.

use std::{
    collections::HashSet,
    fmt,
    hash::{BuildHasher as _, RandomState},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use async_nats::HeaderMap;
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde::Deserialize;

use crate::{
    link::{FleetError, read},
    names::is_name,
    settings::FleetSettings,
};

const SERVER: &str = "Bellrope-Server";
const TOKEN: &str = "Bellrope-Token";
const CALLER: &str = "Bellrope-Caller";
const KEY: &str = "Bellrope-Key";
const CLAIMS: &str = "Bellrope-Claims";
const SIGNATURE: &str = "Bellrope-Signature";
/// Longest claims that are looked at.
const MAX_CLAIMS: usize = 4096;

/// Who asks, as the importing server says it with a call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Asks {
    /// The name of the token that the caller has, or nothing.
    pub(crate) token: String,
    /// Which of the server's callers it is: a number that says nothing else.
    pub(crate) caller: u64,
}

/// What a call says of who asks, not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    asks: Asks,
    signature: Vec<u8>,
}

impl Signed {
    /// What stands in the headers of a call. `None`: nothing that could be believed.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let said = |name: &str| headers.get(name).map_or("", |value| value.as_str());
        let token = Some(said(TOKEN)).filter(|token| is_name(token) || token.is_empty())?;
        let caller = u64::from_str_radix(said(CALLER), 16).ok()?;
        let signature = signature_in(headers)?;
        Some(Self { asks: Asks { token: token.to_owned(), caller }, signature })
    }
}

/// The key of an importing server.
pub(crate) struct Signer {
    pair: KeyPair,
    public: String,
    /// Of a user whose account has signed them.
    claims: Option<String>,
    name: String,
    hasher: RandomState,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("public", &self.public).finish_non_exhaustive()
    }
}

impl Signer {
    /// The key of the settings, if there is one.
    pub(crate) fn of(settings: &FleetSettings) -> Result<Option<Self>, FleetError> {
        let (key, path, claims, seed) = if let Some(path) = &settings.signing_seed_file {
            ("fleet.signing_seed_file", path, None, read("fleet.signing_seed_file", path)?)
        } else if let Some(path) = &settings.nkey_seed_file {
            ("fleet.nkey_seed_file", path, None, read("fleet.nkey_seed_file", path)?)
        } else if let Some(path) = &settings.credentials {
            let text = read("fleet.credentials", path)?;
            let part = |title: &str| between(&text, title).map(str::to_owned);
            match (part("NATS USER JWT"), part("USER NKEY SEED")) {
                (Some(claims), Some(seed)) => ("fleet.credentials", path, Some(claims), seed),
                _ => return Err(unusable("fleet.credentials", path, "it has no claims, or no seed")),
            }
        } else {
            return Ok(None);
        };
        let pair = KeyPair::from_seed(seed.trim());
        let pair = pair.map_err(|_| unusable(key, path, "it holds no seed of an nkey"))?;
        let (public, name) = (pair.public_key(), settings.name.clone());
        Ok(Some(Self { pair, public, claims, name, hasher: RandomState::new() }))
    }

    pub(crate) fn public(&self) -> &str {
        &self.public
    }

    /// The number by which a caller of this server is known elsewhere.
    pub(crate) fn number(&self, caller: bellrope::breaker::Caller) -> u64 {
        self.hasher.hash_one(caller)
    }

    /// The headers of a call that goes to one instance.
    pub(crate) fn call(&self, subject: &str, asks: &Asks, payload: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !self.name.is_empty() {
            headers.insert(SERVER, self.name.as_str());
        }
        if !asks.token.is_empty() {
            headers.insert(TOKEN, asks.token.as_str());
        }
        headers.insert(CALLER, format!("{:016x}", asks.caller).as_str());
        self.sign(headers, &call(subject, &self.name, asks, payload))
    }

    /// The headers of an answer to the question what this side's clock says.
    pub(crate) fn hello(&self, subject: &str, payload: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(KEY, self.public.as_str());
        if !self.name.is_empty() {
            headers.insert(SERVER, self.name.as_str());
        }
        if let Some(claims) = &self.claims {
            headers.insert(CLAIMS, claims.as_str());
        }
        self.sign(headers, &hello(subject, &self.name, payload))
    }

    fn sign(&self, mut headers: HeaderMap, statement: &[u8]) -> HeaderMap {
        // A pair from a seed can sign.
        let signature = self.pair.sign(statement).unwrap_or_default();
        headers.insert(SIGNATURE, BASE64URL_NOPAD.encode(&signature).as_str());
        headers
    }
}

/// Whose word an instance takes.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    users: HashSet<String>,
    accounts: HashSet<String>,
    hasher: RandomState,
}

/// An importing server whose link has said who it is.
pub(crate) struct Importing {
    pair: KeyPair,
    name: String,
    /// Of its key.
    pub(crate) number: u64,
}

impl fmt::Debug for Importing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Importing").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Trust {
    /// The keys of the settings; without any this side's own, or the account of its claims.
    pub(crate) fn of(settings: &FleetSettings, signer: Option<&Signer>) -> Self {
        let mut trust = Self::default();
        for key in &settings.trust {
            trust.add(key);
        }
        if let (true, Some(signer)) = (settings.trust.is_empty(), signer) {
            match signer.claims.as_deref().and_then(Claims::read) {
                Some(claims) => trust.add(&claims.iss),
                None => trust.add(&signer.public),
            }
        }
        trust
    }

    fn add(&mut self, key: &str) {
        let keys = if key.starts_with('A') { &mut self.accounts } else { &mut self.users };
        keys.insert(key.to_owned());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.users.is_empty() && self.accounts.is_empty()
    }

    /// Who sends an answer to the question for its clock, if that is somebody who is trusted.
    pub(crate) fn hello(&self, subject: &str, headers: &HeaderMap, payload: &[u8]) -> Option<Importing> {
        let said = |name: &str| headers.get(name).map_or("", |value| value.as_str());
        let (key, name) = (said(KEY), said(SERVER));
        let trusted = self.users.contains(key) || self.has_signed(said(CLAIMS), key);
        if self.is_empty() || !trusted || !(name.is_empty() || is_name(name)) {
            return None;
        }
        let pair = KeyPair::from_public_key(key).ok()?;
        pair.verify(&hello(subject, name, payload), &signature_in(headers)?).ok()?;
        Some(Importing { pair, name: name.to_owned(), number: self.hasher.hash_one(key) })
    }

    /// Whether an account that is trusted has signed that this key is a user's.
    fn has_signed(&self, claims: &str, key: &str) -> bool {
        let Some(read) = (claims.len() <= MAX_CLAIMS).then(|| Claims::read(claims)).flatten() else { return false };
        if read.sub != key || !self.accounts.contains(&read.iss) || !read.is_a_users(SystemTime::now()) {
            return false;
        }
        let Some((signed, signature)) = claims.rsplit_once('.') else { return false };
        let account = KeyPair::from_public_key(&read.iss).ok();
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).ok();
        account.zip(signature).is_some_and(|(account, signature)| account.verify(signed.as_bytes(), &signature).is_ok())
    }
}

impl Importing {
    /// Who asks for a call that came on this subject, if the server has signed it.
    pub(crate) fn asks<'a>(&self, subject: &str, signed: &'a Signed, payload: &[u8]) -> Option<&'a Asks> {
        let statement = call(subject, &self.name, &signed.asks, payload);
        self.pair.verify(&statement, &signed.signature).ok().map(|()| &signed.asks)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// What NATS's user claims say, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Claims {
    /// The account, or a key of it.
    iss: String,
    /// The user.
    sub: String,
    /// Until when they hold, in seconds since 1970; 0 for ever.
    #[serde(default)]
    exp: u64,
    nats: Said,
}

/// What NATS says of claims.
#[derive(Debug, Deserialize)]
struct Said {
    /// Accounts sign more than users.
    #[serde(rename = "type")]
    kind: String,
}

impl Claims {
    /// Whether they are a user's, and hold.
    fn is_a_users(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs());
        self.nats.kind == "user" && self.sub.starts_with('U') && (self.exp == 0 || self.exp > now)
    }

    fn read(token: &str) -> Option<Self> {
        let payload = token.split('.').nth(1)?;
        serde_json::from_slice(&BASE64URL_NOPAD.decode(payload.as_bytes()).ok()?).ok()
    }
}

/// What is signed of a call. No name has a line break.
fn call(subject: &str, server: &str, asks: &Asks, payload: &[u8]) -> Vec<u8> {
    let head = format!("bellrope call 1\n{subject}\n{server}\n{}\n{:016x}\n", asks.token, asks.caller);
    [head.as_bytes(), payload].concat()
}

/// What is signed of an answer to the question for a clock.
fn hello(subject: &str, server: &str, payload: &[u8]) -> Vec<u8> {
    [format!("bellrope hello 1\n{subject}\n{server}\n").as_bytes(), payload].concat()
}

fn signature_in(headers: &HeaderMap) -> Option<Vec<u8>> {
    let said = headers.get(SIGNATURE)?.as_str();
    // 64 bytes.
    (said.len() == 86).then(|| BASE64URL_NOPAD.decode(said.as_bytes()).ok()).flatten()
}

/// What stands in a file of credentials under a title.
fn between<'a>(text: &'a str, title: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {title}-----"))?;
    // A line of dashes ends it; claims may have some within.
    let (inside, _) = rest.split_once("\n-----")?;
    Some(inside.trim())
}

fn unusable(key: &'static str, path: &Path, reason: &'static str) -> FleetError {
    FleetError::File { key, path: path.to_owned(), source: std::io::Error::other(reason) }
}

/// What the settings make of who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WhoAsks {
    /// The public key that this server signs with, if it has one.
    pub signs_as: Option<String>,
    /// How many keys of servers and accounts are trusted here.
    pub trusted: usize,
}

impl WhoAsks {
    /// Reads the keys that the settings name.
    ///
    /// # Errors
    /// [`FleetError::File`], [`FleetError::Setting`].
    pub fn of(settings: &FleetSettings) -> Result<Self, FleetError> {
        settings.check()?;
        let signer = Signer::of(settings)?;
        let trust = Trust::of(settings, signer.as_ref());
        Ok(Self {
            signs_as: signer.map(|signer| signer.public().to_owned()),
            trusted: trust.users.len() + trust.accounts.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "bellrope.at.0000000000000007.ai.chat";

    fn signer(pair: KeyPair, claims: Option<String>) -> Signer {
        let public = pair.public_key();
        Signer { pair, public, claims, name: "desk".to_owned(), hasher: RandomState::new() }
    }

    fn trusting(keys: &[&str]) -> Trust {
        let mut trust = Trust::default();
        keys.iter().for_each(|key| trust.add(key));
        trust
    }

    #[test]
    fn a_call_is_believed_on_its_subject_and_with_its_bytes_alone() {
        let signer = signer(KeyPair::new_user(), None);
        let trust = trusting(&[signer.public()]);
        let importing = trust.hello("up", &signer.hello("up", b"clock"), b"clock").unwrap();
        assert_eq!(importing.name(), "desk");
        let asks = Asks { token: "tool".to_owned(), caller: 9 };
        let headers = signer.call(AT, &asks, b"call");
        let signed = Signed::of(&headers).unwrap();
        assert_eq!(importing.asks(AT, &signed, b"call"), Some(&asks));
        assert_eq!(importing.asks(AT, &signed, b"cull"), None);
        assert_eq!(importing.asks("bellrope.call.ai.chat", &signed, b"call"), None);
        for (key, value) in [(TOKEN, "other"), (CALLER, "000000000000000a"), (TOKEN, "")] {
            let mut forged = headers.clone();
            forged.insert(key, value);
            let read = Signed::of(&forged);
            assert!(read.is_none_or(|read| importing.asks(AT, &read, b"call").is_none()), "{key} {value}");
        }
        for broken in ["", "x", &"A".repeat(86), &"!".repeat(86), &"A".repeat(10_000)] {
            let mut forged = headers.clone();
            forged.insert(SIGNATURE, broken);
            let read = Signed::of(&forged);
            assert!(read.is_none_or(|read| importing.asks(AT, &read, b"call").is_none()), "{broken}");
        }
    }

    #[test]
    fn a_link_is_believed_to_be_of_a_trusted_key_alone_and_for_one_answer() {
        let [own, other] = [(); 2].map(|()| signer(KeyPair::new_user(), None));
        let trust = trusting(&[own.public()]);
        assert!(trust.hello("up", &own.hello("up", b"1"), b"1").is_some());
        assert!(trust.hello("up", &own.hello("up", b"1"), b"2").is_none(), "another answer");
        assert!(trust.hello("down", &own.hello("up", b"1"), b"1").is_none(), "another instance");
        assert!(trust.hello("up", &other.hello("up", b"1"), b"1").is_none(), "another key");
        let mut forged = other.hello("up", b"1");
        forged.insert(KEY, own.public());
        assert!(trust.hello("up", &forged, b"1").is_none(), "another's key");
        assert!(Trust::default().hello("up", &own.hello("up", b"1"), b"1").is_none(), "nobody is trusted");
    }

    #[test]
    fn the_users_of_a_trusted_account_are_believed() {
        let [account, stranger] = [(); 2].map(|()| KeyPair::new_account());
        let saying = |account: &KeyPair, user: &KeyPair, rest: &str| {
            let part = |json: String| BASE64URL_NOPAD.encode(json.as_bytes());
            let (iss, sub) = (account.public_key(), user.public_key());
            let payload = part(format!(r#"{{"iss":"{iss}","sub":"{sub}",{rest}}}"#));
            let signed = format!("{}.{payload}", part(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#.to_owned()));
            format!("{signed}.{}", BASE64URL_NOPAD.encode(&account.sign(signed.as_bytes()).unwrap()))
        };
        let claims = |account: &KeyPair, user: &KeyPair| saying(account, user, r#""nats":{"type":"user"}"#);
        let trust = trusting(&[&account.public_key()]);
        let believed = |signer: &Signer| trust.hello("up", &signer.hello("up", b"1"), b"1").is_some();
        let user = KeyPair::new_user();
        let own = claims(&account, &user);
        assert!(!believed(&signer(KeyPair::new_user(), Some(own.clone()))), "another user's claims");
        assert!(!believed(&signer(KeyPair::new_user(), None)));
        let foreign = KeyPair::new_user();
        assert!(!believed(&signer(
            KeyPair::from_seed(&foreign.seed().unwrap()).unwrap(),
            Some(claims(&stranger, &foreign))
        )));
        for rest in [r#""nats":{"type":"activation"}"#, r#""nats":{"type":"user"},"exp":1700000000"#] {
            let same = KeyPair::from_seed(&user.seed().unwrap()).unwrap();
            assert!(!believed(&signer(same, Some(saying(&account, &user, rest)))), "{rest}");
        }
        let cut = own[..own.len() - 4].to_owned();
        assert!(!believed(&signer(KeyPair::from_seed(&user.seed().unwrap()).unwrap(), Some(cut))));
        assert!(believed(&signer(user, Some(own))));
    }

    #[test]
    fn a_file_of_credentials_is_read_for_its_two_parts() {
        let text = "-----BEGIN NATS USER JWT-----\na.b.c\n------END NATS USER JWT------\n\nNotes\n\
                    -----BEGIN USER NKEY SEED-----\nSUA\n------END USER NKEY SEED------\n";
        assert_eq!(between(text, "NATS USER JWT"), Some("a.b.c"));
        assert_eq!(between(text, "USER NKEY SEED"), Some("SUA"));
        assert_eq!(between("", "USER NKEY SEED"), None);
    }
}
