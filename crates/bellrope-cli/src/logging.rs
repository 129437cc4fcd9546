//! Events on stderr. How much of them can be changed while the program runs.

#[cfg(feature = "otlp")]
mod otlp;

use std::{fmt, io::IsTerminal, sync::OnceLock};

use anyhow::anyhow;
#[cfg(not(feature = "otlp"))]
use bellrope::server::ServerBuilder;
use bellrope_terminal::{Outcome, stderr::LineWriter};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer, Registry, filter::Targets, fmt::format::FmtSpan, layer::SubscriberExt as _, reload,
    util::SubscriberInitExt as _,
};

/// The variables that say how much is logged, the first that is set.
const VARIABLES: [&str; 2] = ["BELLROPE_LOG", COMMON_VARIABLE];

/// The variable that other programs read, too.
const COMMON_VARIABLE: &str = "RUST_LOG";

type Change = Box<dyn Fn(Targets) -> Result<(), String> + Send + Sync>;

/// Changes how much is logged, once something is.
static CHANGE: OnceLock<Change> = OnceLock::new();

/// What an event on stderr looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// A line for people, coloured at a terminal.
    #[default]
    Pretty,
    /// A line of JSON.
    Json,
}

impl LogFormat {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pretty => "pretty",
            Self::Json => "json",
        }
    }
}

/// Starts logging for people, at `default` if no variable says otherwise.
pub(crate) fn init(default: &str) -> Outcome {
    start(chosen(default, |name| std::env::var(name).ok())?, LogFormat::Pretty, Vec::new())
}

/// Starts logging as a server's settings say, and sending spans to a collector, if there is one.
pub(crate) fn serve(level: &str, format: LogFormat, collector: Option<&str>) -> anyhow::Result<Spans> {
    let filter = filter(level).map_err(|fix| Unusable { name: "log".to_owned(), value: level.to_owned(), fix })?;
    #[cfg(feature = "otlp")]
    if let Some(collector) = collector {
        let (layer, sending) = otlp::start(collector)?;
        start(filter, format, vec![layer])?;
        return Ok(Spans(Some(sending)));
    }
    if let Err(fault) = collector.map_or(Ok(()), check_collector) {
        anyhow::bail!("{fault}");
    }
    start(filter, format, Vec::new())?;
    Ok(Spans::default())
}

#[cfg(feature = "otlp")]
pub(crate) use otlp::{adopt_traces, check as check_collector};

/// Spans go nowhere.
#[cfg(not(feature = "otlp"))]
pub(crate) fn adopt_traces(builder: ServerBuilder) -> ServerBuilder {
    builder
}

/// Whether spans can be sent to a collector at this address.
#[cfg(not(feature = "otlp"))]
pub(crate) fn check_collector(_: &str) -> Result<(), String> {
    Err("this program cannot send spans; build it with `--features otlp`, or leave the setting out".to_owned())
}

/// Spans on their way to a collector, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Spans(#[cfg(feature = "otlp")] Option<otlp::SpanSender>);

impl Spans {
    /// Sends what is left, within a deadline.
    pub(crate) fn finish(&self) {
        #[cfg(feature = "otlp")]
        self.0.iter().for_each(otlp::SpanSender::finish);
    }
}

/// Logs so much from now on. The text must be one that [`filter`] takes.
pub(crate) fn change(level: &str) -> Result<(), String> {
    let change = CHANGE.get().ok_or("nothing is logged")?;
    change(filter(level)?)
}

/// What a text means that says how much is logged, or how to fix it.
///
/// As [`common_filter`], but a word by itself is a level or one of our own targets: `warning` would be a target of which
/// there is none, and turn off every line in silence.
pub(crate) fn filter(text: &str) -> Result<Targets, String> {
    let mut parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    match parts.find(|part| !part.contains('=') && !part.starts_with(OURS) && part.parse::<LevelFilter>().is_err()) {
        Some(word) if common_filter(word).is_ok() => Err(format!(
            "{word:?} is no level; set it to error, warn, info, debug, trace or off{}, or to pairs such as bellrope=debug \
             ({word}=trace, if it is a target)",
            nearest(word).map(|level| format!(" (did you mean {level}?)")).unwrap_or_default()
        )),
        _ => common_filter(text),
    }
}

/// The level that somebody meant who wrote this word.
fn nearest(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    let levels = ["error", "warn", "info", "debug", "trace", "off"];
    let by_start =
        levels.into_iter().find(|level| word.len() >= 3 && (word.starts_with(level) || level.starts_with(&word)));
    let near = |level: &&str| strsim::damerau_levenshtein(&word, level) <= 2;
    by_start.or_else(|| levels.into_iter().find(near))
}

/// What a text means that says how much is logged, where it may be meant for other programs too, or how to fix it.
///
/// As [`Targets`], but for what stays out of its way: blanks around a part, empty parts (which would be targets that say
/// nothing), and no part at all, which stands for errors alone. Spans and fields cannot be named.
fn common_filter(text: &str) -> Result<Targets, String> {
    let unusable = |error: &dyn fmt::Display| {
        format!("set it to error, warn, info, debug or trace, or to pairs such as bellrope=debug ({error})")
    };
    let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return Ok(Targets::new().with_default(LevelFilter::ERROR));
    }
    if let Some(part) = parts.iter().find(|part| part.contains(['[', ']', '{', '}'])) {
        return Err(unusable(&format_args!("{part:?} names spans or fields, which cannot be told apart here")));
    }
    let strange = |part: &&&str| {
        let first = part.chars().next();
        first.is_some_and(|first| !first.is_alphanumeric() && !['-', ':', '_'].contains(&first))
    };
    if parts.iter().any(|part| strange(&part)) {
        return Err(unusable(&"invalid filter directive"));
    }
    // "bellrope=" is everything of a target, as "bellrope" is.
    let parts: Vec<&str> = parts.iter().map(|part| part.strip_suffix('=').unwrap_or(part)).collect();
    let targets: Targets = parts.join(",").parse().map_err(|error| unusable(&error))?;
    // A fleet's link says itself, once, what its library says at this level.
    let is_named = parts.iter().any(|part| part.starts_with(LIBRARY));
    let is_everything = targets.default_level().is_some_and(|level| level == LevelFilter::INFO);
    Ok(if is_everything && !is_named { targets.with_target(LIBRARY, LevelFilter::WARN) } else { targets })
}

/// What the targets of our own crates begin with.
const OURS: &str = "bellrope";

/// The target of a library whose lines at the level info repeat ours.
const LIBRARY: &str = "async_nats";

type Part = Box<dyn Layer<Registry> + Send + Sync>;

fn start(filter: Targets, format: LogFormat, mut parts: Vec<Part>) -> Outcome {
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // A broken stderr must not bring the program down. A call's span says at its end how long it took and how it ended.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(LineWriter::default)
        .log_internal_errors(false)
        .with_span_events(FmtSpan::CLOSE);
    // A filter of their own, so that what is logged and what else becomes of spans do not depend on each other.
    let (filter, handle) = reload::Layer::new(filter);
    parts.push(match format {
        LogFormat::Pretty => lines.with_ansi(colours).with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    });
    let started = tracing_subscriber::registry().with(parts).try_init();
    started.map_err(|error| anyhow!("logging cannot be set up: {error}"))?;
    let _ = CHANGE.set(Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string())));
    Ok(())
}

/// A setting that says how much is logged, and does not.
#[derive(Debug, thiserror::Error)]
pub(crate) struct Unusable {
    name: String,
    value: String,
    fix: String,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {:?}; {}", self.name, self.value, self.fix)
    }
}

fn chosen(default: &str, vars: impl Fn(&str) -> Option<String>) -> Result<Targets, Unusable> {
    let set = |name: &&str| vars(name).filter(|value| !value.trim().is_empty());
    let Some((name, value)) = VARIABLES.iter().find_map(|name| Some((*name, set(name)?))) else {
        return Ok(filter(default).unwrap_or_else(|_| Targets::new().with_default(LevelFilter::ERROR)));
    };
    let meaning = if name == COMMON_VARIABLE { common_filter(&value) } else { filter(&value) };
    meaning.map_err(|fix| Unusable { name: name.to_owned(), value, fix })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_variable_comes_first_and_empty_ones_say_nothing() {
        let of = |own: &'static str, common: &'static str| {
            chosen("info", move |name| Some(if name == "RUST_LOG" { common } else { own }.to_owned()))
        };
        assert_eq!(of("debug", "trace").unwrap().to_string(), "debug");
        assert_eq!(of(" ", "bellrope=trace").unwrap().to_string(), "bellrope=trace");
        assert_eq!(of("", "").unwrap(), filter("info").unwrap());
    }

    #[test]
    #[cfg(not(feature = "otlp"))]
    fn a_program_that_cannot_send_spans_starts_nothing_where_it_is_to_send_some() {
        let error = serve("info", LogFormat::Pretty, Some("http://127.0.0.1:4318")).unwrap_err().to_string();
        assert!(error.starts_with("this program cannot send spans; build it with `--features otlp`"), "{error}");
        assert!(CHANGE.get().is_none(), "nothing is logged");
    }

    #[test]
    fn a_level_that_does_not_exist_is_refused_with_the_variable_and_the_fix() {
        let error = chosen("info", |name| (name == "BELLROPE_LOG").then(|| "bellrope=loud".to_owned())).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(r#"BELLROPE_LOG is "bellrope=loud"; set it to error, warn,"#), "{text}");
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_instead_of_turning_the_log_off() {
        for (text, meant) in [
            ("warning", Some("warn")),
            ("inof", Some("info")),
            ("err", Some("error")),
            ("verbose", None),
            ("debug,warning", Some("warn")),
            ("hyper", None),
        ] {
            let fix = filter(text).unwrap_err();
            assert!(fix.contains(" is no level; set it to error, warn, "), "{fix}");
            let hint = meant.map(|level| format!("(did you mean {level}?)"));
            assert_eq!(fix.contains("did you mean"), hint.is_some(), "{fix}");
            assert!(hint.is_none_or(|hint| fix.contains(&hint)), "{fix}");
        }
        assert!(filter("hyper=trace").is_ok() && filter("bellrope::server").is_ok() && filter("WARN").is_ok());
        // Other programs' targets may stand in a variable that is theirs, too.
        assert!(chosen("info", |name| (name == "RUST_LOG").then(|| "my_program".to_owned())).is_ok());
        assert!(chosen("info", |name| (name == "BELLROPE_LOG").then(|| "my_program".to_owned())).is_err());
    }

    #[test]
    fn levels_and_pairs_are_taken_with_blanks_and_empty_parts() {
        let of = |text: &str| filter(text).unwrap();
        for (text, target, most) in [
            ("", "bellrope", LevelFilter::ERROR),
            (" , ", "bellrope", LevelFilter::ERROR),
            ("warn", "bellrope", LevelFilter::WARN),
            ("3", "bellrope", LevelFilter::INFO),
            ("off", "bellrope", LevelFilter::OFF),
            ("info,", "bellrope", LevelFilter::INFO),
            ("warn, bellrope=debug", "bellrope::server", LevelFilter::DEBUG),
            ("warn, bellrope=debug", "hyper", LevelFilter::WARN),
            ("bellrope=", "bellrope", LevelFilter::TRACE),
            ("bellrope", "bellrope", LevelFilter::TRACE),
            ("bellrope", "hyper", LevelFilter::OFF),
            ("info", "async_nats", LevelFilter::WARN),
            ("info, async_nats=info", "async_nats", LevelFilter::INFO),
            ("debug", "async_nats", LevelFilter::DEBUG),
            ("error", "async_nats", LevelFilter::ERROR),
        ] {
            let filter = of(text);
            for level in [tracing::Level::ERROR, tracing::Level::WARN, tracing::Level::INFO, tracing::Level::DEBUG] {
                assert_eq!(filter.would_enable(target, &level), level <= most, "{text:?}: {target} at {level}");
            }
        }
    }

    #[test]
    fn spans_and_fields_are_refused_with_the_setting_that_names_them() {
        for text in ["bellrope[call]=debug", "[call]", "warn,[{connection}]=trace", "bellrope[call{a=1}]=debug"] {
            let error = chosen("info", |name| (name == "RUST_LOG").then(|| text.to_owned())).unwrap_err().to_string();
            assert!(error.starts_with("RUST_LOG is ") && error.contains("names spans or fields"), "{error}");
        }
        assert!(filter("*").is_err() && filter("a=debug=info").is_err());
    }
}
