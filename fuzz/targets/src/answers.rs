//! What a provider sends: events, and the answers that they carry.

use std::collections::VecDeque;

use bellrope_gateway::formats::{Progress, Translate, chat_completions, messages, responses};
use bellrope_gateway::sse::{SseDecoder, SseError, SseEvent};
use bellrope_gateway::{Chunk, Excerpt};

/// Limits that small inputs reach.
const MAX_LINE: usize = 64;
const MAX_EVENT: usize = 128;

/// Events, or why there are no more, are the same however the bytes are cut, and keep to the limits. The first byte of
/// the input says how it is cut.
pub fn sse(input: &[u8]) {
    let Some((&seed, bytes)) = input.split_first() else { return };
    let whole = events(std::iter::once(bytes));
    assert_eq!(events(bytes.chunks(1)), whole, "byte by byte");
    assert_eq!(events(bytes.chunks(usize::from(seed) + 1)), whole, "in pieces of {}", usize::from(seed) + 1);
    for (name, data) in whole.0 {
        assert!(name.len() <= 3 * MAX_LINE && data.len() <= MAX_EVENT, "{} and {}", name.len(), data.len());
    }
}

/// Every answer ends at most once, with nothing after the end, without empty pieces, and all that came before an error
/// stays. The first byte of the input chooses the format.
pub fn answers(input: &[u8]) {
    let Some((&format, mut bytes)) = input.split_first() else { return };
    let mut translator: Box<dyn Translate> = match format % 3 {
        0 => Box::new(chat_completions::Translator::default()),
        1 => Box::new(responses::Translator::default()),
        _ => Box::new(messages::Translator::default()),
    };
    let mut decoder = SseDecoder::default();
    let mut chunks = VecDeque::new();
    let mut ended = None;
    while ended.is_none() {
        ended = match decoder.push(&mut bytes) {
            Ok(true) => match translator.event(decoder.event(), &mut chunks) {
                Ok(Progress::Continues) => None,
                Ok(Progress::Ended) => Some(true),
                Err(_) => Some(false),
            },
            Ok(false) => {
                let unfinished = decoder.finish().expect("what was taken in keeps to the limits");
                let unfinished = unfinished.then(|| decoder.event());
                Some(translator.end(unfinished, Excerpt::new("fin"), &mut chunks).is_ok())
            }
            Err(_) => Some(false),
        };
    }
    let terminal = chunks.iter().filter(|chunk| chunk.is_terminal()).count();
    assert_eq!(terminal == 1, ended == Some(true), "{chunks:?}");
    assert!(terminal == 0 || (terminal == 1 && chunks.back().is_some_and(Chunk::is_terminal)), "{chunks:?}");
    for chunk in &chunks {
        assert!(!matches!(chunk, Chunk::Text { text } | Chunk::Reasoning { text } if text.is_empty()), "{chunks:?}");
    }
}

type Events = (Vec<(String, String)>, Result<(), SseError>);

fn events<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Events {
    let mut decoder = SseDecoder::with_limits(MAX_LINE, MAX_EVENT);
    let mut seen = Vec::new();
    let outcome = decode(&mut decoder, pieces, |event| seen.push((event.name.to_owned(), event.data.to_owned())));
    (seen, outcome)
}

fn decode<'a>(
    decoder: &mut SseDecoder,
    pieces: impl Iterator<Item = &'a [u8]>,
    mut see: impl FnMut(SseEvent<'_>),
) -> Result<(), SseError> {
    for mut piece in pieces {
        while decoder.push(&mut piece)? {
            see(decoder.event());
        }
    }
    if decoder.finish()? {
        see(decoder.event());
    }
    Ok(())
}
