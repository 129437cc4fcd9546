//! Single messages: a record's header, and what the two sides say before there is a ring.

use bellrope_proto::{
    frame::{ErrorCode, Header, RawHeader, Rejection},
    handshake::{
        ANSWER_HEAD_LEN, AnswerHead, HELLO_LEN, HandshakeError, Hello, MAX_BODY, MAX_NAME, Status, encode_refusal,
    },
    layout::{CAPACITIES, RECORD_HEAD, WORD},
};

/// A header is refused, or is the very word that it came from, and its record is whole words that hold its payload.
pub fn frame(input: &[u8]) {
    for word in input.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes"))) {
        if let Ok(header) = Header::try_from(RawHeader(word)) {
            assert_eq!(header.encode(), word);
            let size = header.record_size();
            assert!(size >= RECORD_HEAD + u64::from(header.len) && size.is_multiple_of(WORD), "{size}");
            let code = ErrorCode::from_bits(header.message_type);
            assert_eq!(code.to_bits(), header.message_type);
            assert!(!code.to_string().is_empty());
        }
        let (reason, after) = Rejection::from_detail(word);
        assert_eq!(Rejection::from_detail(reason.to_detail(after)), (reason, after));
    }
}

/// What is understood of a handshake is within its limits and fit for a log, and says the same when it is said again. The
/// first byte of the input chooses who speaks.
pub fn handshake(input: &[u8]) {
    match input.split_first() {
        Some((speaker, rest)) if speaker % 2 == 0 => hello(rest),
        Some((_, rest)) => answer(rest),
        None => {}
    }
}

fn hello(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk::<HELLO_LEN>() else { return };
    let Ok(hello) = Hello::decode(bytes) else { return };
    // Bytes that are no text become a mark of three bytes each.
    assert!(hello.name.len() <= 3 * MAX_NAME && !hello.name.contains(char::is_control), "{hello:?}");
    if hello.name.len() <= MAX_NAME {
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }
}

fn answer(bytes: &[u8]) {
    let Some((head, rest)) = bytes.split_first_chunk::<ANSWER_HEAD_LEN>() else { return };
    let Ok(head) = AnswerHead::decode(head) else { return };
    assert!(head.body_len() <= MAX_BODY);
    // A body that is cut off is what a reader never hands on; here it is as good as any other.
    let body = &rest[..rest.len().min(head.body_len())];
    match head.with_body(body) {
        Ok(welcome) => {
            let capacity = u32::try_from(welcome.terms.geometry.capacity).expect("a capacity");
            assert!(capacity.is_power_of_two() && CAPACITIES.contains(&capacity));
            assert!(welcome.terms.max_record() <= capacity as usize / 4 && welcome.terms.max_in_flight > 0);
            assert!(welcome.types.iter().all(|entry| (1..=255).contains(&entry.name.len())));
            let bytes = welcome.encode();
            let (head, body) = bytes.split_first_chunk::<ANSWER_HEAD_LEN>().expect("a whole head");
            assert_eq!(AnswerHead::decode(head).and_then(|head| head.with_body(body)), Ok(welcome));
        }
        Err(HandshakeError::Refused { status, text }) => {
            assert!(status != Status::Accepted && !text.contains(char::is_control) && text.chars().count() <= 512);
            let bytes = encode_refusal(status, &text);
            let (head, body) = bytes.split_first_chunk::<ANSWER_HEAD_LEN>().expect("a whole head");
            let again = AnswerHead::decode(head).and_then(|head| head.with_body(body));
            assert_eq!(again, Err(HandshakeError::Refused { status, text }));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
