//! The address of a provider, as people write it.

use reqwest::Url;

/// Paths of requests, which an address does not end with.
const REQUESTS: [&str; 5] = ["/chat/completions", "/completions", "/responses", "/messages", "/embeddings"];

/// The base address of an API, as people write it: with or without a slash at the end, without the path (`/v1` is added
/// then), or with the path of a request (`suffix`, taken off). `Err` is what should be right.
pub(super) fn parse_base(text: &str, suffix: &str) -> Result<Url, &'static str> {
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
    if path.contains("/v1/v1") {
        return Err("holds /v1 twice; end it with /v1 once");
    }
    if REQUESTS.iter().any(|request| path.ends_with(request)) {
        return Err("ends with the path of a request of another kind; end it with /v1, or set the kind that speaks it");
    }
    let path = if path.is_empty() { "/v1".to_owned() } else { path.to_owned() };
    url.set_path(&path);
    Ok(url)
}

/// Adds a segment to the address's path.
pub(super) fn push_segment(url: &mut Url, segment: &str) {
    let path = format!("{}/{segment}", url.path().trim_end_matches('/'));
    url.set_path(&path);
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
        for (wrong, said) in [
            ("https://host/v1/v1/", "holds /v1 twice"),
            ("https://host/v1/v1/chat/completions", "holds /v1 twice"),
            ("https://host/v1/messages", "ends with the path of a request"),
            ("https://host/v1/completions/", "ends with the path of a request"),
            ("host:8080/v1", "must start with http://"),
            ("http://ho st/v1", "is not an address"),
        ] {
            assert!(parse_base(wrong, "/chat/completions").unwrap_err().starts_with(said), "{wrong}");
        }
        for wrong in ["", "api.openai.com", "ftp://host/v1", "https://", "https://user:word@host/v1", "file:///v1"] {
            assert!(parse_base(wrong, "/chat/completions").is_err(), "{wrong}");
        }
    }
}
