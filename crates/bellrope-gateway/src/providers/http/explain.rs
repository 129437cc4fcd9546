//! Why a request got no response: what the HTTP client's chain of errors means, where it happened, and what to change.

use std::error::Error;
use std::io;
use std::iter::from_fn;
use std::time::{Duration, SystemTime};

use reqwest::Url;
use rustls::CertificateError;

use super::client::{RuntimeClient, is_this_machine, root_cause};
use super::proxy::{Proxy, host_and_port};
use super::trust;
use crate::error::{Excerpt, Phase, ProviderError};

/// What failed, and on the way to whom.
pub(super) struct Failed<'a> {
    pub(super) link: &'a RuntimeClient,
    pub(super) base: &'a Url,
    /// `check OPENAI_BASE_URL`.
    pub(super) check_base: &'a str,
    pub(super) connect_timeout: Duration,
}

/// What a step failed by, in words, with its fix.
struct Cause {
    reason: String,
    fix: String,
    retryable: bool,
}

impl Failed<'_> {
    /// The error that the HTTP client's own stands for.
    pub(super) async fn explain(&self, error: &reqwest::Error) -> ProviderError {
        let proxy = self.link.proxy.as_ref();
        if error.is_builder() {
            return ProviderError::Setup { reason: root_cause(error) };
        }
        if error.is_connect() && error.is_timeout() {
            let after = self.connect_timeout;
            return match proxy {
                Some(proxy) => {
                    let words = format!("gave no way to {} within {after:?}", host_and_port(self.base));
                    self.at_proxy(proxy, &words, true)
                }
                None => ProviderError::TimedOut { phase: Phase::Connect, after },
            };
        }
        if let Some(proxy) = proxy
            && let Some(fault) = self.proxy_fault(proxy, error).await
        {
            return fault;
        }
        if let Some(cause) = tls_cause(error, self.base, self.check_base) {
            return cause.into();
        }
        if error.is_connect() {
            return connect_cause(error, self.base, self.check_base).into();
        }
        let reason = root_cause(error);
        if self.base.scheme() == "http" && reason.as_str().starts_with("invalid HTTP version") {
            // The first bytes of a TLS alert, as a rule.
            return Cause {
                reason: format!("{} does not answer in HTTP ({reason})", host_and_port(self.base)),
                fix: format!("if it expects TLS, write https:// in place of http://: {}", self.check_base),
                retryable: false,
            }
            .into();
        }
        ProviderError::Disconnected { reason }
    }

    /// The error if it was the proxy that failed.
    async fn proxy_fault(&self, proxy: &Proxy, error: &reqwest::Error) -> Option<ProviderError> {
        let step = chain(error).map(ToString::to_string).find(|text| text.starts_with("tunnel error"));
        let target = host_and_port(self.base);
        let Some(step) = step else {
            // Without a tunnel whatever is connected to is the proxy.
            return (self.base.scheme() == "http" && error.is_connect()).then(|| self.proxy_is_down(proxy, error));
        };
        Some(match step.trim_start_matches("tunnel error: ") {
            "proxy authorization required" => self.refused_by_proxy(proxy, Some(407)),
            "unsuccessful" => self.refused_by_proxy(proxy, proxy.refusal(&target).await),
            "unexpected end of file" | "io error establishing tunnel" => {
                self.at_proxy(proxy, &format!("closed the connection when asked for a way to {target}"), true)
            }
            "failed to create underlying connection" => self.proxy_is_down(proxy, error),
            other => self.at_proxy(proxy, &format!("gave no way to {target} ({other})"), true),
        })
    }

    /// The error of a proxy that answered with this status rather than giving a way.
    pub(super) fn refused_by_proxy(&self, proxy: &Proxy, status: Option<u16>) -> ProviderError {
        let target = host_and_port(self.base);
        let words = match status {
            Some(407) if proxy.credentials.is_some() => {
                "does not accept the user name and the password that stand there (407)".to_owned()
            }
            Some(407) => {
                let Proxy { variable, .. } = proxy;
                let shown = proxy.shown();
                return Cause {
                    reason: format!("the proxy {shown} of {variable} wants a user name and a password (407)"),
                    fix: format!("set {variable} to http://USER:PASSWORD@{shown}"),
                    retryable: false,
                }
                .into();
            }
            Some(status @ 500..) => format!("cannot reach {target} ({status})"),
            Some(status) => format!("refuses the way to {target} ({status})"),
            None => format!("refuses the way to {target}"),
        };
        self.at_proxy(proxy, &words, status.is_some_and(|status| status >= 500))
    }

    fn proxy_is_down(&self, proxy: &Proxy, error: &reqwest::Error) -> ProviderError {
        let Cause { reason, retryable, .. } =
            tls_cause(error, &proxy.url, "").unwrap_or_else(|| connect_cause(error, &proxy.url, ""));
        self.at_proxy(proxy, &format!("cannot be reached: {reason}"), retryable)
    }

    fn at_proxy(&self, proxy: &Proxy, words: &str, retryable: bool) -> ProviderError {
        let Proxy { variable, .. } = proxy;
        let host = self.base.host_str().unwrap_or_default();
        Cause {
            reason: format!("the proxy {} of {variable} {words}", proxy.shown()),
            fix: format!("check {variable}, or add {host} to NO_PROXY to do without the proxy"),
            retryable,
        }
        .into()
    }
}

/// What no connection came about by.
fn connect_cause(error: &reqwest::Error, to: &Url, check: &str) -> Cause {
    let place = host_and_port(to);
    let said = root_cause(error);
    let host = to.host_str().unwrap_or_default();
    let (reason, question) = if chain(error).any(|cause| cause.to_string() == "dns error") {
        (format!("the name `{host}` cannot be resolved ({said})"), "is it spelled right, and is the network up?")
    } else {
        match io_kind(error) {
            Some(io::ErrorKind::ConnectionRefused) if is_this_machine(to) => {
                (format!("nothing listens at {place} ({said})"), "is it running?")
            }
            Some(io::ErrorKind::ConnectionRefused) => {
                (format!("{place} refuses connections ({said})"), "does the server run there?")
            }
            Some(io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) => {
                (format!("there is no way to {place} ({said})"), "is the network up?")
            }
            _ => (format!("{place}: {said}"), ""),
        }
    };
    let reason = if question.is_empty() { reason } else { format!("{question} {reason}") };
    Cause { reason, fix: check.to_owned(), retryable: true }
}

/// What the TLS handshake failed by, if it was that.
fn tls_cause(error: &reqwest::Error, to: &Url, check: &str) -> Option<Cause> {
    let place = host_and_port(to);
    let Some(fault) = tls_fault(error) else {
        let ended = chain(error).any(|cause| cause.to_string().contains("tls handshake eof"));
        return ended.then(|| Cause {
            reason: format!("{place} ended the TLS handshake"),
            fix: format!("{check}: does it speak TLS? if not, write http:// in place of https://"),
            retryable: true,
        });
    };
    let (reason, fix) = match fault {
        rustls::Error::InvalidCertificate(fault) => certificate_cause(fault, &place, check),
        rustls::Error::InvalidMessage(_) => (
            format!("{place} does not answer in TLS"),
            format!("if it speaks plain HTTP, write http:// in place of https://: {check}"),
        ),
        _ => (format!("no TLS with {place} came about"), format!("{check}, and what stands between here and there")),
    };
    Some(Cause { reason: format!("{reason} ({fault})"), fix, retryable: false })
}

impl From<Cause> for ProviderError {
    fn from(Cause { reason, fix, retryable }: Cause) -> Self {
        Self::Connect { reason: Excerpt::new(&reason), fix: fix.into(), retryable }
    }
}

/// What is wrong with a certificate, and what to change.
fn certificate_cause(fault: &CertificateError, place: &str, check: &str) -> (String, String) {
    let clock = || {
        let now = httpdate::fmt_http_date(SystemTime::now());
        format!("this machine's clock says {now}: set it if that is wrong, else have the certificate renewed")
    };
    let trust = format!("if you trust it, name a file with the certificate of its authority in {}", trust::FILE);
    match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            (format!("the certificate of {place} has expired"), clock())
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            (format!("the certificate of {place} is not valid yet"), clock())
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            (format!("the certificate of {place} is for another host"), format!("use the name it is for: {check}"))
        }
        // A bad one is that of another authority with the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            let who = "is signed by itself or by an authority that this machine does not trust";
            (format!("the certificate of {place} {who}"), trust)
        }
        CertificateError::Revoked => {
            (format!("the certificate of {place} was revoked"), format!("do not trust it; {check}"))
        }
        fault if fault.to_string().contains("CaUsedAsEndEntity") => (
            format!("the certificate of {place} is signed by itself as an authority's, and stands for no server"),
            format!("have one made without CA:TRUE, and name it in {}", trust::FILE),
        ),
        _ => (format!("the certificate of {place} cannot be accepted"), format!("have it replaced, or {check}")),
    }
}

/// The error's causes, outermost first.
fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let mut next = error.source();
    from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// An error of TLS, wherever it is wrapped.
fn tls_fault(error: &reqwest::Error) -> Option<&rustls::Error> {
    fn within<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
        cause.downcast_ref().or_else(|| within(cause.downcast_ref::<io::Error>()?.get_ref()?))
    }
    chain(error).find_map(within)
}

fn io_kind(error: &reqwest::Error) -> Option<io::ErrorKind> {
    let kinds = chain(error).filter_map(|cause| cause.downcast_ref::<io::Error>());
    kinds.filter(|cause| cause.raw_os_error().is_some()).last().map(io::Error::kind)
}
