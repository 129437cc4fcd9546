use std::time::{Duration, Instant};

use anyhow::ensure;
use bellrope::{
    Client,
    service::{Codec, Json, Postcard},
};
use bellrope_shm::clock;
use bellrope_terminal::{Outcome, ProgressBar, output};
use clap::Args;
use serde::Serialize;

use super::{
    args::TimedArgs,
    samples::{Percentiles, Samples, median},
};
use crate::{
    server_process::{ServerProcess, pin_client},
    typed::{RAW, Returned, TypedClients},
};

/// Runs whose median is reported.
const RUNS: u32 = 5;
const WARM_UP: u32 = 20_000;
const GOAL_JSON_US: f64 = 0.6;
const GOAL_POSTCARD_US: f64 = 0.1;

const HELP: &str = "\
Examples:
  bellrope bench typed
  bellrope bench typed --seconds 10 --json

A call with three small fields, answered with three, beside calls of the same bytes without types, by the same client in the \
same run.";

/// How to measure typed calls.
#[derive(Debug, Clone, Args)]
#[command(after_help = HELP, mut_arg("seconds", |arg| arg.required(false).default_value("5").help("Seconds to measure")))]
pub struct TypedArgs {
    #[command(flatten)]
    pub(super) timed: TimedArgs,
}

/// What types cost.
#[derive(Debug, Serialize)]
pub(crate) struct TypedReport {
    json: Codecs,
    postcard: Codecs,
}

/// What they cost with one codec.
#[derive(Debug, Serialize)]
struct Codecs {
    /// Bytes of a request.
    bytes: usize,
    calls: usize,
    typed: Percentiles,
    /// The same bytes there and back without types.
    raw: Percentiles,
    /// By how much the median of typed calls is above that of raw ones.
    over_raw_us: f64,
    goal_over_raw_us: f64,
}

/// Measures typed and raw calls in turns, so that all of them see the same machine.
pub(super) fn measure(args: &TypedArgs, progress: bool) -> anyhow::Result<TypedReport> {
    let server = ServerProcess::start(args.timed.pin())?;
    pin_client(args.timed.pin())?;
    let client = Client::connect(server.socket())?;
    let typed = TypedClients::over(&client);
    let raw = client.message_type(RAW)?;
    let time = args.timed.time() / (4 * RUNS);
    let bar = ProgressBar::new(progress, "typed calls", RUNS.into());
    let mut taken: [Vec<Samples>; 4] = [(); 4].map(|()| Vec::new());
    let (as_json, as_postcard) = (request::<Json>()?, request::<Postcard>()?);
    let mut reply = Vec::new();
    let seen = Returned { id: ID, length: NAME.len() as u32, on: true };
    for _ in 0..RUNS {
        let raw_json = turn(time, || Ok(client.call_into(raw, &as_json, &mut reply).map(|()| reply == as_json)?))?;
        let typed_json = turn(time, || Ok(typed.json(ID, NAME, true)? == seen))?;
        let raw_postcard =
            turn(time, || Ok(client.call_into(raw, &as_postcard, &mut reply).map(|()| reply == as_postcard)?))?;
        let typed_postcard = turn(time, || Ok(typed.postcard(ID, NAME, true)? == seen))?;
        let turns = [raw_json, typed_json, raw_postcard, typed_postcard];
        taken.iter_mut().zip(turns).for_each(|(taken, samples)| taken.push(samples));
        bar.step();
    }
    let [raw_json, typed_json, raw_postcard, typed_postcard] = taken;
    Ok(TypedReport {
        json: Codecs::new(as_json.len(), raw_json, typed_json, GOAL_JSON_US),
        postcard: Codecs::new(as_postcard.len(), raw_postcard, typed_postcard, GOAL_POSTCARD_US),
    })
}

const ID: u32 = 70_000;
const NAME: &str = "bell rope";

/// What a typed call sends.
fn request<C: Codec>() -> anyhow::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Request {
        id: u32,
        name: &'static str,
        on: bool,
    }

    let mut bytes = Vec::new();
    C::encode(&Request { id: ID, name: NAME, on: true }, &mut bytes)?;
    Ok(bytes)
}

/// Calls again and again for a time, after some calls to get warm. `call` says whether the answer was the right one.
fn turn(time: Duration, mut call: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<Samples> {
    const CALLS_PER_LOOK: usize = 1024;
    for _ in 0..WARM_UP {
        ensure!(call()?, "the answer differs from what was expected");
    }
    let mut samples = Samples::with_capacity(1 << 18);
    let start = Instant::now();
    loop {
        let began = clock::ticks();
        let right = call()?;
        samples.add(clock::ticks() - began);
        ensure!(right, "the answer differs from what was expected");
        if samples.len().is_multiple_of(CALLS_PER_LOOK) && start.elapsed() >= time {
            return Ok(samples);
        }
    }
}

impl Codecs {
    fn new(bytes: usize, raw: Vec<Samples>, typed: Vec<Samples>, goal_over_raw_us: f64) -> Self {
        let calls = typed.iter().map(Samples::len).sum();
        let [raw, typed] = [raw, typed].map(|runs| {
            let runs: Vec<_> = runs.into_iter().map(Samples::percentiles).collect();
            median(&runs)
        });
        Self { bytes, calls, typed, raw, over_raw_us: typed.p50_us - raw.p50_us, goal_over_raw_us }
    }

    fn print(&self, name: &str) -> Outcome {
        output::line(format_args!(
            "{name}, {} B, {} calls: typed p50 {:.3} us  p99 {:.3}; raw p50 {:.3}  p99 {:.3}; types add {:.3} us; goal: at most \
             {} us",
            self.bytes,
            self.calls,
            self.typed.p50_us,
            self.typed.p99_us,
            self.raw.p50_us,
            self.raw.p99_us,
            self.over_raw_us,
            self.goal_over_raw_us
        ))
    }
}

impl TypedReport {
    pub(super) fn print(&self) -> Outcome {
        self.json.print("json")?;
        self.postcard.print("postcard")
    }
}
