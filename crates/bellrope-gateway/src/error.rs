//! What can go wrong, who is to blame, and what fixes it.

mod config;
mod excerpt;
mod words;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use thiserror::Error;

pub use config::ConfigError;
pub(crate) use excerpt::escape;
pub use excerpt::{Excerpt, MAX_EXCERPT};
pub(crate) use words::{AT, CHECK_BALANCE, CHECK_TOOLS_KEY};
use words::{after_semicolon, again, cause, in_brackets, seconds, status_code, suspended};

use crate::message::{Chunk, ErrorInfo};

/// Who has to act on a [`ProviderError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The one who asked: the request cannot be answered as it is.
    Caller,
    /// Whoever configures the gateway; [`ProviderError::fix`] says what to set.
    Configuration,
    /// The way to the provider.
    Network,
    /// The provider.
    Provider,
}

/// What was being waited for when time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The connection, with its TLS handshake.
    Connect,
    /// The head of the response.
    FirstByte,
    /// The next byte of the response.
    Idle,
    /// The next piece of the answer, while nothing but its head and keep-alives came in.
    Event,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "a connection",
            Self::FirstByte => "the head of the response",
            Self::Idle => "the next byte",
            Self::Event => "the next piece of the answer",
        })
    }
}

/// What is worth to be sent again by itself, if it may be after so long.
const SOON: Duration = Duration::from_secs(60);

/// Why a provider gave no whole answer.
///
/// Every text in it that came from outside is an [`Excerpt`], free of the provider's key. `fix` fields name the setting to change, as in `check OPENAI_BASE_URL`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// The request is of a later version than this gateway.
    #[error("the request has version {asked}; this gateway speaks version {known}")]
    UnsupportedVersion {
        /// The request's version.
        asked: u32,
        /// The latest version known here.
        known: u32,
    },
    /// The request contradicts itself or leaves out what is needed.
    #[error("{reason}")]
    InvalidRequest {
        /// What is wrong with it.
        reason: Excerpt,
    },
    /// The request names a provider that does not exist.
    #[error("there is no provider `{name}`; known: {}", known.join(", "))]
    UnknownProvider {
        /// The name asked for.
        name: Excerpt,
        /// The names that exist, sorted.
        known: Vec<String>,
    },
    /// The provider takes the key of whoever asks, and the request has none, or one that somebody else has given out.
    #[error(
        "`{provider}` takes the tool's own key, and the request has none of its kind; send it to the API port as `Authorization: \
         Bearer KEY` or `x-api-key`, or set gateway.providers.{provider}.credentials to \"server\""
    )]
    NoCredentials {
        /// The provider's name.
        provider: String,
    },
    /// A setting is missing that this request needs.
    #[error("{missing}; {fix}")]
    NotConfigured {
        /// What is missing.
        missing: Cow<'static, str>,
        /// The fix.
        fix: Cow<'static, str>,
    },
    /// The HTTP client could not be set up.
    #[error("the HTTP client cannot be set up: {reason}")]
    Setup {
        /// What the TLS or HTTP library says.
        reason: Excerpt,
    },
    /// The provider failed so often that it is not asked for a while.
    #[error("{}", suspended(provider, *retry_after))]
    Suspended {
        /// The provider's name.
        provider: String,
        /// After how long it is worth asking again. Zero: somebody opened the breaker by hand.
        retry_after: Duration,
    },
    /// The provider is asked as often as the configuration allows.
    #[error("`{provider}` is asked at most {limit} times a minute; try again in {}, or {fix}", seconds(*retry_after))]
    Limited {
        /// The provider's name.
        provider: String,
        /// Requests a minute.
        limit: u32,
        /// After how long it is worth asking again.
        retry_after: Duration,
        /// The fix.
        fix: Cow<'static, str>,
    },
    /// A budget allows no more.
    #[error("the budget `{budget}` allows no more: {reason}; {fix}")]
    Budget {
        /// The budget's name.
        budget: String,
        /// What is spent or held of it, and when its window ends.
        reason: String,
        /// After how long it is worth asking again.
        retry_after: Duration,
        /// The fix.
        fix: Cow<'static, str>,
    },
    /// No connection to the provider.
    #[error("cannot connect to the provider: {reason}; {fix}")]
    Connect {
        /// What failed, where, and what the operating system or the TLS library says.
        reason: Excerpt,
        /// The fix.
        fix: Cow<'static, str>,
        /// Whether the same request may succeed later.
        retryable: bool,
    },
    /// The connection broke before the head of the response.
    #[error("the connection broke before the provider answered: {reason}")]
    Disconnected {
        /// What the operating system or the HTTP library says.
        reason: Excerpt,
    },
    /// The provider took too long.
    #[error("the provider took longer than {after:?} for {phase}")]
    TimedOut {
        /// What it took too long for.
        phase: Phase,
        /// How long was waited.
        after: Duration,
    },
    /// The provider answered with an HTTP status other than success.
    #[error(
        "the provider answered {status}{}{}: {message}{}{}",
        cause(*status, fix.as_deref()),
        in_brackets(code.as_ref().map(Excerpt::as_str)),
        again(*retryable, *retry_after),
        after_semicolon(fix.as_deref())
    )]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The provider's own code or type of error.
        code: Option<Excerpt>,
        /// The provider's own words.
        message: Excerpt,
        /// How long the provider asks to wait.
        retry_after: Option<Duration>,
        /// Whether the same request may succeed later.
        retryable: bool,
        /// The fix, where the status gives one away.
        fix: Option<Cow<'static, str>>,
    },
    /// The provider reported an error within its stream.
    #[error("the provider broke off with an error{}: {message}", in_brackets(code.as_ref().map(Excerpt::as_str)))]
    Reported {
        /// The provider's own code or type of error.
        code: Option<Excerpt>,
        /// The provider's own words.
        message: Excerpt,
        /// The HTTP status that the error would have as a response, where its code gives that away.
        status: Option<u16>,
        /// Whether the same request may succeed later.
        retryable: bool,
    },
    /// Whoever asks providers for this server has told why there is no answer.
    #[error("{message}")]
    Forwarded {
        /// One of [`ProviderError::CODES`].
        code: &'static str,
        /// What was told.
        message: Excerpt,
        /// Whether the same request may be sent again.
        retryable: bool,
        /// After how long that is worth it, where it was told.
        retry_after: Option<Duration>,
        /// Whether a provider has it, or may have. If not, it took nothing.
        sent: bool,
    },
    /// The provider answered with something else than was asked for, such as a web page.
    #[error("the provider answered with `{content_type}` instead of {expected}: {excerpt}; {fix}")]
    UnexpectedContent {
        /// What was asked for.
        expected: &'static str,
        /// What the response says it is.
        content_type: Excerpt,
        /// How it begins.
        excerpt: Excerpt,
        /// The fix.
        fix: Cow<'static, str>,
    },
    /// The provider does not keep to its wire format.
    #[error("the provider sent what cannot be read: {reason}")]
    Malformed {
        /// What cannot be read.
        reason: Excerpt,
    },
    /// The answer broke off before its end.
    #[error("the answer broke off before its end: {reason}")]
    Truncated {
        /// How it broke off.
        reason: Excerpt,
    },
    /// The provider sent more than is accepted.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// The limit, in bytes.
        limit: usize,
    },
    /// There is no room for the answer beside those of others: what is full, and of what.
    #[error("there is no room for the answer: {0}; try again")]
    NoRoom(Excerpt),
    /// No answer of this id is kept for whoever asks.
    #[error(
        "no answer of this id is kept here for you: answers are kept for a while (gateway.answers.keep_s), only for who \
         asked for them, and not across a restart of the server; ask again"
    )]
    UnknownAnswer,
    /// An answer cannot be gone on with from this place.
    #[error("{reason}")]
    NotResumable {
        /// Why, and from where it can be gone on with.
        reason: Excerpt,
    },
    /// Somebody else goes on reading the answer.
    #[error("another reader goes on with this answer")]
    Superseded,
    /// The answer was cancelled.
    #[error("the answer was cancelled")]
    Cancelled,
}

impl ProviderError {
    /// Everything that [`ProviderError::code`] can be.
    pub const CODES: [&str; 25] = [
        "unsupported_version",
        "invalid_request",
        "unknown_provider",
        "not_configured",
        "authentication",
        "permission",
        "billing",
        "budget_exceeded",
        "not_found",
        "connect",
        "disconnected",
        "timeout",
        "rate_limited",
        "overloaded",
        "unavailable",
        "provider_error",
        "unexpected_content",
        "malformed",
        "too_large",
        "answer_too_large",
        "truncated",
        "unknown_answer",
        "not_resumable",
        "superseded",
        "cancelled",
    ];

    /// The kind of error in one word, as it stands in [`ErrorInfo::code`]. This is the whole list:
    ///
    /// | code | meaning |
    /// |---|---|
    /// | `unsupported_version`, `invalid_request`, `unknown_provider`, `too_large` | the request is at fault |
    /// | `not_configured`, `authentication`, `permission`, `billing`, `not_found` | the configuration or the account is |
    /// | `budget_exceeded` | a budget of this gateway allows no more for now |
    /// | `connect`, `disconnected`, `timeout` | no answer came |
    /// | `rate_limited`, `overloaded`, `unavailable`, `provider_error` | the provider, or this gateway, cannot answer now, or failed |
    /// | `unexpected_content`, `malformed`, `answer_too_large` | what came is not an answer, or larger than is taken |
    /// | `truncated` | the answer broke off |
    /// | `unknown_answer`, `not_resumable`, `superseded`, `cancelled` | an answer that is kept cannot be read, or no longer |
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnsupportedVersion { .. } => "unsupported_version",
            Self::InvalidRequest { .. } => "invalid_request",
            Self::UnknownProvider { .. } => "unknown_provider",
            Self::NoCredentials { .. } => "authentication",
            Self::NotConfigured { .. } | Self::Setup { .. } => "not_configured",
            Self::Suspended { .. } => "unavailable",
            Self::Limited { .. } => "rate_limited",
            Self::Budget { .. } => "budget_exceeded",
            Self::Connect { .. } => "connect",
            Self::Disconnected { .. } => "disconnected",
            Self::TimedOut { .. } => "timeout",
            Self::Refused { fix, .. } if fix.as_deref() == Some(CHECK_BALANCE) => "billing",
            Self::Refused { status, .. } => status_code(*status),
            Self::Reported { status, .. } => status.map_or("provider_error", status_code),
            Self::Forwarded { code, .. } => code,
            Self::UnexpectedContent { .. } => "unexpected_content",
            Self::Malformed { .. } => "malformed",
            Self::Truncated { .. } => "truncated",
            Self::TooLarge { .. } => "answer_too_large",
            Self::NoRoom(_) => "overloaded",
            Self::UnknownAnswer => "unknown_answer",
            Self::NotResumable { .. } => "not_resumable",
            Self::Superseded => "superseded",
            Self::Cancelled => "cancelled",
        }
    }

    /// Who has to act.
    pub fn blame(&self) -> Blame {
        match self {
            Self::UnsupportedVersion { .. }
            | Self::InvalidRequest { .. }
            | Self::UnknownProvider { .. }
            | Self::NoRoom(_)
            | Self::UnknownAnswer
            | Self::NotResumable { .. }
            | Self::Superseded
            | Self::Cancelled
            | Self::NoCredentials { .. } => Blame::Caller,
            Self::NotConfigured { .. } | Self::Setup { .. } | Self::Limited { .. } | Self::Budget { .. } => {
                Blame::Configuration
            }
            Self::Connect { .. } | Self::Disconnected { .. } => Blame::Network,
            Self::Refused { .. } if self.code() == "billing" => Blame::Configuration,
            // Nobody else's key is to stand in for the tool's.
            Self::Refused { fix, .. } if fix.as_deref() == Some(CHECK_TOOLS_KEY) => Blame::Caller,
            Self::Refused { status, .. } => match status {
                401..=404 | 300..=399 => Blame::Configuration,
                408 | 409 | 429 | 500.. => Blame::Provider,
                _ => Blame::Caller,
            },
            Self::Forwarded { code, .. } => match *code {
                "unsupported_version" | "invalid_request" | "unknown_provider" | "too_large" => Blame::Caller,
                "unknown_answer" | "not_resumable" | "superseded" | "cancelled" => Blame::Caller,
                "not_configured" | "authentication" | "permission" | "billing" | "not_found" | "budget_exceeded"
                | "unexpected_content" => Blame::Configuration,
                "connect" | "disconnected" => Blame::Network,
                _ => Blame::Provider,
            },
            Self::UnexpectedContent { .. } => Blame::Configuration,
            Self::Suspended { .. }
            | Self::TimedOut { .. }
            | Self::Reported { .. }
            | Self::Malformed { .. }
            | Self::Truncated { .. }
            | Self::TooLarge { .. } => Blame::Provider,
        }
    }

    /// Whether the same request may succeed when it is sent again.
    pub fn retryable(&self) -> bool {
        match self {
            // One that was opened by hand says no time.
            Self::Suspended { retry_after, .. } => !retry_after.is_zero(),
            Self::Limited { .. } | Self::NoRoom(_) => true,
            // Clients wait for what is to be sent again, and not for hours.
            Self::Budget { retry_after, .. } => *retry_after <= SOON,
            Self::Disconnected { .. } | Self::TimedOut { .. } | Self::Truncated { .. } => true,
            Self::Connect { retryable, .. }
            | Self::Refused { retryable, .. }
            | Self::Reported { retryable, .. }
            | Self::Forwarded { retryable, .. } => *retryable,
            _ => false,
        }
    }

    /// The setting to change, where one is known: `set OPENAI_API_KEY`, `check OPENAI_BASE_URL`.
    pub fn fix(&self) -> Option<&str> {
        match self {
            Self::NotConfigured { fix, .. }
            | Self::Limited { fix, .. }
            | Self::Budget { fix, .. }
            | Self::Connect { fix, .. }
            | Self::UnexpectedContent { fix, .. } => Some(fix),
            Self::Refused { fix, .. } => fix.as_deref(),
            _ => None,
        }
    }

    /// How long to wait before the next request, where the provider or the gateway says so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Suspended { retry_after, .. }
            | Self::Limited { retry_after, .. }
            | Self::Budget { retry_after, .. } => Some(*retry_after),
            Self::NoRoom(_) => Some(Duration::from_secs(1)),
            Self::Refused { retry_after, .. } | Self::Forwarded { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What it says of the provider, for its breaker: that it is unwell for everybody, as it cannot be reached or is overloaded, or that it
    /// failed at a request, which may be to blame. `None`: nothing, as a refusal or an answer that broke off. One that asks for a pause is well.
    pub(crate) fn failing(&self) -> Option<Failing> {
        match self {
            Self::Connect { .. } | Self::TimedOut { phase: Phase::Connect, .. } => Some(Failing::ForAll),
            Self::Disconnected { .. } | Self::TimedOut { .. } => Some(Failing::ForCaller),
            Self::Refused { .. } if self.code() == "billing" => None,
            // The last four are those of a proxy that does not reach the server behind it.
            Self::Refused { status: 502..=504 | 529 | 521..=524, .. } => Some(Failing::ForAll),
            Self::Refused { status: 408 | 500.., .. } => Some(Failing::ForCaller),
            Self::Reported { status: Some(502..=504 | 529), .. } => Some(Failing::ForAll),
            _ => None,
        }
    }

    /// Whether it says that the request did not leave this program.
    pub(crate) fn was_not_sent(&self) -> bool {
        matches!(
            self,
            Self::UnsupportedVersion { .. }
                | Self::InvalidRequest { .. }
                | Self::UnknownProvider { .. }
                | Self::NotConfigured { .. }
                | Self::Setup { .. }
                | Self::Suspended { .. }
                | Self::Limited { .. }
                | Self::Budget { .. }
                | Self::Forwarded { sent: false, .. }
        )
    }

    /// Whether another provider may well answer the same request.
    pub(crate) fn may_pass_on(&self, names_model: bool) -> bool {
        // A model that was asked for by name is not silently replaced because it is unknown.
        self.blame() != Blame::Caller && !(names_model && self.code() == "not_found")
    }

    /// Whether a provider that takes the tool's own key had none, or refused it.
    pub(crate) fn is_of_tools_key(&self) -> bool {
        match self {
            Self::NoCredentials { .. } => true,
            Self::Refused { status: 401 | 403, fix, .. } => fix.as_deref() == Some(CHECK_TOOLS_KEY),
            _ => false,
        }
    }

    /// The error in the words of the wire.
    pub fn info(&self) -> ErrorInfo {
        ErrorInfo {
            code: self.code().to_owned(),
            message: self.to_string(),
            retryable: self.retryable(),
            not_sent: false,
        }
    }
}

impl From<ProviderError> for Chunk {
    fn from(error: ProviderError) -> Self {
        Self::Error(error.info())
    }
}

/// For whom a provider fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failing {
    /// For everybody, whoever asked.
    ForAll,
    /// Perhaps only for the caller whose request it was.
    ForCaller,
}

#[cfg(test)]
mod tests;
