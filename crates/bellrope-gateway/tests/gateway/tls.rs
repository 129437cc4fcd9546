//! A provider behind TLS: asked where the machine trusts its certificate, and told nothing where it does not.
//!
//! Which certificates the machine trusts is a matter of the environment, so the asking is done by a process of its own.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellrope_gateway::{ChatRequest, HttpProvider, Provider, ProviderConfig, ProviderKind, Secret};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::fake::Fake;

/// Tells a test run as the asking process whom to ask.
const URL: &str = "BELLROPE_TEST_TLS_URL";

const KEY: &str = "sk-tls-0123456789";

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n\
    event: content_block_delta\n\
    data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"sealed\"}}\n\n\
    event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n\
    event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

/// A provider with a certificate of its own for `localhost`.
pub(crate) struct Sealed {
    pub(crate) url: String,
    pub(crate) certificate: tempfile::NamedTempFile,
    /// What came in through TLS.
    seen: Arc<Mutex<String>>,
}

impl Sealed {
    async fn start() -> Self {
        Self::with("localhost", |_| {}).await
    }

    /// One whose certificate is for this host, and otherwise as `change` makes it.
    pub(crate) async fn with(host: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        change(&mut params);
        let signing_key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&signing_key).unwrap();
        let mut certificate = tempfile::NamedTempFile::new().unwrap();
        certificate.write_all(cert.pem().as_bytes()).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let seen = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A client that does not trust the certificate ends here.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = Vec::new();
                while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                    assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "a request without its end");
                }
                shared.lock().unwrap().push_str(&String::from_utf8_lossy(&request));
                let _ = stream.write_all(ANSWER.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { url, certificate, seen }
    }

    /// What a process says that asks this provider and trusts the certificates in this file alone.
    async fn asked_by_one_who_trusts(&self, certificates: &Path) -> String {
        said_by_one_who_asks(&self.url, &[("SSL_CERT_FILE", &certificates.to_string_lossy())]).await
    }
}

/// What a process says that asks a provider with this address, and has these variables of proxies and certificates alone.
pub(crate) async fn said_by_one_who_asks(url: &str, vars: &[(&str, &str)]) -> String {
    let mut asking = Command::new(std::env::current_exe().unwrap());
    asking.args(["--ignored", "--exact", "--nocapture", "tls::ask"]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        asking.env_remove(name).env_remove(name.to_ascii_lowercase());
    }
    asking.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR").env(URL, url).envs(vars.iter().copied());
    let asking = asking.stdout(Stdio::piped()).kill_on_drop(true).output();
    let output = timeout(Duration::from_secs(60), asking).await.expect("it took over a minute").unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn a_provider_behind_tls_answers_one_who_trusts_its_certificate() {
    let sealed = Sealed::start().await;
    let said = sealed.asked_by_one_who_trusts(sealed.certificate.path()).await;
    assert!(said.contains("answer: sealed"), "{said}");
    let seen = sealed.seen.lock().unwrap();
    assert!(seen.starts_with("POST /v1/messages HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains(&format!("x-api-key: {KEY}\r\n")), "{seen}");
}

#[tokio::test]
async fn a_provider_with_a_certificate_that_nobody_vouches_for_never_sees_the_request() {
    let (sealed, other) = (Sealed::start().await, Sealed::start().await);
    let said = sealed.asked_by_one_who_trusts(other.certificate.path()).await;
    assert!(
        said.contains("error connect, retryable false: cannot connect to the provider: the certificate of"),
        "{said}"
    );
    assert!(said.contains("is signed by itself or by an authority that this machine does not trust"), "{said}");
    assert!(said.contains("SSL_CERT_FILE") && !said.contains("ANTHROPIC_BASE_URL"), "{said}");
    assert_eq!(*sealed.seen.lock().unwrap(), "");
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_named_with_its_fix() {
    let past = |params: &mut CertificateParams| params.not_after = date_time_ymd(2001, 1, 1);
    let future = |params: &mut CertificateParams| params.not_before = date_time_ymd(4000, 1, 1);
    let authority = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    for (sealed, cause, fix) in [
        (Sealed::with("localhost", past).await, "has expired", "this machine's clock says "),
        (Sealed::with("localhost", future).await, "is not valid yet", "this machine's clock says "),
        (
            Sealed::with("example.com", |_| {}).await,
            "is for another host",
            "use the name it is for: check ANTHROPIC_BASE_URL",
        ),
        (Sealed::with("localhost", authority).await, "is signed by itself as an authority's", "made without CA:TRUE"),
    ] {
        let said = sealed.asked_by_one_who_trusts(sealed.certificate.path()).await;
        assert!(said.contains("error connect, retryable false: ") && said.contains(cause), "{cause}: {said}");
        assert!(said.contains(fix), "{said}");
        assert_eq!(*sealed.seen.lock().unwrap(), "");
    }
}

#[tokio::test]
async fn tls_and_plain_http_that_meet_are_told_apart() {
    let sealed = Sealed::start().await;
    let said = said_by_one_who_asks(&sealed.url.replace("https://", "http://"), &[]).await;
    assert!(said.contains("does not answer in HTTP") && said.contains("write https:// in place of http://"), "{said}");
    let words = "<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>";
    for words in [words, "Client sent an HTTP request to an HTTPS server.\n"] {
        let polite = Fake::replying("400 Bad Request", "", words).await;
        let said = said_by_one_who_asks(&polite.url(), &[]).await;
        assert!(said.contains("write https:// in place of http://: check ANTHROPIC_BASE_URL"), "{said}");
    }
    let raw = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = raw.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = raw.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let trusted = [("SSL_CERT_FILE", &*sealed.certificate.path().to_string_lossy())];
    let said = said_by_one_who_asks(&format!("https://localhost:{port}"), &trusted).await;
    assert!(said.contains(&format!("localhost:{port} does not answer in TLS")), "{said}");
    assert!(said.contains("retryable false") && said.contains("write http:// in place of https://"), "{said}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_what_to_check() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let said = said_by_one_who_asks(&format!("http://{gone}"), &[]).await;
    assert!(said.contains(&format!("nothing listens at {gone} (Connection refused")), "{said}");
    assert!(said.contains("error connect, retryable true: "), "{said}");
    assert!(said.contains("is it running?") && said.contains("; check ANTHROPIC_BASE_URL"), "{said}");
}

#[tokio::test]
async fn a_machine_that_trusts_nobody_says_what_it_lacks() {
    let (sealed, nobody) = (Sealed::start().await, tempfile::NamedTempFile::new().unwrap());
    let said = sealed.asked_by_one_who_trusts(nobody.path()).await;
    assert!(said.contains("SSL_CERT_FILE names `") && said.contains("where no certificate can be read"), "{said}");
    assert_eq!(*sealed.seen.lock().unwrap(), "");
}

#[tokio::test]
async fn a_name_that_nobody_has_is_named() {
    let said = said_by_one_who_asks("http://nobody.invalid/v1", &[]).await;
    // Where nobody answers for names at all, that takes as long as a connection may.
    let resolved =
        said.contains("the name `nobody.invalid` cannot be resolved (") && said.contains("; check ANTHROPIC_BASE_URL");
    assert!(resolved || said.contains("took longer than"), "{said}");
}

/// The process of the tests above.
#[tokio::test]
#[ignore = "is started by the tests above, with a provider to ask"]
async fn ask() {
    let config = ProviderConfig {
        kind: Some(ProviderKind::Anthropic),
        base_url: std::env::var(URL).unwrap_or_else(|_| panic!("{URL} must name a provider")),
        api_key: Some(Secret::new(KEY)),
        model: Some("m".to_owned()),
        max_retries: 0,
        ..ProviderConfig::default()
    };
    let mut out = std::io::stdout();
    match HttpProvider::new(config).unwrap().chat(ChatRequest::user("Hello")).await {
        Ok(answer) => writeln!(out, "answer: {}", answer.text).unwrap(),
        Err(error) => writeln!(out, "error {}, retryable {}: {error}", error.code(), error.retryable()).unwrap(),
    }
}
