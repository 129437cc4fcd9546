//! The HTTP client: its TLS roots and its settings.

use std::error::Error;
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

/// Whether the host is this machine.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Builds the client of one endpoint. Reads the machine's root certificates, away from the runtime's threads.
pub(super) async fn build(base: Url, connect_timeout: Duration) -> Result<Client, ProviderError> {
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
    client.build().map_err(|error| root_cause(&error)).map_err(|reason| ProviderError::Setup { reason })
}

fn setup(error: &dyn Error) -> ProviderError {
    ProviderError::Setup { reason: Excerpt::new(&error.to_string()) }
}

/// The last error of the chain, which alone says what happened. None of the others, as they may hold the address.
pub(super) fn root_cause(error: &reqwest::Error) -> Excerpt {
    let Some(mut cause) = error.source() else { return "the HTTP client gives no reason".into() };
    while let Some(source) = cause.source() {
        cause = source;
    }
    Excerpt::new(&cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

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
