use super::*;

// Fault 48.
#[test]
fn an_excerpt_is_bounded_and_escaped() {
    let long = Excerpt::new(&"\u{202e}é".repeat(10_000));
    assert!(long.as_str().chars().count() <= MAX_EXCERPT, "{}", long.as_str().chars().count());
    assert!(long.as_str().ends_with('…'));
    assert!(!long.as_str().contains('\u{202e}'));
    assert_eq!(Excerpt::new("a\r\nb\0").as_str(), r"a\r\nb\u{0}");
}

#[test]
fn errors_say_what_to_do_and_fit_into_a_chunk() {
    let error = ProviderError::Refused {
        status: 401,
        code: Some("invalid_api_key".into()),
        message: "Incorrect API key".into(),
        retry_after: None,
        retryable: false,
        fix: Some("check OPENAI_API_KEY".into()),
    };
    assert_eq!(error.blame(), Blame::Configuration);
    let Chunk::Error(info) = Chunk::from(error) else { panic!("not an error") };
    assert_eq!(info.code, "authentication");
    assert_eq!(info.message, "the provider answered 401 (invalid_api_key): Incorrect API key; check OPENAI_API_KEY");
}

#[test]
fn a_time_out_says_what_did_not_come() {
    for (phase, expected) in [
        (Phase::Connect, "a connection"),
        (Phase::FirstByte, "the head of the response"),
        (Phase::Idle, "the next byte"),
        (Phase::Event, "the next piece of the answer"),
    ] {
        let error = ProviderError::TimedOut { phase, after: Duration::from_secs(2) };
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.fix(), None);
    }
}

#[test]
fn whoever_knows_the_fix_tells_it_apart_too() {
    let (fix, retry_after) = ("set SOME_LIMIT", Duration::from_secs(1));
    for error in [
        ProviderError::Limited { provider: "x".into(), limit: 6, retry_after, fix: fix.into() },
        ProviderError::Connect { reason: "refused".into(), fix: fix.into(), retryable: true },
    ] {
        assert_eq!(error.fix(), Some(fix), "{error}");
    }
}

#[test]
fn a_refusal_is_named_after_its_status() {
    for (status, name) in [
        (307, "unexpected_content"),
        (401, "authentication"),
        (408, "timeout"),
        (418, "invalid_request"),
        (429, "rate_limited"),
        (500, "provider_error"),
        (504, "timeout"),
        (529, "overloaded"),
    ] {
        let (code, fix) = (None, None);
        let error =
            ProviderError::Refused { status, code, message: "".into(), retry_after: None, retryable: false, fix };
        assert_eq!(error.code(), name, "{status}");
    }
}

#[test]
fn an_unknown_provider_lists_the_known_ones() {
    let error = ProviderError::UnknownProvider { name: "x\n".into(), known: vec!["a".into(), "b".into()] };
    assert_eq!(error.to_string(), "there is no provider `x`; known: a, b");
}
