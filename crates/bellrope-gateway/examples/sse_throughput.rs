//! How fast the event stream of an answer is read: `cargo run --release -p bellrope-gateway --example sse_throughput`.
//!
//! Prints, for each wire format, megabytes and events a second of the decoder alone, and of the decoder with the
//! translation into chunks behind it. The bytes come in pieces as from a socket, of 16 KiB.

use std::collections::VecDeque;
use std::io::Write;
use std::time::{Duration, Instant};

use bellrope_gateway::formats::{Translate, chat_completions, messages, responses};
use bellrope_gateway::sse::SseDecoder;

/// What a socket gives at once, in bytes.
const PIECE: usize = 16 * 1024;

/// How long each row is measured.
const SPAN: Duration = Duration::from_secs(1);

/// Events of each format that say a word, as their inventors send them.
const EVENTS: [(&str, &str); 3] = [
    (
        "chat completions",
        "data: {\"id\":\"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"object\":\"chat.completion.chunk\",\
         \"created\":1741569952,\"model\":\"gpt-5-mini\",\"system_fingerprint\":\"fp_44709d6fcb\",\"choices\":[{\
         \"index\":0,\"delta\":{\"content\":\" bell\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n",
    ),
    (
        "responses",
        "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\
         \"item_id\":\"msg_67c9fdcf37fc8190ba82116e33fb28c507b8b0ad4e5eb654\",\"output_index\":0,\"content_index\":0,\
         \"delta\":\" bell\",\"sequence_number\":12}\n\n",
    ),
    (
        "messages",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\
         \"type\":\"text_delta\",\"text\":\" bell\"}}\n\n",
    ),
];

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{:<18} {:>14} {:>14} {:>14} {:>14}",
        "format", "decode MB/s", "decode Mev/s", "chunks MB/s", "chunks Mev/s"
    )?;
    for (format, event) in EVENTS {
        let bytes = event.repeat((4 << 20) / event.len()).into_bytes();
        let (decoded, decoded_events) = rate(&bytes, || None);
        let (translated, translated_events) = rate(&bytes, || {
            Some(match format {
                "chat completions" => Box::new(chat_completions::Translator::default()) as Box<dyn Translate>,
                "responses" => Box::new(responses::Translator::default()),
                _ => Box::new(messages::Translator::default()),
            })
        });
        writeln!(
            out,
            "{format:<18} {decoded:>14.0} {decoded_events:>14.2} {translated:>14.0} {translated_events:>14.2}"
        )?;
    }
    Ok(())
}

/// Megabytes and millions of events a second.
fn rate(bytes: &[u8], translator: impl Fn() -> Option<Box<dyn Translate>>) -> (f64, f64) {
    let started = Instant::now();
    let (mut taken, mut events) = (0, 0);
    let mut chunks = VecDeque::new();
    while started.elapsed() < SPAN {
        let mut decoder = SseDecoder::default();
        let mut translator = translator();
        for mut piece in bytes.chunks(PIECE) {
            while decoder.push(&mut piece).expect("events within the limits") {
                events += 1;
                let event = std::hint::black_box(decoder.event());
                if let Some(translator) = &mut translator {
                    translator.event(event, &mut chunks).expect("events of the format");
                    chunks.clear();
                }
            }
        }
        taken += bytes.len();
    }
    let seconds = started.elapsed().as_secs_f64() * 1e6;
    (taken as f64 / seconds, f64::from(events) / seconds)
}
