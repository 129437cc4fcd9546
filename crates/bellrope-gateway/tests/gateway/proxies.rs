//! Proxies that the environment names: gone through, gone around, or named in an error with what to change.
//!
//! The environment is that of a process of its own, as for [`crate::tls`].

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fake::Fake;
use crate::script::Format;
use crate::tls::{Sealed, said_by_one_who_asks};

/// A name that nobody has.
const NOWHERE: &str = "https://api.invalid/v1";

/// A proxy that answers every connection with the same bytes, and notes what it was asked.
struct Proxy {
    address: String,
    seen: Arc<Mutex<String>>,
}

impl Proxy {
    async fn answering(answer: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (answer, seen) = (answer.to_owned(), Arc::new(Mutex::new(String::new())));
        let proxy = Self { address: listener.local_addr().unwrap().to_string(), seen: Arc::clone(&seen) };
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.windows(4).any(|window| window == b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
                seen.lock().unwrap().push_str(&String::from_utf8_lossy(&head));
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        proxy
    }

    fn seen(&self) -> String {
        self.seen.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_with_its_status_and_what_to_change() {
    for (status, words, fix, retryable) in [
        ("403 Forbidden", "refuses the way to api.invalid:443 (403)", "add api.invalid to NO_PROXY", false),
        ("407 Login", "wants a user name and a password (407)", "set HTTPS_PROXY to http://USER:PASSWORD@", false),
        ("502 Bad Gateway", "cannot reach api.invalid:443 (502)", "check HTTPS_PROXY", true),
        ("504 Gateway Timeout", "cannot reach api.invalid:443 (504)", "check HTTPS_PROXY", true),
        ("302 Found", "refuses the way to api.invalid:443 (302)", "check HTTPS_PROXY", false),
    ] {
        let proxy = Proxy::answering(&format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")).await;
        let said = said_by_one_who_asks(NOWHERE, &[("HTTPS_PROXY", &format!("http://{}", proxy.address))]).await;
        assert!(said.contains(&format!("the proxy {} of HTTPS_PROXY {words}", proxy.address)), "{said}");
        assert!(said.contains(fix) && said.contains(&format!("connect, retryable {retryable}: ")), "{said}");
        assert!(proxy.seen().starts_with("CONNECT api.invalid:443 HTTP/1.1\r\n"), "{}", proxy.seen());
    }
}

#[tokio::test]
async fn through_a_tunnel_the_provider_alone_sees_the_request() {
    let sealed = Sealed::with("sealed.invalid", |_| {}).await;
    let to = sealed.url.replace("https://localhost", "127.0.0.1");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://user:pass-word@{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(String::new()));
    let noted = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && near.read_buf(&mut head).await.unwrap_or(0) > 0 {}
            noted.lock().unwrap().push_str(&String::from_utf8_lossy(&head));
            near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let mut far = TcpStream::connect(&to).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    let trusted = sealed.certificate.path().to_string_lossy().into_owned();
    let vars = [("HTTPS_PROXY", &*url), ("SSL_CERT_FILE", &trusted), ("NO_PROXY", "other.invalid")];
    let said = said_by_one_who_asks(&sealed.url.replace("localhost", "sealed.invalid"), &vars).await;
    assert!(said.contains("answer: sealed"), "{said}");
    let seen = seen.lock().unwrap();
    assert!(seen.starts_with("CONNECT sealed.invalid:") && seen.contains("Basic dXNlcjpwYXNzLXdvcmQ="), "{seen}");
    assert!(!seen.contains("POST"), "{seen}");
}

#[tokio::test]
async fn a_wrong_password_is_said_without_the_password() {
    for (status, words) in [
        ("407 Login", "does not accept the user name and the password that stand there (407)"),
        ("403 Forbidden", "refuses the way to api.invalid:443 (403)"),
    ] {
        let proxy = Proxy::answering(&format!("HTTP/1.1 {status}\r\n\r\n")).await;
        let url = format!("http://user:pass-word@{}", proxy.address);
        let said = said_by_one_who_asks(NOWHERE, &[("https_proxy", &url)]).await;
        assert!(said.contains("of https_proxy ") && said.contains(words), "{said}");
        assert!(!said.contains("pass-word"), "{said}");
        // user:pass-word
        assert!(
            proxy.seen().to_ascii_lowercase().contains("proxy-authorization: basic dxnlcjpwyxnzlxdvcmq="),
            "{}",
            proxy.seen()
        );
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_or_says_nothing_is_named() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let silent = Proxy::answering("").await.address;
    for (proxy, words) in [
        (
            gone.as_str(),
            format!("the proxy {gone} of HTTPS_PROXY cannot be reached: is it running? nothing listens at {gone}"),
        ),
        (
            &silent,
            format!("the proxy {silent} of HTTPS_PROXY closed the connection when asked for a way to api.invalid:443"),
        ),
        ("proxy.invalid:3128", "the proxy proxy.invalid:3128 of HTTPS_PROXY ".to_owned()),
    ] {
        let said = said_by_one_who_asks(NOWHERE, &[("HTTPS_PROXY", proxy)]).await;
        assert!(said.contains(&words) && said.contains("connect, retryable true: "), "{said}");
        assert!(said.contains("check HTTPS_PROXY, or add api.invalid to NO_PROXY"), "{said}");
    }
}

#[tokio::test]
async fn a_wrong_address_of_a_proxy_is_named_by_its_variable_alone() {
    for (wrong, words) in [
        ("http://user:pass-word@host:port", "HTTPS_PROXY is no proxy's address"),
        ("socks5://user:pass-word@127.0.0.1:1080", "HTTPS_PROXY names a SOCKS proxy"),
    ] {
        let said = said_by_one_who_asks(NOWHERE, &[("HTTPS_PROXY", wrong)]).await;
        assert!(said.contains(&format!("not_configured, retryable false: {words}")), "{said}");
        assert!(!said.contains("pass-word"), "{said}");
    }
}

#[tokio::test]
async fn without_a_tunnel_the_proxy_is_named_too() {
    for (status, words) in [
        ("407 Login", "of HTTP_PROXY wants a user name and a password (407)"),
        ("502 Bad Gateway", "of HTTP_PROXY may have said that: check it, or add api.invalid to NO_PROXY"),
        ("503 Busy", "of HTTP_PROXY may have said that"),
    ] {
        let proxy = Proxy::answering(&format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")).await;
        let url = format!("http://{}", proxy.address);
        let said = said_by_one_who_asks("http://api.invalid/v1", &[("HTTP_PROXY", &url)]).await;
        assert!(said.contains(&format!("the proxy {} {words}", proxy.address)), "{said}");
        assert!(proxy.seen().starts_with("POST http://api.invalid/v1/messages HTTP/1.1\r\n"), "{}", proxy.seen());
    }
}

#[tokio::test]
async fn a_provider_that_the_list_names_is_asked_without_the_proxy() {
    let provider = Fake::streaming([&Format::Messages.answer("directly")]).await;
    // This address is not taken for the loopback one, which no proxy is ever asked for, and leads there.
    let url = provider.url().replace("127.0.0.1", "0.0.0.0");
    let port = url.trim_end_matches("/v1").rsplit(':').next().unwrap().to_owned();
    let proxy = Proxy::answering("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
    for (list, direct) in [
        ("*", true),
        ("host,0.0.0.0", true),
        ("0.0.0.0/8", true),
        (&*format!("0.0.0.0:{port}"), true),
        ("0.0.0.0:1", false),
        ("10.0.0.0/8, .example.com", false),
    ] {
        for name in ["NO_PROXY", "no_proxy"] {
            let said = said_by_one_who_asks(&url, &[("HTTP_PROXY", &proxy.address), (name, list)]).await;
            assert_eq!(said.contains("answer: directly"), direct, "{name}={list}: {said}");
        }
    }
}
