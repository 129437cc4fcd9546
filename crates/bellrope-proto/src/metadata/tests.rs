use proptest::prelude::*;

use super::*;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn what_a_caller_says_survives_the_way_and_stays_in_its_bound() {
    let said = Metadata::new().own(127, b"last").unwrap().caller("me").unwrap().session("s\u{fc}").unwrap();
    let said = said.trace(PARENT.parse().unwrap()).unwrap().session("another").unwrap();
    let again = Metadata::decode(said.entries()).unwrap();
    assert_eq!(again, said);
    assert_eq!(again.trace_context().unwrap().to_string(), PARENT);
    assert_eq!([again.session_text(), again.caller_text()], [Some("another"), Some("me")]);
    assert_eq!((again.own_value(127), again.own_value(128)), (Some(&b"last"[..]), None));
    let shown = Metadata::new().token("brt_secret").unwrap().vouched("token tool").unwrap();
    assert_eq!([shown.token_text(), shown.vouched_text()], [Some("brt_secret"), Some("token tool")]);
    assert!(!format!("{shown:?}").contains("98, 114"), "{shown:?}");
    let largest = Metadata::new().own(0, &[7; 252]).unwrap();
    assert_eq!(largest.size(), MAX_METADATA);
    assert_eq!(largest.own(1, b"").unwrap_err(), MetadataError::TooLarge { size: 256, limit: 254 });
    assert_eq!(Metadata::new().own(128, b"").unwrap_err(), MetadataError::Key(128));
    for text in ["", "line\nbreak", &"x".repeat(129)] {
        assert_eq!(Metadata::new().session(text).unwrap_err(), MetadataError::Text);
    }
}

#[test]
fn a_trace_context_is_read_as_the_w3c_has_it() {
    for good in [PARENT, "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-will-be"] {
        let trace: TraceContext = good.parse().unwrap();
        assert_eq!((trace.to_string().as_str(), trace.flags()), (PARENT, 1));
    }
    for bad in [
        "",
        "00",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ] {
        assert_eq!(bad.parse::<TraceContext>(), Err(MetadataError::Trace), "{bad}");
    }
}

#[test]
fn what_cannot_be_a_block_is_a_violation_and_what_means_nothing_is_passed_over() {
    let size = |len: u16, payload| Metadata::size_of(len.to_le_bytes(), payload);
    assert_eq!((size(1, 100), size(254, 300)), (Ok(3), Ok(256)));
    for (len, payload) in [(0, 100), (255, 300), (u16::MAX, 70_000), (10, 11)] {
        assert_eq!(size(len, payload), Err(Violation::Metadata("length")), "{len} {payload}");
    }
    let fault = |entries: &[u8]| match Metadata::decode(entries) {
        Err(Violation::Metadata(what)) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!([fault(&[2]), fault(&[2, 3, 0, 0])], ["entry"; 2]);
    assert_eq!([fault(&[0, 0]), fault(&[2, 0, 2, 0]), fault(&[3, 0, 2, 0])], ["key"; 3]);
    let mut odd = vec![1, 25];
    odd.extend([0; 25]);
    odd.extend([2, 1, 0xFF, 3, 1, b'\n', 77, 0, 200, 0]);
    let odd = Metadata::decode(&odd).unwrap();
    assert_eq!((odd.trace_context(), odd.session_text(), odd.caller_text()), (None, None, None));
    assert_eq!(odd.own_value(72), Some(&b""[..]));
}

proptest! {
    #[test]
    fn hostile_blocks_never_panic(entries in prop::collection::vec(any::<u8>(), 0..254)) {
        if let Ok(metadata) = Metadata::decode(&entries) {
            let _ = (metadata.trace_context(), metadata.session_text(), metadata.caller_text());
            let _ = (metadata.token_text(), metadata.vouched_text());
            prop_assert_eq!(metadata.entries(), &entries[..]);
            prop_assert!((0..=127).all(|key| metadata.own_value(key).is_none_or(|value| value.len() < 254)));
        }
    }
}
