//! The client's meters: they hand out what is sent, look at what comes back, and say when it is enough. All peers of
//! this program are driven by the same two.

use std::{hint::black_box, time::Duration};

use anyhow::{bail, ensure};
use bellrope_shm::clock;
use serde::{Deserialize, Serialize};

use crate::{
    cost,
    plan::{GAP, Task},
};

/// A connected client of a peer.
pub(crate) trait Caller {
    /// Calls on the first connection, one at a time, until the meter has had enough.
    fn round_trips(&mut self, meter: &mut RoundTrips) -> anyhow::Result<()>;

    /// Keeps `depth` calls under way on each connection until the meter has had enough, and takes all answers.
    fn keep_busy(&mut self, meter: &mut Answers, depth: usize) -> anyhow::Result<()>;
}

/// What one pair of processes has measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) round_trip: Option<Latency>,
    pub(crate) apart: Option<Latency>,
    pub(crate) throughput: Option<Throughput>,
    /// Resident memory of each side at the end, in KiB.
    pub(crate) server_kb: u64,
    pub(crate) client_kb: u64,
}

/// Full round trips, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) calls: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// CPU time of both processes; also CPU seconds for a million calls.
    pub(crate) cpu_us_per_call: f64,
}

/// Calls a second.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Throughput {
    pub(crate) calls: u64,
    pub(crate) calls_per_s: f64,
    /// CPU time of both processes; also CPU seconds for a million calls.
    pub(crate) cpu_us_per_call: f64,
}

/// Measures what the task asks for.
pub(crate) fn measure(task: &Task, server: u32, caller: &mut impl Caller) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    let (time, warm_up) = (Duration::from_millis(task.time_ms), Duration::from_millis(task.warm_up_ms));
    if task.round_trips {
        caller.round_trips(&mut RoundTrips::new(task.size, warm_up, None))?;
        measured.round_trip = Some(latency(server, caller, RoundTrips::new(task.size, time, None))?);
    }
    if task.apart_ms > 0 {
        caller.round_trips(&mut RoundTrips::new(task.size, warm_up, Some(GAP)))?;
        let time = Duration::from_millis(task.apart_ms);
        measured.apart = Some(latency(server, caller, RoundTrips::new(task.size, time, Some(GAP)))?);
    }
    if task.depth > 0 {
        let mut meter = Answers::new(task, server);
        caller.keep_busy(&mut meter, task.depth)?;
        measured.throughput = Some(meter.throughput()?);
    }
    measured.server_kb = cost::resident_kb(server)?;
    measured.client_kb = cost::resident_kb(std::process::id())?;
    Ok(measured)
}

fn latency(server: u32, caller: &mut impl Caller, mut meter: RoundTrips) -> anyhow::Result<Latency> {
    let before = cpu_of_both(server)?;
    caller.round_trips(&mut meter)?;
    let cpu_us = cpu_of_both(server)? - before;
    let mut ticks = meter.samples;
    ensure!(!ticks.is_empty(), "not one call was answered");
    ticks.sort_unstable();
    let at =
        |share: f64| f64::from(ticks[((ticks.len() - 1) as f64 * share) as usize]) / clock::ticks_per_ns() / 1000.0;
    Ok(Latency {
        calls: ticks.len() as u64,
        p50_us: at(0.5),
        p99_us: at(0.99),
        p999_us: at(0.999),
        cpu_us_per_call: cpu_us / ticks.len() as f64,
    })
}

fn cpu_of_both(server: u32) -> anyhow::Result<f64> {
    Ok(cost::cpu_us(server)? + cost::cpu_us(std::process::id())?)
}

/// Times round trips.
#[derive(Debug)]
pub(crate) struct RoundTrips {
    payload: Vec<u8>,
    samples: Vec<u32>,
    gap: Option<Duration>,
    /// When the call under way began; without gaps also when the one before was answered.
    began: u64,
    end: u64,
}

impl RoundTrips {
    fn new(size: usize, time: Duration, gap: Option<Duration>) -> Self {
        let began = clock::ticks();
        Self { payload: vec![0x5A; size], samples: Vec::with_capacity(1 << 16), gap, began, end: began + ticks(time) }
    }

    /// What to send next; nothing when it is enough.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        if self.began >= self.end && !self.samples.is_empty() {
            return None;
        }
        stamp(&mut self.payload, self.samples.len());
        if let Some(gap) = self.gap {
            std::thread::sleep(gap);
            self.began = clock::ticks();
        }
        Some(&self.payload)
    }

    /// Takes the answer to it, and reads all of it, which is part of the round trip: an answer that is lent instead of
    /// copied has not been brought here before.
    ///
    /// # Errors
    /// It is not what was sent, as far as length, first and last byte tell.
    #[inline]
    pub(crate) fn answered(&mut self, reply: &[u8]) -> anyhow::Result<()> {
        read(reply);
        let now = clock::ticks();
        ensure!(looks_like(reply, &self.payload), "the echo differs from what was sent");
        self.samples.push(u32::try_from(now - self.began).unwrap_or(u32::MAX));
        self.began = now;
        Ok(())
    }
}

/// Counts answers while many calls are under way: from the first one after the warm-up on, so that the window is full,
/// for as long as the task says and at least one window.
#[derive(Debug)]
pub(crate) struct Answers {
    payload: Vec<u8>,
    server: u32,
    sent: usize,
    count: u64,
    answers_per_look: u64,
    least: u64,
    /// When the warm-up is over.
    warm: u64,
    time: u64,
    began: Option<Moment>,
    ended: Option<Moment>,
}

/// A look at the clocks between two answers.
#[derive(Debug, Clone, Copy)]
struct Moment {
    ticks: u64,
    answers: u64,
    cpu_us: f64,
}

impl Answers {
    fn new(task: &Task, server: u32) -> Self {
        Self {
            payload: vec![0x5A; task.size],
            server,
            sent: 0,
            count: 0,
            answers_per_look: if task.size < 16 * 1024 { 16 } else { 1 },
            least: (task.depth * task.connections) as u64,
            warm: clock::ticks() + ticks(Duration::from_millis(task.warm_up_ms)),
            time: ticks(Duration::from_millis(task.time_ms)),
            began: None,
            ended: None,
        }
    }

    /// What to send next; nothing when it is enough.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        if self.ended.is_some() {
            return None;
        }
        self.sent += 1;
        stamp(&mut self.payload, self.sent);
        Some(&self.payload)
    }

    /// Whether there is something to send.
    #[inline]
    pub(crate) fn wants_more(&self) -> bool {
        self.ended.is_none()
    }

    /// Takes an answer, and reads all of it.
    ///
    /// # Errors
    /// Its length is another, or its first and last byte differ.
    #[inline]
    pub(crate) fn answered(&mut self, reply: &[u8]) -> anyhow::Result<()> {
        read(reply);
        ensure!(
            reply.len() == self.payload.len() && reply.first() == reply.last(),
            "an echo differs from what was sent"
        );
        self.count += 1;
        if self.ended.is_none() && self.count.is_multiple_of(self.answers_per_look) {
            self.look(clock::ticks())?;
        }
        Ok(())
    }

    fn look(&mut self, now: u64) -> anyhow::Result<()> {
        match self.began {
            None if now >= self.warm => self.began = Some(self.moment()?),
            Some(began) if now - began.ticks >= self.time && self.count - began.answers >= self.least => {
                self.ended = Some(self.moment()?);
            }
            _ => {}
        }
        Ok(())
    }

    fn moment(&self) -> anyhow::Result<Moment> {
        let cpu_us = cpu_of_both(self.server)?;
        Ok(Moment { ticks: clock::ticks(), answers: self.count, cpu_us })
    }

    fn throughput(&self) -> anyhow::Result<Throughput> {
        let (Some(began), Some(ended)) = (self.began, self.ended) else { bail!("the calls ended too soon") };
        let calls = ended.answers - began.answers;
        let seconds = (ended.ticks - began.ticks) as f64 / clock::ticks_per_ns() / 1e9;
        Ok(Throughput {
            calls,
            calls_per_s: calls as f64 / seconds,
            cpu_us_per_call: (ended.cpu_us - began.cpu_us) / calls as f64,
        })
    }
}

fn ticks(time: Duration) -> u64 {
    (time.as_nanos() as f64 * clock::ticks_per_ns()) as u64
}

/// Marks both ends of a payload with a number.
#[inline]
fn stamp(payload: &mut [u8], number: usize) {
    if let Some(first) = payload.first_mut() {
        *first = number as u8;
    }
    if let Some(last) = payload.last_mut() {
        *last = number as u8;
    }
}

/// Reads every byte, as whoever wants an answer does.
#[inline]
fn read(reply: &[u8]) {
    let (words, rest) = reply.as_chunks::<8>();
    let sum = words.iter().fold(0_u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    black_box(rest.iter().fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte))));
}

#[inline]
fn looks_like(reply: &[u8], payload: &[u8]) -> bool {
    reply.len() == payload.len() && reply.first() == payload.first() && reply.last() == payload.last()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_that_differs_is_an_error() {
        let mut meter = RoundTrips::new(8, Duration::from_secs(9), None);
        let mut reply = meter.next().unwrap().to_vec();
        meter.answered(&reply).unwrap();
        assert!(meter.answered(&reply[1..]).is_err(), "its length");
        meter.next();
        assert!(meter.answered(&reply).is_err(), "the echo of the call before");
        reply[7] ^= 1;
        assert!(Answers::new(&task(8, 1), std::process::id()).answered(&reply).is_err(), "its ends");
    }

    #[test]
    fn answers_count_from_a_full_window_on_and_no_longer_than_until_the_end() {
        let mut meter = Answers::new(&task(1, 64), std::process::id());
        let mut answers = 0;
        while meter.next().is_some() {
            meter.answered(&[0]).unwrap();
            answers += 1;
        }
        assert_eq!(answers, 16 + 64, "one look for the warm-up, then one window");
        meter.answered(&[0]).unwrap();
        assert_eq!(meter.throughput().unwrap().calls, 64, "a late one is taken and not counted");
    }

    fn task(size: usize, depth: usize) -> Task {
        let placed = crate::plan::Placed::ByScheduler;
        Task { size, connections: 1, depth, round_trips: false, apart_ms: 0, time_ms: 0, warm_up_ms: 0, placed }
    }
}
