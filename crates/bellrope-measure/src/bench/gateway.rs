//! What the gateway adds to a chunk on its way from the provider's socket to the editor, and how many chunks a second one
//! stream carries. Provider and editor are threads of this process, the server is a child; beside it, in the same run,
//! the same chunks are read by a bare HTTP client.

pub(super) mod provider;

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bellrope::{Client, client::ClientConfig};
use bellrope_gateway::{ChatRequest, Chunk, SequencedChunk};
use bellrope_shm::clock;
use bellrope_terminal::{Outcome, ProgressBar, output};
use clap::Args;
use serde::Serialize;

use self::provider::{DirectAnswer, Pace, Provider};
use super::{
    args::SpanArgs,
    samples::{Percentiles, Samples, median},
};
use crate::server_process::{ServerProcess, pin_client};

/// Runs whose median is reported.
const RUNS: u32 = 5;
/// Chunks of a stream that are not counted: connections, caches and branch predictors get warm.
const WARM_UP: usize = 50;
/// The most the gateway is to add to a chunk at p50, in microseconds.
const GOAL_P50_US: f64 = 50.0;
/// The least chunks a second one stream is to carry.
const GOAL_CHUNKS_PER_S: f64 = 100_000.0;

const HELP: &str = r#"Examples:
  bellrope bench gateway
  bellrope bench gateway --quick --json

Each chunk holds the reading of the clock at which it was written to the provider's socket. Times and rates of a bare HTTP
client that reads the same provider are those of the machine: what is left is the gateway's."#;

/// How to measure the gateway.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = HELP,
    mut_arg("seconds", |arg| {
        arg.required(false).default_value("20").help("Seconds to measure: half of it with single chunks, half with a full stream")
    }),
    mut_arg("quick", |arg| arg.help("Measure for 4 seconds in all, if less exactly"))
)]
pub struct GatewayArgs {
    /// Microseconds between two single chunks.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pace: u32,
    /// Put client and server on one CPU each, instead of where the scheduler puts them. Then the two threads of the server
    /// that a chunk passes through share one.
    #[arg(long)]
    pin: bool,
    #[command(flatten)]
    pub(super) span: SpanArgs,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct GatewayReport {
    /// Whether client and server had one CPU each.
    pinned: bool,
    /// Time between two single chunks.
    pace_us: u32,
    /// Single chunks measured, through the gateway and as many without it.
    chunks: usize,
    /// From the provider's socket to the editor.
    through_gateway: Percentiles,
    /// From the provider's socket to a bare HTTP client.
    direct: Percentiles,
    /// What the gateway adds.
    added_p50_us: f64,
    added_p99_us: f64,
    goal_added_p50_us: f64,
    /// Chunks a second of one stream without pauses.
    chunks_per_s: f64,
    /// The same as a bare HTTP client reads it.
    direct_chunks_per_s: f64,
    goal_chunks_per_s: f64,
}

/// Measures the gateway and the limit in turns, so that both see the same machine.
pub(super) fn measure(args: &GatewayArgs, progress: bool) -> anyhow::Result<GatewayReport> {
    let provider = Provider::start().context("starting a provider on the loopback address")?;
    let server = ServerProcess::start_asking(args.pin, &provider.url())?;
    // The provider's threads begin with their connections.
    pin_client(args.pin)?;
    let client = Client::with(ClientConfig::new(server.socket()))?;
    // Four measurements a run.
    let time = args.span.time_or(4.0) / (4 * RUNS);
    let single = Pace::Single { pause: Duration::from_micros(args.pace.into()) };

    let bar = ProgressBar::new(progress, "gateway", (4 * RUNS).into());
    let (mut through, mut direct, mut rates, mut direct_rates, mut chunks) = (vec![], vec![], vec![], vec![], 0);
    for _ in 0..RUNS {
        let samples = delays(direct_texts(&provider, single, time)?)?;
        direct.push(samples.percentiles());
        bar.step();
        let samples = delays(paced_texts(&client, &provider, "openai", single, time)?)?;
        chunks += samples.len();
        through.push(samples.percentiles());
        bar.step();
        direct_rates.push(rate(direct_texts(&provider, Pace::Full, time)?)?);
        bar.step();
        rates.push(rate(paced_texts(&client, &provider, "openai", Pace::Full, time)?)?);
        bar.step();
    }
    let (through, direct) = (median(&through), median(&direct));
    Ok(GatewayReport {
        pinned: args.pin,
        pace_us: args.pace,
        chunks,
        added_p50_us: through.p50_us - direct.p50_us,
        added_p99_us: through.p99_us - direct.p99_us,
        through_gateway: through,
        direct,
        goal_added_p50_us: GOAL_P50_US,
        chunks_per_s: middle(rates),
        direct_chunks_per_s: middle(direct_rates),
        goal_chunks_per_s: GOAL_CHUNKS_PER_S,
    })
}

/// The texts of an answer, as the editor gets them from the server's provider `name`.
pub(super) fn paced_texts<'a>(
    client: &Client,
    provider: &'a Provider,
    name: &str,
    pace: Pace,
    time: Duration,
) -> anyhow::Result<impl Iterator<Item = anyhow::Result<String>> + use<'a>> {
    provider.prepare(pace, time);
    let request = ChatRequest { provider: Some(name.to_owned()), ..ChatRequest::user("Go on.") };
    let stream = client.stream("ai.chat_stream", &serde_json::to_vec(&request)?)?;
    Ok(stream.filter_map(|chunk| chunk.map_err(Into::into).and_then(|piece| text_of(&piece)).transpose()))
}

/// The text in a piece of an answer, if it is one of text.
fn text_of(piece: &[u8]) -> anyhow::Result<Option<String>> {
    let piece = SequencedChunk::read(piece)?;
    match piece.chunk {
        Chunk::Text { text } => Ok(Some(text)),
        Chunk::Error(info) => bail!("the answer failed: {}", info.message),
        _ => Ok(None),
    }
}

/// The texts of an answer, as a bare HTTP client gets them.
fn direct_texts(provider: &Provider, pace: Pace, time: Duration) -> anyhow::Result<DirectAnswer> {
    provider.prepare(pace, time);
    provider.ask().context("asking the provider directly")
}

/// How long each chunk of an answer was under way.
pub(super) fn delays(texts: impl Iterator<Item = anyhow::Result<String>>) -> anyhow::Result<Samples> {
    let mut samples = Samples::with_capacity(1 << 16);
    for (number, text) in texts.enumerate() {
        let written: u64 = text?.trim().parse().context("a chunk without its time")?;
        let now = clock::ticks();
        if number >= WARM_UP {
            samples.add(now.saturating_sub(written));
        }
    }
    ensure!(samples.len() > 0, "the measurement is too short; give it more --seconds or a shorter --pace");
    Ok(samples)
}

/// Chunks a second, from the first to the last of an answer.
fn rate(texts: impl Iterator<Item = anyhow::Result<String>>) -> anyhow::Result<f64> {
    let (mut first, mut count) = (None, 0_u64);
    for text in texts {
        text?;
        first.get_or_insert_with(Instant::now);
        count += 1;
    }
    let time = first.map_or(Duration::ZERO, |first| first.elapsed());
    ensure!(count > 1 && !time.is_zero(), "the provider's answer held {count} chunks");
    Ok((count - 1) as f64 / time.as_secs_f64())
}

fn middle(mut rates: Vec<f64>) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates[rates.len() / 2]
}

impl GatewayReport {
    pub(super) fn print(&self) -> Outcome {
        let Self { through_gateway: through, direct, .. } = self;
        output::line(format_args!(
            "single chunks, {} us apart, {} of them, from the provider's socket on:",
            self.pace_us, self.chunks
        ))?;
        for (name, percentiles) in [("to the editor", through), ("to a bare HTTP client", direct)] {
            let Percentiles { p50_us, p90_us, p99_us, p999_us, max_us } = percentiles;
            output::line(format_args!(
                "  {name:<22} p50 {p50_us:>7.1} us  p90 {p90_us:>7.1}  p99 {p99_us:>7.1}  p99.9 {p999_us:>7.1}  max {max_us:>8.1}"
            ))?;
        }
        output::line(format_args!(
            "  {:<22} p50 {:>7.1} us  p99 {:>7.1}  (goal: p50 at most {GOAL_P50_US} us)",
            "added by the gateway", self.added_p50_us, self.added_p99_us
        ))?;
        output::line(format_args!(
            "one stream without pauses: {:.0} chunks/s (goal: at least {GOAL_CHUNKS_PER_S:.0}); a bare HTTP client: {:.0}",
            self.chunks_per_s, self.direct_chunks_per_s
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_failed_ends_the_measurement_with_what_the_server_said() {
        let text = |piece: &str| text_of(piece.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(text(r#"{"seq": 0, "kind": "text", "text": "bell"}"#), Ok(Some("bell".to_owned())));
        assert_eq!(text(r#"{"seq": 1, "kind": "done", "stop_reason": "stop"}"#), Ok(None));
        let failed =
            r#"{"seq": 1, "kind": "error", "code": "upstream", "message": "the bell is cracked", "retryable": false}"#;
        assert_eq!(text(failed), Err("the answer failed: the bell is cracked".to_owned()));
    }
}
