//! How long a provider asks to wait, in the many forms in which providers say it.

use std::time::{Duration, SystemTime};

use bellrope::date::Date;
use reqwest::header::HeaderMap;

/// Numbers from here on are moments rather than lengths of time: seconds since 1970, and below milliseconds.
const EPOCH_SECONDS: f64 = 1e9;
const EPOCH_MILLIS: f64 = 1e12;

/// What is longer is no time that anybody waits, and is told as this.
const LONGEST: Duration = Duration::from_secs(31 * 24 * 60 * 60);

/// What limits are called in headers: how much is left, and when there will be more.
const LIMITS: [(&str, &str); 8] = [
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("ratelimit-remaining", "ratelimit-reset"),
];

/// What comes before a length of time in the words of an error, in small letters.
const PHRASES: [&str; 8] = [
    "try again in ",
    "try again after ",
    "retry in ",
    "retry after ",
    "wait for ",
    "please wait ",
    "\"retrydelay\":",
    "\"retry_after\":",
];

/// How long the provider asks to wait: `retry-after-ms`, then `retry-after` in seconds or as a date. If it says neither and
/// refuses because it is asked too much, the moment at which a limit that is used up is reset, or what its words say.
pub(super) fn asked_delay(status: u16, headers: &HeaderMap, words: &str, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let asked = match text("retry-after-ms").and_then(|ms| ms.parse::<f64>().ok()) {
        Some(ms) => Duration::try_from_secs_f64(ms / 1000.0).ok(),
        None => text("retry-after").and_then(|text| until(text, now)),
    };
    let positive = |asked: &Duration| !asked.is_zero();
    let asked = asked.filter(positive).or_else(|| {
        matches!(status, 429 | 503 | 529).then(|| reset(&text, now).or_else(|| in_words(words)))?.filter(positive)
    });
    asked.map(|asked| asked.min(LONGEST))
}

/// When the limits are reset that are used up; of those that do not say how much is left, when all are.
fn reset<'a>(text: &impl Fn(&str) -> Option<&'a str>, now: SystemTime) -> Option<Duration> {
    let resets = LIMITS.iter().filter_map(|(left, reset)| {
        let is_used_up = text(left).is_none_or(|left| left.parse::<f64>().is_ok_and(|left| left <= 0.0));
        text(reset).filter(|_| is_used_up).and_then(|reset| until(reset, now))
    });
    resets.max()
}

/// The time until what a header says: a number of seconds, a moment, or a length such as `1m30.5s`.
fn until(text: &str, now: SystemTime) -> Option<Duration> {
    let since_epoch = |length: Duration| SystemTime::UNIX_EPOCH.checked_add(length)?.duration_since(now).ok();
    match text.parse::<f64>() {
        Ok(number) if number >= EPOCH_MILLIS => since_epoch(Duration::try_from_secs_f64(number / 1000.0).ok()?),
        Ok(number) if number >= EPOCH_SECONDS => since_epoch(Duration::try_from_secs_f64(number).ok()?),
        Ok(number) => Duration::try_from_secs_f64(number).ok(),
        Err(_) => {
            let moment = httpdate::parse_http_date(text).ok().or_else(|| rfc_3339(text));
            moment.map_or_else(|| length(text), |moment| moment.duration_since(now).ok())
        }
    }
}

/// A moment as in `2026-11-29T22:50:00Z`; fractions of a second are left out.
fn rfc_3339(text: &str) -> Option<SystemTime> {
    let two = |text: &str, from: usize, below: u64| {
        let digits = text.get(from..from + 2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        digits.parse().ok().filter(|number: &u64| *number < below)
    };
    let mark = |at: usize, mark: u8| text.as_bytes().get(at).is_some_and(|byte| byte.eq_ignore_ascii_case(&mark));
    if ![(10, b'T'), (13, b':'), (16, b':')].iter().all(|&(at, byte)| mark(at, byte)) {
        return None;
    }
    let days = u64::try_from(Date::parse(text.get(..10)?)?.number()).ok()?;
    // A minute may have a leap second.
    let seconds = days * 86_400 + two(text, 11, 24)? * 3_600 + two(text, 14, 60)? * 60 + two(text, 17, 61)?;
    let zone = text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let away = |zone: &str| Some(two(zone, 0, 24)? * 3_600 + two(zone, 3, 60)? * 60);
    let seconds = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => seconds,
        ("+", zone) => seconds.checked_sub(away(zone)?)?,
        ("-", zone) => seconds + away(zone)?,
        _ => return None,
    };
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// The first length of time that the words of an error ask for.
fn in_words(words: &str) -> Option<Duration> {
    let words = words.to_ascii_lowercase();
    PHRASES.iter().find_map(|phrase| {
        let at = words.find(phrase)? + phrase.len();
        length(words[at..].trim_start_matches([' ', '"', '~']))
    })
}

/// A length of time at the beginning of a text: `20s`, `1m30.5s`, `6m0s`, `120ms`, `2 minutes`. A number without a unit is
/// of seconds.
fn length(text: &str) -> Option<Duration> {
    let (mut whole, mut rest, mut first) = (Duration::ZERO, text, true);
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let Ok(number) = rest[..digits].trim_end_matches('.').parse::<f64>() else { break };
        let after = rest[digits..].trim_start_matches(' ');
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let unit = match after[..letters].to_ascii_lowercase().as_str() {
            "ms" | "milliseconds" => 0.001,
            "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hour" | "hours" => 3_600.0,
            "d" | "day" | "days" => 86_400.0,
            _ if first => 1.0,
            _ => break,
        };
        whole = whole.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
        (rest, first) = (after[letters..].trim_start_matches(' '), false);
    }
    (!first).then_some(whole)
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const NOW: u64 = 784_111_777;

    fn asked(status: u16, pairs: &[(&'static str, &'static str)], words: &str) -> Option<Duration> {
        let pairs = pairs.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        asked_delay(status, &pairs.collect(), words, SystemTime::UNIX_EPOCH + Duration::from_secs(NOW))
    }

    #[test]
    fn the_pause_asked_for_is_read_in_all_its_forms() {
        for (name, value, ms) in [
            ("retry-after-ms", "120", 120),
            ("retry-after", "7", 7_000),
            ("retry-after", "1.5", 1_500),
            ("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT", 10_000),
            ("retry-after", "1m5s", 65_000),
            ("x-ratelimit-reset-requests", "6m0s", 360_000),
            ("x-ratelimit-reset-tokens", "120ms", 120),
            ("x-ratelimit-reset", "12", 12_000),
            ("ratelimit-reset", "30", 30_000),
            ("anthropic-ratelimit-requests-reset", "1994-11-06T08:49:47Z", 10_000),
            ("anthropic-ratelimit-tokens-reset", "1994-11-06T10:49:47.25+02:00", 10_000),
        ] {
            assert_eq!(asked(429, &[(name, value)], ""), Some(Duration::from_millis(ms)), "{name}: {value}");
        }
        for far in ["99999999999999999999", "1e18", "Sat, 06 Nov 2094 08:49:37 GMT"] {
            assert_eq!(asked(429, &[("retry-after", far)], ""), Some(LONGEST), "{far}");
        }
        let both = [("retry-after-ms", "120"), ("retry-after", "7")];
        assert_eq!(asked(429, &both, ""), Some(Duration::from_millis(120)));
        for nonsense in ["", "soon", "-3", "NaN", "inf", "1e300", "0", "Sun, 06 Nov 1984 08:49:47 GMT", "784111776"] {
            assert_eq!(
                asked(429, &[("retry-after", nonsense)], "").filter(|asked| asked.as_secs() < 1_000),
                None,
                "{nonsense}"
            );
        }
    }

    #[test]
    fn a_moment_is_read_in_seconds_and_in_milliseconds() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        assert_eq!(until("1800000009", now), Some(Duration::from_secs(9)));
        assert_eq!(until("1800000009500", now), Some(Duration::from_millis(9_500)));
        assert_eq!(until("1799999999", now), None);
        assert_eq!(rfc_3339("2027-01-15T08:00:00Z"), Some(now));
        assert_eq!(rfc_3339("2000-02-29T00:00:00Z"), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(951_782_400)));
        for wrong in [
            "2027-13-01T00:00:00Z",
            "2027-01-15",
            "2027-01-15T08:00:00",
            "é027-01-15T08:00:00Z",
            "2027-01-15T08:00:00+x",
            "2027-02-29T08:00:00Z",
            "2027-02-31T08:00:00Z",
            "2027-01-15T29:99:00Z",
            "+027-01-15T08:00:00Z",
            "2027-01-15T+8:00:00Z",
        ] {
            assert_eq!(rfc_3339(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn of_several_limits_the_one_that_is_used_up_counts() {
        let limits = [
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "2s"),
            ("x-ratelimit-remaining-tokens", "900"),
            ("x-ratelimit-reset-tokens", "8h"),
        ];
        assert_eq!(asked(429, &limits, ""), Some(Duration::from_secs(2)));
        assert_eq!(asked(429, &limits[2..], ""), None);
        assert_eq!(asked(400, &limits, ""), None, "it is not refused for a limit");
    }

    #[test]
    fn the_words_of_an_error_tell_the_time_too() {
        for (words, ms) in [
            ("Rate limit reached for gpt-4o. Please try again in 20s. Visit", 20_000),
            ("Please try again in 1m30.5s.", 90_500),
            ("Please try again in 6ms", 6),
            ("Please retry in 41.92s.", 41_920),
            ("please wait 2 minutes", 120_000),
            ("Too fast: retry after 30 seconds", 30_000),
            (r#"{"error":{"details":[{"retryDelay": "12s"}]}}"#, 12_000),
            (r#"{"retry_after":5}"#, 5_000),
        ] {
            assert_eq!(asked(429, &[], words), Some(Duration::from_millis(ms)), "{words}");
            assert_eq!(asked(529, &[], words), Some(Duration::from_millis(ms)), "{words}");
            assert_eq!(asked(500, &[], words), None, "{words}");
        }
        for words in ["", "try again in ", "try again in a while", "retry after é", "wait for .", "try again later"] {
            assert_eq!(asked(429, &[], words), None, "{words}");
        }
        let huge = format!("try again in {}s", "9".repeat(400));
        assert_eq!(asked(429, &[], &huge), None);
    }
}
