//! The proxy that one provider is asked through, as the environment names it.
//!
//! It knows addresses and what a proxy says to CONNECT; nothing of what is asked through it.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::ProviderError;
use crate::secret::Secret;
use crate::text::base64;

/// How long a proxy may take to say again why it refused.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// What is read of a proxy's head, in bytes.
const MAX_HEAD: usize = 4 * 1024;

/// A proxy.
pub(super) struct Proxy {
    /// Without user name and password.
    pub(super) url: Url,
    /// User name and password, if it wants them.
    pub(super) credentials: Option<(String, Secret)>,
    /// The variable that names it.
    pub(super) variable: &'static str,
}

impl Proxy {
    /// The proxy that `vars` name for this address, if it is not one of those that are asked directly.
    ///
    /// # Errors
    /// What the variable holds is no proxy's address. It is not quoted: a password may stand in it.
    pub(super) fn of(base: &Url, vars: &impl Fn(&str) -> Option<String>) -> Result<Option<Self>, ProviderError> {
        let set = |name: &'static str| {
            vars(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()).map(|value| (name, value))
        };
        // A CGI program gets `HTTP_PROXY` from whoever sends it a header `Proxy`.
        let is_cgi = vars("REQUEST_METHOD").is_some();
        let names: &[&'static str] = match base.scheme() {
            "https" => &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"],
            _ if is_cgi => &["http_proxy", "ALL_PROXY", "all_proxy"],
            _ => &["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"],
        };
        let Some((variable, written)) = names.iter().find_map(|name| set(name)) else { return Ok(None) };
        let exempt = |name| set(name).is_some_and(|(_, list)| is_exempt(&list, base));
        if exempt("NO_PROXY") || exempt("no_proxy") {
            return Ok(None);
        }
        let wrong = |what: &str| ProviderError::NotConfigured {
            missing: format!("{variable} {what}").into(),
            fix: format!(
                "set {variable} to one like http://proxy.example.com:3128, or unset it, or add {} to NO_PROXY",
                base.host_str().unwrap_or_default()
            )
            .into(),
        };
        let whole = if written.contains("://") { written } else { format!("http://{written}") };
        let mut url = Url::parse(&whole).map_err(|error| wrong(&format!("is no proxy's address ({error})")))?;
        match url.scheme() {
            "http" | "https" => {}
            "socks4" | "socks4a" | "socks5" | "socks5h" => {
                return Err(wrong("names a SOCKS proxy, and HTTP ones alone are spoken to"));
            }
            _ => return Err(wrong("is no proxy's address (it must start with http:// or https://)")),
        }
        if !url.has_host() || url.port() == Some(0) {
            return Err(wrong("is no proxy's address (host or port is missing)"));
        }
        let credentials = (!url.username().is_empty() || url.password().is_some())
            .then(|| (decoded(url.username()), Secret::new(decoded(url.password().unwrap_or_default()))));
        // An address with a host can be without these.
        let _ = (url.set_username(""), url.set_password(None));
        url.set_path("");
        url.set_query(None);
        url.set_fragment(None);
        Ok(Some(Self { url, credentials, variable }))
    }

    /// What the HTTP client is told.
    pub(super) fn for_client(&self) -> reqwest::Result<reqwest::Proxy> {
        let proxy = reqwest::Proxy::all(self.url.clone())?;
        Ok(match &self.credentials {
            Some((user, password)) => proxy.basic_auth(user, password.expose()),
            None => proxy,
        })
    }

    /// Where it is, as errors name it.
    pub(super) fn shown(&self) -> String {
        host_and_port(&self.url)
    }

    /// The status with which it refuses a way to `target`: asked once more, as the HTTP client keeps it to itself. `None`
    /// if it cannot be had.
    pub(super) async fn refusal(&self, target: &str) -> Option<u16> {
        if self.url.scheme() != "http" {
            return None;
        }
        let login = self.credentials.as_ref().map(|(user, password)| {
            let login = base64(format!("{user}:{}", password.expose()).as_bytes());
            format!("Proxy-Authorization: Basic {login}\r\n")
        });
        let ask = async {
            let host = self.url.host_str()?.trim_start_matches('[').trim_end_matches(']');
            let mut stream = TcpStream::connect((host, self.url.port_or_known_default()?)).await.ok()?;
            let login = login.unwrap_or_default();
            let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n");
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut head = Vec::new();
            while head.len() < MAX_HEAD && !head.contains(&b'\n') {
                let mut piece = [0; 512];
                match stream.read(&mut piece).await {
                    Ok(1..) if head.is_empty() && !piece.starts_with(b"HTTP") => return None,
                    Ok(taken @ 1..) => head.extend_from_slice(&piece[..taken]),
                    _ => break,
                }
            }
            let head = String::from_utf8_lossy(&head);
            head.split(' ').nth(1)?.trim().parse().ok().filter(|status| (300..600).contains(status))
        };
        timeout(ASK_TIMEOUT, ask).await.ok().flatten()
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("url", &self.url.as_str()).field("variable", &self.variable).finish()
    }
}

/// Host and port of an address, the usual port included.
pub(super) fn host_and_port(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default())
}

/// What stands for itself or as `%40` in a user name or password.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether the list of `NO_PROXY` names this address: `*`, a host with all below it, an address or a network, each with
/// or without a port.
fn is_exempt(list: &str, base: &Url) -> bool {
    let host = base.host_str().unwrap_or_default().trim_end_matches('.');
    let address = bare(host).parse::<IpAddr>().ok();
    let port = base.port_or_known_default();
    list.split(|c: char| c == ',' || c == ';' || c.is_whitespace()).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.split_once("://").map_or(entry, |(_, rest)| rest).trim_end_matches('.');
        if let Some((network, bits)) = entry.split_once('/').filter(|(_, bits)| !bits.is_empty()) {
            let network = (bare(network).parse().ok(), bits.parse().ok());
            return matches!((address, network), (Some(address), (Some(network), Some(bits))) if is_in(address, network, bits));
        }
        let entry = entry.trim_end_matches('/');
        // An address of the sixth version has colons of its own.
        let (name, only) = match entry.rsplit_once(':') {
            Some((name, only)) if entry.parse::<IpAddr>().is_err() => match only.parse::<u16>() {
                Ok(only) => (name, Some(only)),
                Err(_) => return false,
            },
            _ => (entry, None),
        };
        if only.is_some() && only != port {
            return false;
        }
        let name = name.trim_end_matches('.');
        match (address, bare(name).parse::<IpAddr>()) {
            _ if name == "*" => true,
            (Some(address), Ok(named)) => address.to_canonical() == named.to_canonical(),
            (Some(_), Err(_)) | (None, Ok(_)) => false,
            (None, Err(_)) => is_below(host, name.trim_start_matches('*').trim_start_matches('.')),
        }
    })
}

/// Whether it is this host, or one below it.
fn is_below(host: &str, name: &str) -> bool {
    let Some(before) = host.len().checked_sub(name.len()) else { return false };
    let ends = host.get(before..).is_some_and(|end| end.eq_ignore_ascii_case(name));
    !name.is_empty() && ends && (before == 0 || host.as_bytes()[before - 1] == b'.')
}

fn is_in(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (address.to_canonical(), network.to_canonical()) {
        (IpAddr::V4(address), IpAddr::V4(network)) if bits <= 32 => {
            let shift = |ip: std::net::Ipv4Addr| ip.to_bits().checked_shr(32 - bits).unwrap_or(0);
            shift(address) == shift(network)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) if bits <= 128 => {
            let shift = |ip: std::net::Ipv6Addr| ip.to_bits().checked_shr(128 - bits).unwrap_or(0);
            shift(address) == shift(network)
        }
        _ => false,
    }
}

fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(base: &str, vars: &[(&str, &str)]) -> Result<Option<Proxy>, ProviderError> {
        let var = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Proxy::of(&Url::parse(base).unwrap(), &var)
    }

    #[test]
    fn the_list_of_addresses_without_a_proxy_is_obeyed_in_all_its_forms() {
        for (list, base, exempt) in [
            ("*", "https://api.openai.com/v1", true),
            (" * ", "https://api.openai.com/v1", true),
            ("other,*", "http://10.0.0.1/v1", true),
            ("api.openai.com", "https://api.openai.com/v1", true),
            ("API.OpenAI.com.", "https://api.openai.com/v1", true),
            ("openai.com", "https://api.openai.com/v1", true),
            (".openai.com", "https://api.openai.com/v1", true),
            ("*.openai.com", "https://api.openai.com/v1", true),
            (".openai.com", "https://openai.com/v1", true),
            ("a.com b.com\tapi.openai.com", "https://api.openai.com/v1", true),
            ("https://api.openai.com/", "https://api.openai.com/v1", true),
            ("ai.com", "https://openai.com/v1", false),
            ("api.openai.com.evil", "https://api.openai.com/v1", false),
            ("", "https://api.openai.com/v1", false),
            (",.,*x", "https://api.openai.com/v1", false),
            ("host:8080", "http://host:8080/v1", true),
            ("host:443", "https://host/v1", true),
            ("host:8080", "http://host:8081/v1", false),
            ("host:", "http://host/v1", false),
            (".example.com:8443", "https://llm.example.com:8443/v1", true),
            ("10.0.0.7", "http://10.0.0.7:1/v1", true),
            ("10.0.0.7:2", "http://10.0.0.7:1/v1", false),
            ("0.7", "http://10.0.0.7:1/v1", false),
            ("10.0.0.0/8", "http://10.200.3.4/v1", true),
            ("10.0.0.0/8", "http://11.0.0.1/v1", false),
            ("10.0.0.0/33", "http://10.0.0.1/v1", false),
            ("0.0.0.0/0", "http://10.0.0.1/v1", true),
            ("192.168.1.128/25", "http://192.168.1.5/v1", false),
            ("10.0.0.0/8", "http://host/v1", false),
            ("fd00::/8", "http://[fd12::1]:80/v1", true),
            ("fd00::1", "http://[fd00::1]:80/v1", true),
            ("[fd00::1]:80", "http://[fd00::1]/v1", true),
            ("[fd00::1]:81", "http://[fd00::1]/v1", false),
            ("::ffff:10.0.0.1", "http://10.0.0.1/v1", true),
        ] {
            let proxy = [("HTTP_PROXY", "http://p:1"), ("HTTPS_PROXY", "http://p:1")];
            for name in ["NO_PROXY", "no_proxy"] {
                let found = of(base, &[proxy[0], proxy[1], (name, list)]).unwrap();
                assert_eq!(found.is_none(), exempt, "{name}={list:?} for {base}");
            }
        }
    }

    #[test]
    fn each_scheme_has_its_variable_and_the_password_is_kept_apart() {
        let proxy = of("https://host/v1", &[("https_proxy", " http://user:p%40ss@proxy:3128/x ")]).unwrap().unwrap();
        assert_eq!((proxy.shown().as_str(), proxy.variable), ("proxy:3128", "https_proxy"));
        assert!(matches!(&proxy.credentials, Some((user, word)) if user == "user" && word.expose() == "p@ss"));
        assert!(!format!("{proxy:?}").contains("ss"));
        assert!(of("http://host/v1", &[("HTTPS_PROXY", "p:1")]).unwrap().is_none());
        assert_eq!(of("http://host/v1", &[("ALL_PROXY", "p:1")]).unwrap().unwrap().shown(), "p:1");
        assert_eq!(of("http://host/v1", &[("HTTP_PROXY", "[::1]")]).unwrap().unwrap().shown(), "[::1]:80");
        assert!(of("http://host/v1", &[("HTTP_PROXY", "p:1"), ("REQUEST_METHOD", "GET")]).unwrap().is_none());
        assert!(of("https://host/v1", &[("HTTPS_PROXY", "  ")]).unwrap().is_none());
    }

    #[test]
    fn a_login_is_written_as_everywhere() {
        for (plain, written) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("Aladdin:open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ] {
            assert_eq!(base64(plain.as_bytes()), written);
        }
    }

    #[test]
    fn a_wrong_address_is_named_by_its_variable_and_not_quoted() {
        for wrong in [
            "http://user:pass-word@",
            "http://user:pass-word@host:port",
            "ftp://user:pass-word@host",
            "socks5://user:pass-word@host:1080",
            "http://user:pass-word@host:0",
            "user:pass-word@ho st",
            "://pass-word",
        ] {
            let error = of("https://api.openai.com/v1", &[("HTTPS_PROXY", wrong)]).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with("HTTPS_PROXY ") && text.contains("set HTTPS_PROXY to"), "{text}");
            assert!(!text.contains("pass-word") && !error.retryable(), "{text}");
            assert!(of("https://host/v1", &[("HTTPS_PROXY", wrong), ("NO_PROXY", "host")]).unwrap().is_none());
        }
    }
}
