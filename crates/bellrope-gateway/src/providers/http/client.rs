//! The HTTP client: its address, its TLS roots and its settings.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use rustls::{ClientConfig, RootCertStore};

use crate::error::{Excerpt, ProviderError};

/// Idle connections kept to the provider.
const MAX_IDLE_CONNECTIONS: usize = 16;

const USER_AGENT: &str = concat!("bellrope/", env!("CARGO_PKG_VERSION"));

/// The base address of an API, as people write it: with or without a slash at the end, without the path (`/v1` is added
/// then), or with the path of a request (`suffix`, taken off). `Err` is what should be right.
pub(crate) fn parse_base(text: &str, suffix: &str) -> Result<Url, &'static str> {
    let mut url = Url::parse(text.trim()).map_err(|_| "is not an address; set one like https://host/v1")?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("must start with http:// or https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user name or a password");
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix(suffix).unwrap_or(path).trim_end_matches('/');
    let path = if path.is_empty() { "/v1".to_owned() } else { path.to_owned() };
    url.set_path(&path);
    Ok(url)
}

/// Whether the host is this machine.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Builds the client of one endpoint. Reads the machine's root certificates, away from the runtime's threads.
pub(crate) async fn build(base: Url, connect_timeout: Duration) -> Result<Client, ProviderError> {
    let built = tokio::task::spawn_blocking(move || build_blocking(&base, connect_timeout)).await;
    built.unwrap_or_else(|error| Err(setup(&error)))
}

fn build_blocking(base: &Url, connect_timeout: Duration) -> Result<Client, ProviderError> {
    let loopback = is_loopback(base);
    let mut roots = RootCertStore::empty();
    if base.scheme() == "https" || !loopback {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() && base.scheme() == "https" {
        return Err(ProviderError::Setup { reason: "this machine has no root certificates; install them".into() });
    }
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| setup(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let mut client = Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(USER_AGENT)
        .default_headers(headers)
        .connect_timeout(connect_timeout)
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
        // A redirect would carry prompt and key to a place nobody configured.
        .redirect(Policy::none());
    if loopback {
        client = client.no_proxy();
    }
    client.build().map_err(|error| super::root_cause(&error)).map_err(|reason| ProviderError::Setup { reason })
}

fn setup(error: &dyn std::error::Error) -> ProviderError {
    ProviderError::Setup { reason: Excerpt::new(&error.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_address_is_taken_as_people_write_it() {
        for (written, meant) in [
            ("https://api.openai.com", "https://api.openai.com/v1"),
            ("https://api.openai.com/", "https://api.openai.com/v1"),
            ("https://api.openai.com/v1", "https://api.openai.com/v1"),
            (" https://api.openai.com/v1/// ", "https://api.openai.com/v1"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1"),
            ("https://openrouter.ai/api/v1/", "https://openrouter.ai/api/v1"),
            ("http://[::1]:1/v1/chat/completions?x#y", "http://[::1]:1/v1"),
            ("https://host/v1beta/openai/", "https://host/v1beta/openai"),
        ] {
            assert_eq!(parse_base(written, "/chat/completions").unwrap().as_str(), meant, "{written}");
        }
        for wrong in ["", "api.openai.com", "ftp://host/v1", "https://", "https://user:word@host/v1", "file:///v1"] {
            assert!(parse_base(wrong, "/chat/completions").is_err(), "{wrong}");
        }
    }

    #[test]
    fn loopback_is_told_from_other_hosts() {
        for (address, loopback) in [
            ("http://localhost/", true),
            ("http://127.0.0.9:1/", true),
            ("http://[::1]/", true),
            ("http://10.0.0.1/", false),
            ("https://localhost.example/", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(address).unwrap()), loopback, "{address}");
        }
    }

    #[tokio::test]
    async fn a_loopback_client_needs_no_root_certificates() {
        let base = Url::parse("http://127.0.0.1:1/v1").unwrap();
        assert!(build(base, Duration::from_secs(1)).await.is_ok());
    }
}
