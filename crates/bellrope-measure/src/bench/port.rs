//! What `bellrope serve --api-port` adds to a request and to a chunk. Tool and provider are threads of this process, the server
//! is a child. In turns with it, in the same run, the same is asked of the provider itself and through a relay that only moves
//! bytes: what is left is the port's.

mod asker;
mod parties;
mod work;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use bellrope::{Client, client::ClientConfig};
use bellrope_terminal::{Outcome, ProgressBar, output};
use clap::Args;
use serde::Serialize;

use self::asker::Asked;
use self::parties::Served;
use self::work::Work;
use super::args::SpanArgs;
use super::gateway::{
    delays, paced_texts,
    provider::{self, Pace, Provider},
};
use super::samples::{Percentiles, median, median_of};

/// Runs whose median is reported.
const RUNS: usize = 5;
/// How much longer a stream is measured than requests are.
const STREAM_PARTS: u32 = 3;
/// Time between two chunks.
const PAUSE: Duration = Duration::from_micros(500);

/// What a request is to take more than one to the provider itself, at p50, in microseconds.
const GOAL_ADDED_US: f64 = 60.0;
/// The same with a connection for each request, in all.
const GOAL_FRESH_US: f64 = 500.0;
/// The share of the provider's own answers a second that 16 connections are to get. 64 are not to be slower.
const GOAL_SHARE: f64 = 0.35;
/// What a chunk is to take more.
const GOAL_CHUNK_US: f64 = 30.0;

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

const HELP: &str = r#"Examples:
  bellrope bench port
  bellrope bench port --quick --json

`exact` is a request in the provider's own format, which passes through; `translated` one of Anthropic's, for the same provider
of chat completions; `relay` moves the bytes of a connection and does nothing else.

All of them and the provider share this machine's CPUs, so the share of the provider's own answers that is left depends on how long
it takes for one. The shares are measured beside a provider that answers at once, too."#;

/// How to measure the API port.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = HELP,
    mut_arg("seconds", |arg| arg.required(false).default_value("40")),
    mut_arg("quick", |arg| arg.help("Measure for 10 seconds in all, if less exactly"))
)]
pub struct PortArgs {
    /// Threads of the port; 0: one per CPU, at most four.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=64))]
    threads: u32,
    /// How long the provider computes, in microseconds: so that a request without the port takes this long. 0: not at all.
    #[arg(long, value_name = "US", default_value_t = 34, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    provider_us: u32,
    #[command(flatten)]
    pub(super) span: SpanArgs,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct PortReport {
    /// What a request to the provider itself was to take.
    provider_us: u32,
    /// The provider itself, the least that stands between, and the port.
    direct: Requests,
    relay: Requests,
    exact: Requests,
    translated: Requests,
    /// What the port adds to a request that passes through, and what the relay does.
    added_p50_us: f64,
    relay_added_p50_us: f64,
    goal_added_p50_us: f64,
    goal_fresh_p50_us: f64,
    /// Answers a second through the port, of those of the provider itself.
    share_16: f64,
    share_64: f64,
    goal_share_16: f64,
    /// The same of a provider that answers at once.
    share_16_at_once: f64,
    share_64_at_once: f64,
    /// A chunk's way from the provider's socket.
    chunks: Chunks,
    chunk_added_p50_us: f64,
    goal_chunk_added_p50_us: f64,
}

/// Requests with whole answers.
#[derive(Debug, Serialize)]
struct Requests {
    /// One after the other, on one connection.
    sequential: Percentiles,
    /// Answers a second over 16 and 64 connections.
    answers_per_s_16: f64,
    answers_per_s_64: f64,
    /// With a connection for each, from connecting on.
    fresh: Percentiles,
}

/// A chunk's time from the provider's socket to its reader.
#[derive(Debug, Serialize)]
struct Chunks {
    direct: Percentiles,
    relay: Percentiles,
    exact: Percentiles,
    translated: Percentiles,
    /// To an editor, over shared memory instead of the port.
    shared_memory: Percentiles,
}

/// The rounds of one kind of request.
#[derive(Debug, Default)]
struct Rounds {
    sequential: Vec<Percentiles>,
    of_16: Vec<f64>,
    of_64: Vec<f64>,
    fresh: Vec<Percentiles>,
}

impl Rounds {
    fn add(&mut self, asked: &Asked, time: Duration) -> anyhow::Result<()> {
        self.sequential.push(asked.sequential(time)?.percentiles());
        self.of_16.push(asked.rate(16, time)?);
        self.of_64.push(asked.rate(64, time)?);
        self.fresh.push(asked.fresh(time)?.percentiles());
        Ok(())
    }

    fn medians(&self) -> Requests {
        Requests {
            sequential: median(&self.sequential),
            answers_per_s_16: median_of(self.of_16.iter().copied()),
            answers_per_s_64: median_of(self.of_64.iter().copied()),
            fresh: median(&self.fresh),
        }
    }
}

/// Measures all of them in turns, so that all see the same machine.
pub(super) fn measure(args: &PortArgs, progress: bool) -> anyhow::Result<PortReport> {
    let work = Arc::<Work>::default();
    let whole = parties::provider(Arc::clone(&work)).context("starting a provider on the loopback address")?;
    let paced = Provider::start().context("starting a provider on the loopback address")?;
    let relays = [whole, paced.address()].map(parties::relay);
    let [relay, paced_relay] = relays.map(|relay| relay.context("starting a relay on the loopback address"));
    let (relay, paced_relay) = (relay?, paced_relay?);
    let server = Served::start(args.threads, whole, &paced.url())?;
    let client = Client::with(ClientConfig::new(server.socket()))?;

    let chat = chat_body("whole/m", false);
    let messages = r#"{"model":"whole/m","max_tokens":100,"messages":[{"role":"user","content":"Go on."}]}"#;
    let kinds = [
        Asked::new(whole, CHAT, &chat),
        Asked::new(relay, CHAT, &chat),
        Asked::new(server.port, CHAT, &chat),
        Asked::new(server.port, MESSAGES, messages),
    ];
    let paced_chat = chat_body("paced/m", true);
    let paced_messages =
        r#"{"model":"paced/m","max_tokens":100,"stream":true,"messages":[{"role":"user","content":"Go on."}]}"#;
    let streams: [(SocketAddr, &str, &str); 4] = [
        (paced.address(), CHAT, &paced_chat),
        (paced_relay, CHAT, &paced_chat),
        (server.port, CHAT, &paced_chat),
        (server.port, MESSAGES, paced_messages),
    ];

    work.fit(&kinds[0], Duration::from_micros(args.provider_us.into()))?;

    // Four measurements of each of four kinds, a stream of each of five, which has pauses and so needs more time, and two
    // measurements of two kinds without the provider's work.
    let parts = RUNS * (4 * kinds.len() + STREAM_PARTS as usize * (streams.len() + 1) + 4);
    let time = args.span.time_or(10.0).div_f64(parts as f64);
    let (stream_time, pace) = (time * STREAM_PARTS, Pace::Single { pause: PAUSE });
    let bar = ProgressBar::new(progress, "port", (RUNS * (kinds.len() + 1)) as u64);
    let mut rounds: [Rounds; 4] = Default::default();
    let mut shares_at_once: [Vec<f64>; 2] = Default::default();
    let mut chunks: [Vec<Percentiles>; 5] = Default::default();
    for _ in 0..RUNS {
        for (kind, rounds) in kinds.iter().zip(&mut rounds) {
            rounds.add(kind, time)?;
            bar.step();
        }
        let stopped = work.stop();
        for (shares, connections) in shares_at_once.iter_mut().zip([16, 64]) {
            let (direct, exact) = (kinds[0].rate(connections, time)?, kinds[2].rate(connections, time)?);
            shares.push(exact / direct);
        }
        work.resume(stopped);
        for ((address, path, body), chunks) in streams.iter().zip(&mut chunks) {
            paced.prepare(pace, stream_time);
            let texts = provider::ask(*address, path, body).context("asking for a stream")?;
            chunks.push(delays(texts)?.percentiles());
        }
        chunks[4].push(delays(paced_texts(&client, &paced, "paced", pace, stream_time)?)?.percentiles());
        bar.step();
    }
    let [direct, relay, exact, translated] = rounds.map(|rounds| rounds.medians());
    let [share_16_at_once, share_64_at_once] = shares_at_once.map(|shares| median_of(shares.into_iter()));
    let [of_direct, of_relay, of_exact, of_translated, of_memory] = chunks.map(|runs| median(&runs));
    Ok(PortReport {
        provider_us: args.provider_us,
        added_p50_us: exact.sequential.p50_us - direct.sequential.p50_us,
        relay_added_p50_us: relay.sequential.p50_us - direct.sequential.p50_us,
        goal_added_p50_us: GOAL_ADDED_US,
        goal_fresh_p50_us: GOAL_FRESH_US,
        share_16: exact.answers_per_s_16 / direct.answers_per_s_16,
        share_64: exact.answers_per_s_64 / direct.answers_per_s_64,
        goal_share_16: GOAL_SHARE,
        share_16_at_once,
        share_64_at_once,
        direct,
        relay,
        exact,
        translated,
        chunk_added_p50_us: of_exact.p50_us - of_direct.p50_us,
        goal_chunk_added_p50_us: GOAL_CHUNK_US,
        chunks: Chunks {
            direct: of_direct,
            relay: of_relay,
            exact: of_exact,
            translated: of_translated,
            shared_memory: of_memory,
        },
    })
}

fn chat_body(model: &str, is_stream: bool) -> String {
    format!(r#"{{"model":"{model}","stream":{is_stream},"messages":[{{"role":"user","content":"Go on."}}]}}"#)
}

impl PortReport {
    pub(super) fn print(&self) -> Outcome {
        output::line(format_args!(
            "{:<12} {:>10} {:>10} {:>12} {:>12} {:>10}",
            "requests", "p50 us", "p99 us", "16 conn., /s", "64 conn., /s", "fresh p50"
        ))?;
        let kinds = [
            ("direct", &self.direct),
            ("relay", &self.relay),
            ("exact", &self.exact),
            ("translated", &self.translated),
        ];
        for (name, Requests { sequential, answers_per_s_16, answers_per_s_64, fresh }) in kinds {
            output::line(format_args!(
                "{name:<12} {:>10.1} {:>10.1} {answers_per_s_16:>12.0} {answers_per_s_64:>12.0} {:>10.1}",
                sequential.p50_us, sequential.p99_us, fresh.p50_us
            ))?;
        }
        output::line(format_args!(
            "added to a request: {:.1} us at p50 (goal: at most {GOAL_ADDED_US}); by the relay: {:.1}",
            self.added_p50_us, self.relay_added_p50_us
        ))?;
        output::line(format_args!(
            "of the provider's own rate: {:.0} % over 16 connections (goal: at least {:.0}), {:.0} % over 64; of one that \
             answers at once: {:.0} %, {:.0} %",
            100.0 * self.share_16,
            100.0 * GOAL_SHARE,
            100.0 * self.share_64,
            100.0 * self.share_16_at_once,
            100.0 * self.share_64_at_once
        ))?;
        output::line(format_args!(
            "64 connections get {:.2} of what 16 get (goal: 1); a connection for each request: {:.0} us (goal: at most {GOAL_FRESH_US})",
            self.exact.answers_per_s_64 / self.exact.answers_per_s_16,
            self.exact.fresh.p50_us
        ))?;
        output::line(format_args!("\n{:<14} {:>10} {:>10}", "chunks", "p50 us", "p99 us"))?;
        let Chunks { direct, relay, exact, translated, shared_memory } = &self.chunks;
        let chunks = [
            ("direct", direct),
            ("relay", relay),
            ("exact", exact),
            ("translated", translated),
            ("shared memory", shared_memory),
        ];
        for (name, percentiles) in chunks {
            output::line(format_args!("{name:<14} {:>10.1} {:>10.1}", percentiles.p50_us, percentiles.p99_us))?;
        }
        output::line(format_args!(
            "added to a chunk: {:.1} us at p50 (goal: at most {GOAL_CHUNK_US})",
            self.chunk_added_p50_us
        ))
    }
}
