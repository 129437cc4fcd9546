//! Single messages: a record's header, and what the two sides say before there is a ring.

use bellrope_proto::{
    frame::{ErrorCode, Header, RawHeader, Rejection},
    handshake::{
        ANSWER_HEAD_LEN, AnswerHead, HELLO_LEN, HandshakeError, HandshakeStatus, Hello, MAX_BODY, MAX_NAME, MAX_TYPES,
        PAGE_HEAD_LEN, TABLE, encode_refusal,
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

/// A table is within its limits after each page and each change, and one that came whole travels as it is.
fn table(head: AnswerHead, body: &[u8], mut rest: &[u8]) {
    let Ok((mut welcome, mut pages)) = head.begin(body) else { return };
    while !pages.is_whole() {
        let Some((head, behind)) = rest.split_first_chunk::<PAGE_HEAD_LEN>() else { return };
        let Ok(head) = pages.head(head) else { return };
        assert!((1..=MAX_BODY).contains(&head.len()));
        let (page, behind) = behind.split_at(head.len().min(behind.len()));
        if pages.page(head, page, &mut welcome.types).is_err() {
            return;
        }
        rest = behind;
    }
    let asked = welcome.features & TABLE != 0;
    assert!(!asked || welcome.types.len() <= MAX_TYPES);
    let (again, of_pages) = (welcome.encode(), welcome.encode_pages());
    assert!(asked || of_pages.is_empty());
    assert!(again.len() <= ANSWER_HEAD_LEN + MAX_BODY);
    while let Some((len, behind)) = rest.split_first() {
        let (change, behind) = behind.split_at(usize::from(*len).min(behind.len()));
        let known = welcome.types.len() as u64;
        let changed =
            (0..3).any(|entries| pages.clone().change(change, known + entries, &mut welcome.types.clone()).is_ok());
        if changed && pages.change(change, known + 1, &mut welcome.types).is_err() {
            return;
        }
        assert!(!asked || welcome.types.len() <= MAX_TYPES);
        rest = behind;
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
    table(head, body, &rest[body.len()..]);
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
            assert!(
                status != HandshakeStatus::Accepted && !text.contains(char::is_control) && text.chars().count() <= 512
            );
            let bytes = encode_refusal(status, &text);
            let (head, body) = bytes.split_first_chunk::<ANSWER_HEAD_LEN>().expect("a whole head");
            let again = AnswerHead::decode(head).and_then(|head| head.with_body(body));
            assert_eq!(again, Err(HandshakeError::Refused { status, text }));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
