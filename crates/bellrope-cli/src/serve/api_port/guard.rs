//! Who may ask: no web page. A page that a browser shows can reach ports of its own machine, and by a name that resolves
//! to the loopback address even reads what it gets. Programs send no `Origin`, and name the host as they reached it.

use bellrope_gateway::inbound::Fault;
use hyper::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, ORIGIN, UPGRADE},
};

/// Refuses what a browser sends for a page of another origin.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Fault> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next().map(|host| host.to_str()), hosts.next()) {
        (Some(Ok(host)), None) if is_loopback(host) => host,
        _ => return Err(Fault::forbidden("the Host header must name the loopback address, as in localhost:8080")),
    };
    if let Some(origin) = text(ORIGIN)
        && origin.strip_prefix("http://") != Some(host)
    {
        return Err(Fault::forbidden("requests of web pages are refused: the Origin header is foreign"));
    }
    if let Some(site) = headers.get("sec-fetch-site").map(|site| site.as_bytes())
        && !matches!(site, b"same-origin" | b"none")
    {
        return Err(Fault::forbidden("requests of web pages are refused: the Sec-Fetch-Site header is foreign"));
    }
    Ok(())
}

/// Refuses a body that says it is something else than JSON: a page can send that without asking first. A page can also say
/// nothing, and then has an `Origin`, so a program that says nothing is taken at its word. And one that is compressed, which
/// would be no JSON.
pub(super) fn check_json(headers: &HeaderMap) -> Result<(), Fault> {
    let is_none = |coding: &[u8]| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity");
    let codings =
        headers.get_all(CONTENT_ENCODING).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    if !codings.map(<[u8]>::trim_ascii).all(is_none) {
        return Err(Fault::unsupported_media_type("the body must not be compressed; send it without Content-Encoding"));
    }
    let Some(media_type) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let media_type = media_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Fault::unsupported_media_type("the body must be JSON; send `Content-Type: application/json`"))
}

/// Whether a `Host` is this machine, however it is written.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || name == "127.0.0.1" || name == "[::1]"
}

/// Whether a request is to become a `WebSocket`, which is of no use without an answer that says so.
pub(super) fn wants_web_socket(headers: &HeaderMap) -> bool {
    let wanted = headers.get_all(UPGRADE).iter().filter_map(|value| value.to_str().ok());
    wanted.flat_map(|names| names.split(',')).any(|name| name.trim().to_ascii_lowercase().starts_with("websocket"))
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn passes(headers: &[(&str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        check(&map).is_ok()
    }

    #[test]
    fn a_web_socket_is_told_from_other_protocols() {
        let wants = |value: &str| {
            let map = HeaderMap::from_iter([(UPGRADE, HeaderValue::from_str(value).unwrap())]);
            wants_web_socket(&map)
        };
        assert!(wants("websocket") && wants("WebSocket") && wants("h2c, websocket/13"));
        assert!(!wants("h2c") && !wants("TLS/1.3") && !wants_web_socket(&HeaderMap::new()));
    }

    #[test]
    fn a_host_that_is_not_this_machine_is_refused() {
        for host in ["localhost", "localhost:8080", "LocalHost.:1", "127.0.0.1:65535", "[::1]:80"] {
            assert!(passes(&[("host", host)]), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.nip.io:80",
            "127.0.0.1:80:80",
            "",
            "0.0.0.0",
            "a@localhost",
        ] {
            assert!(!passes(&[("host", host)]), "{host}");
        }
        assert!(!passes(&[]));
        assert!(!passes(&[("host", "localhost"), ("host", "localhost")]));
    }

    #[test]
    fn a_web_page_is_refused_whatever_it_is_called() {
        let host = ("host", "localhost:8080");
        for origin in [
            "https://evil.example",
            "null",
            "http://localhost:3000",
            "https://localhost:8080",
            "http://localhost:8080/",
        ] {
            assert!(!passes(&[host, ("origin", origin)]), "{origin}");
        }
        assert!(passes(&[host, ("origin", "http://localhost:8080")]));
        assert!(!passes(&[host, ("sec-fetch-site", "cross-site")]));
        assert!(!passes(&[host, ("sec-fetch-site", "same-site")]));
        assert!(passes(&[host, ("sec-fetch-site", "none")]));
    }

    #[test]
    fn only_json_counts_as_json_and_a_body_that_says_nothing() {
        let of = |value: &str| {
            let mut map = HeaderMap::new();
            map.insert(CONTENT_TYPE, HeaderValue::from_str(value).unwrap());
            check_json(&map).is_ok()
        };
        assert!(of("application/json") && of("Application/JSON; charset=utf-8"));
        for (encoding, passes) in
            [("identity", true), ("", true), (" , Identity", true), ("gzip", false), ("identity, zstd", false)]
        {
            let mut map = HeaderMap::new();
            map.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            map.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
            assert_eq!(check_json(&map).is_ok(), passes, "{encoding}");
        }
        assert!(!of("text/plain") && !of("application/jsonp") && !of(""));
        assert!(check_json(&HeaderMap::new()).is_ok());
    }
}
