//! The HTTP client: its TLS roots and its settings.

use std::error::Error;
use std::net::{IpAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use rustix::system::uname;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::{Handle, Id};
use tokio::sync::OnceCell;

use super::proxy::Proxy;
use super::trust;
use crate::error::{Excerpt, ProviderError};

const USER_AGENT: &str = concat!("bellrope/", env!("CARGO_PKG_VERSION"));

/// The most runtimes that have connections of their own to one provider: the threads of the API port, and the runtime of
/// handlers. For one more, the connections of the one that came first are closed.
const MAX_RUNTIMES: usize = 16;

/// The way to one provider, from one runtime.
#[derive(Debug)]
pub(super) struct RuntimeClient {
    pub(super) client: Client,
    /// What it goes through.
    pub(super) proxy: Option<Arc<Proxy>>,
}

/// The ways to one provider. Each runtime has connections of its own: one that was opened on another runtime would be driven by that
/// one's thread, which each request and each piece of its answer would have to wake.
#[derive(Debug, Default)]
pub(super) struct RuntimeClients {
    way: OnceCell<Way>,
    by_runtime: Mutex<Vec<(Id, Arc<RuntimeClient>)>>,
}

/// What is the same for all runtimes: it reads the machine's root certificates once.
#[derive(Debug)]
struct Way {
    tls: ClientConfig,
    proxy: Option<Arc<Proxy>>,
}

impl RuntimeClients {
    /// The one of the runtime that this is asked on. `most_idle`: how many idle connections it keeps.
    pub(super) async fn get(
        &self,
        base: &Url,
        connect_timeout: Duration,
        most_idle: usize,
    ) -> Result<Arc<RuntimeClient>, ProviderError> {
        let own = Handle::current().id();
        let find = || {
            let by_runtime = self.by_runtime.lock().unwrap_or_else(PoisonError::into_inner);
            by_runtime.iter().find(|(id, _)| *id == own).map(|(_, link)| Arc::clone(link))
        };
        if let Some(link) = find() {
            return Ok(link);
        }
        let way = self.way.get_or_try_init(|| Way::to(base.clone())).await?;
        let link = Arc::new(way.link(connect_timeout, most_idle)?);
        let mut by_runtime = self.by_runtime.lock().unwrap_or_else(PoisonError::into_inner);
        // Another request may have been quicker.
        if let Some((_, link)) = by_runtime.iter().find(|(id, _)| *id == own) {
            return Ok(Arc::clone(link));
        }
        if by_runtime.len() == MAX_RUNTIMES {
            by_runtime.remove(0);
        }
        by_runtime.push((own, Arc::clone(&link)));
        Ok(link)
    }
}

/// Whether the host is this machine, under whichever of its names and addresses.
pub(super) fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    is_loopback(url)
        || match address {
            // A socket can be bound to one's own addresses alone.
            Ok(address) => UdpSocket::bind((address, 0)).is_ok(),
            Err(_) => uname().nodename().to_bytes().eq_ignore_ascii_case(host.as_bytes()),
        }
}

/// Whether the host is the loopback address.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
}

impl Way {
    /// Reads the machine's root certificates, away from the runtime's threads.
    async fn to(base: Url) -> Result<Self, ProviderError> {
        let found = tokio::task::spawn_blocking(move || Self::find(&base)).await;
        found.unwrap_or_else(|error| Err(setup(&error)))
    }

    fn find(base: &Url) -> Result<Self, ProviderError> {
        let loopback = is_loopback(base);
        let proxy = if loopback { None } else { Proxy::of(base, &|name: &str| std::env::var(name).ok())? };
        let needs_tls = base.scheme() == "https" || proxy.as_ref().is_some_and(|proxy| proxy.url.scheme() == "https");
        let roots = if needs_tls { trust::roots() } else { RootCertStore::empty() };
        if roots.is_empty() && needs_tls {
            return Err(trust::nobody());
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| setup(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls, proxy: proxy.map(Arc::new) })
    }

    /// A client that goes this way.
    fn link(&self, connect_timeout: Duration, most_idle: usize) -> Result<RuntimeClient, ProviderError> {
        let Self { tls, proxy } = self;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut client = Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .user_agent(USER_AGENT)
            .default_headers(headers)
            .connect_timeout(connect_timeout)
            .pool_max_idle_per_host(most_idle)
            // A redirect would carry prompt and key to a place nobody configured.
            .redirect(Policy::none())
            // The HTTP client's own reading of the environment knows less of NO_PROXY.
            .no_proxy();
        if let Some(proxy) = proxy {
            client = client.proxy(proxy.for_client().map_err(|error| cannot_build(&error))?);
        }
        let client = client.build().map_err(|error| cannot_build(&error))?;
        Ok(RuntimeClient { client, proxy: proxy.clone() })
    }
}

fn cannot_build(error: &reqwest::Error) -> ProviderError {
    ProviderError::Setup { reason: root_cause(error) }
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

    #[test]
    fn this_machine_has_addresses_and_names_of_its_own() {
        let system = uname();
        let name = system.nodename().to_str().unwrap();
        for (address, own) in [
            ("http://localhost:1/", true),
            ("http://0.0.0.0:1/", true),
            ("http://[::1]/", true),
            ("http://192.0.2.1/", false),
            ("http://host.invalid/", false),
            (format!("http://{}:1/", name.to_uppercase()).as_str(), true),
        ] {
            assert_eq!(is_this_machine(&Url::parse(address).unwrap()), own, "{address}");
        }
    }

    #[tokio::test]
    async fn a_loopback_client_needs_no_root_certificates() {
        let base = Url::parse("http://127.0.0.1:1/v1").unwrap();
        assert!(RuntimeClients::default().get(&base, Duration::from_secs(1), 1).await.is_ok());
    }

    #[test]
    fn each_runtime_has_connections_of_its_own_and_few_runtimes_are_remembered() {
        let base = Url::parse("http://127.0.0.1:1/v1").unwrap();
        let links = RuntimeClients::default();
        let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
        let of =
            |runtime: &tokio::runtime::Runtime| runtime.block_on(links.get(&base, Duration::from_secs(1), 1)).unwrap();
        let (first, second) = (runtime(), runtime());
        let (of_first, of_second) = (of(&first), of(&second));
        assert!(Arc::ptr_eq(&of_first, &of(&first)) && Arc::ptr_eq(&of_second, &of(&second)));
        assert!(!Arc::ptr_eq(&of_first, &of_second));
        for _ in 0..MAX_RUNTIMES {
            of(&runtime());
        }
        assert_eq!(links.by_runtime.lock().unwrap().len(), MAX_RUNTIMES);
        assert!(!Arc::ptr_eq(&of_first, &of(&first)), "it begins anew");
    }
}
