//! A circuit breaker: stops calling what keeps failing, and finds out by a few probes when it works again.
//!
//! The breaker knows no message, no handler and no clock: it is told the time, and asks for it only where the time
//! matters. While it is closed a call costs one atomic load, and its success another one of the same word. Failures in
//! a row are counted in that word by compare-exchange; whatever changes the state does so under one lock, so that there
//! is never a probe too many.

mod config;
mod now;
mod state;
mod window;
mod word;

use std::{
    hash::{BuildHasher as _, RandomState},
    mem,
    ops::Deref,
    sync::OnceLock,
    time::{Duration, Instant},
};

use config::Live;
pub use config::{BreakerConfig, BreakerSetting};
pub use now::Now;
use state::TRANSITIONS;
pub use state::{BreakerSnapshot, BreakerState, Rejected};
use window::Window;
use word::{Mode, Word};

use crate::sync::{AtomicU64, Mutex, Ordering, PoisonError};

/// Half-open with all probes out: somebody else will soon know more, so this is the longest wait that is advised.
const PROBES_OUT: Duration = Duration::from_secs(1);
/// The end of a state that does not end by itself.
const NEVER: u64 = u64::MAX;

/// A circuit breaker for one thing that may fail, shared by everybody who calls it.
///
/// ```
/// use std::time::Instant;
///
/// use bellrope::breaker::{Breaker, BreakerConfig, BreakerState};
///
/// # fn main() -> Result<(), bellrope::breaker::BreakerSetting> {
/// let breaker = Breaker::new(BreakerConfig::default())?;
/// for _ in 0..5 {
///     let permit = breaker.acquire(Instant::now).expect("closed");
///     permit.fail(Instant::now); // the call failed; dropping the permit instead would count for nothing
/// }
/// assert_eq!(breaker.state(Instant::now()), BreakerState::Open);
/// assert!(breaker.acquire(Instant::now).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Breaker {
    live: Live,
    /// What moments are counted from.
    origin: Instant,
    /// Mode, generation and counts: see [`Word`]. Anybody changes the count of a closed breaker by compare-exchange;
    /// everything else changes under `recoveries`.
    word: AtomicU64,
    /// When an open or half-open breaker's time is up, in ns since `origin`. Written under `recoveries` before the word
    /// that it belongs to; a reader may see a later one, and asks again under the lock before it acts upon it.
    until: AtomicU64,
    /// Recoveries that failed since the breaker was last closed.
    recoveries: Mutex<u32>,
    /// Made when a rate is first on.
    window: OnceLock<Window>,
    /// By their place in [`TRANSITIONS`].
    transitions: [AtomicU64; TRANSITIONS.len()],
    rejections: AtomicU64,
    /// Where the jitter comes from.
    random: RandomState,
}

impl Breaker {
    /// A closed breaker. It reads the clock here, once, to have a moment from which to count others.
    ///
    /// # Errors
    /// A setting out of its range.
    #[expect(clippy::needless_pass_by_value, reason = "settings are made for a breaker and given to it")]
    pub fn new(config: BreakerConfig) -> Result<Self, BreakerSetting> {
        config.check()?;
        let window = OnceLock::new();
        if config.failure_rate_percent > 0 || config.slow_rate_percent > 0 {
            let _ = window.set(Window::new(config.rate_window));
        }
        Ok(Self {
            live: Live::new(&config),
            origin: Instant::now(),
            word: AtomicU64::new(Word::new(Mode::Closed, 0).bits()),
            until: AtomicU64::new(NEVER),
            recoveries: Mutex::new(0),
            window,
            transitions: Default::default(),
            rejections: AtomicU64::new(0),
            random: RandomState::new(),
        })
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> BreakerConfig {
        self.live.config()
    }

    /// Changes the settings. The state stays as it is, with what was counted for it: an open breaker is open until its
    /// time is up, and a closed one that has failed as often as is now enough opens with the next failure. The window of
    /// the rates begins anew.
    ///
    /// # Errors
    /// A setting out of its range; then none has changed.
    pub fn reconfigure(&self, config: &BreakerConfig) -> Result<(), BreakerSetting> {
        config.check()?;
        // One at a time.
        let _recoveries = self.lock();
        self.live.change(config);
        if self.live.has_rates() {
            self.window.get_or_init(|| Window::new(config.rate_window)).restart(config.rate_window);
        }
        Ok(())
    }

    /// From which on a call is slow.
    #[must_use]
    pub fn slow_call(&self) -> Duration {
        self.live.slow_call()
    }

    /// Admits a call, or not. The time is asked for only if the breaker is not closed, or if it looks at slow calls.
    ///
    /// # Errors
    /// [`Rejected`] while the breaker is open, and while it is half-open with all probes out.
    #[inline]
    pub fn acquire(&self, now: impl Now) -> Result<Permit<&Self>, Rejected> {
        let admitted = self.admit(now)?;
        Ok(Permit::new(self, admitted))
    }

    /// Like [`Breaker::acquire`], with a permit that may be kept with the call.
    ///
    /// # Errors
    /// As [`Breaker::acquire`].
    #[inline]
    pub fn acquire_owned(self: &std::sync::Arc<Self>, now: impl Now) -> Result<Permit<std::sync::Arc<Self>>, Rejected> {
        let admitted = self.admit(now)?;
        Ok(Permit::new(std::sync::Arc::clone(self), admitted))
    }

    /// The state at this moment. A half-open breaker whose time is up leaves that state here too, so that whoever
    /// looks from time to time sees it go even if nobody calls.
    pub fn state(&self, now: Instant) -> BreakerState {
        self.looked_at(now).mode().state()
    }

    /// State and counters at this moment.
    pub fn snapshot(&self, now: Instant) -> BreakerSnapshot {
        let mode = self.looked_at(now).mode();
        let counted = |index: usize| self.transitions[index].load(Ordering::Relaxed);
        let mut index = 0..;
        BreakerSnapshot {
            state: mode.state(),
            forced: mode.is_forced(),
            transitions: TRANSITIONS.map(|(from, to)| (from, to, index.next().map_or(0, counted))),
            rejections: self.rejections.load(Ordering::Relaxed),
        }
    }

    /// Opens it until [`Breaker::force_close`] or [`Breaker::reset`]: nothing is admitted.
    pub fn force_open(&self) {
        self.put(Mode::ForcedOpen);
    }

    /// Closes it until [`Breaker::force_open`] or [`Breaker::reset`]: everything is admitted, and no failure counts.
    pub fn force_close(&self) {
        self.put(Mode::ForcedClosed);
    }

    /// Closes it and forgets every failure; from here on it works by itself again. Its counters go on.
    pub fn reset(&self) {
        self.put(Mode::Closed);
    }

    /// The closed path: one load.
    #[inline]
    fn admit(&self, now: impl Now) -> Result<Admitted, Rejected> {
        // Acquire pairs with the release in `publish`: who sees a state sees what was written with it.
        let word = Word::from(self.word.load(Ordering::Acquire));
        if word.admits_all() {
            let started = if self.live.has_slow_rate() { Some(now.now()) } else { None };
            return Ok(Admitted { key: word.key(), started });
        }
        self.admit_probe(word, now.now())
    }

    #[cold]
    fn admit_probe(&self, mut word: Word, now: Instant) -> Result<Admitted, Rejected> {
        let until = self.until.load(Ordering::Relaxed);
        // Most rejections are decided here, without the lock.
        let may_change = match word.mode() {
            Mode::Open => self.nanos(now) >= until,
            Mode::HalfOpen => word.probes() < self.live.half_open_max_requests() || self.nanos(now) >= until,
            Mode::ForcedOpen => false,
            Mode::Closed | Mode::ForcedClosed => true,
        };
        if may_change {
            let mut recoveries = self.lock();
            self.expire(&mut recoveries, now);
            word = self.locked_word();
            if word.mode() == Mode::Open && self.nanos(now) >= self.until.load(Ordering::Relaxed) {
                let until = self.nanos(now).saturating_add(nanos_of(self.live.half_open_timeout_ms()));
                word = self.publish(word, Mode::HalfOpen, until);
            }
            match word.mode() {
                Mode::HalfOpen if word.probes() < self.live.half_open_max_requests() => {
                    self.word.store(word.with_probe().bits(), Ordering::Release);
                    return Ok(Admitted { key: word.key(), started: Some(now) });
                }
                Mode::Closed | Mode::ForcedClosed => return Ok(Admitted { key: word.key(), started: Some(now) }),
                Mode::Open | Mode::HalfOpen | Mode::ForcedOpen => {}
            }
        }
        self.rejections.fetch_add(1, Ordering::Relaxed);
        Err(self.rejection(word, now))
    }

    fn rejection(&self, word: Word, now: Instant) -> Rejected {
        let left = Duration::from_nanos(self.until.load(Ordering::Relaxed).saturating_sub(self.nanos(now)));
        Rejected {
            retry_after: match word.mode() {
                Mode::ForcedOpen => None,
                Mode::HalfOpen => Some(left.min(PROBES_OUT)),
                _ => Some(left),
            },
        }
    }

    /// A call that was admitted under `key` went well.
    #[inline]
    fn succeeded(&self, key: u32, started: Option<Instant>, now: impl Now) {
        let word = Word::from(self.word.load(Ordering::Acquire));
        if word.is_closed_without_failure(key) && !self.live.has_rates() {
            return;
        }
        self.settle(key, started, now.now(), true);
    }

    /// Counts how a call ended, unless it was admitted under an older state.
    fn settle(&self, key: u32, started: Option<Instant>, now: Instant, well: bool) {
        let slow = self.live.has_slow_rate()
            && started.is_some_and(|started| now.saturating_duration_since(started) >= self.live.slow_call());
        let mut word = Word::from(self.word.load(Ordering::Acquire));
        match word.mode() {
            _ if word.key() != key => {}
            Mode::Closed => {
                if self.live.has_rates()
                    && let Some(window) = self.window.get()
                    && window.note(self.nanos(now), !well, slow, &self.live)
                {
                    return self.trip(key, now);
                }
                // Only the count changes here; whoever changes the state meanwhile makes the exchange fail.
                while word.key() == key {
                    let failures = if well { 0 } else { word.failures().saturating_add(1) };
                    if failures >= self.live.failure_threshold() {
                        return self.trip(key, now);
                    }
                    let counted = word.with_failures(failures);
                    match self.word.compare_exchange(word.bits(), counted.bits(), Ordering::AcqRel, Ordering::Acquire) {
                        Ok(_) => return,
                        Err(seen) => word = Word::from(seen),
                    }
                }
            }
            Mode::HalfOpen => self.settle_probe(key, now, well && !slow),
            Mode::Open | Mode::ForcedOpen | Mode::ForcedClosed => {}
        }
    }

    #[cold]
    fn settle_probe(&self, key: u32, now: Instant, well: bool) {
        let mut recoveries = self.lock();
        let word = self.locked_word();
        if word.key() != key {
            return;
        }
        if !well {
            return self.reopen(word, &mut recoveries, now);
        }
        let word = word.without_probe().with_success();
        if word.successes() >= self.live.success_threshold() {
            *recoveries = 0;
            self.publish(word, Mode::Closed, NEVER);
        } else {
            self.word.store(word.bits(), Ordering::Release);
        }
    }

    /// A permit was dropped without a verdict.
    #[cold]
    fn released(&self, key: u32) {
        let _recoveries = self.lock();
        let word = self.locked_word();
        if word.key() == key && word.mode() == Mode::HalfOpen {
            self.word.store(word.without_probe().bits(), Ordering::Release);
        }
    }

    /// Opens a closed breaker.
    #[cold]
    fn trip(&self, key: u32, now: Instant) {
        let mut recoveries = self.lock();
        let word = self.locked_word();
        if word.key() == key && word.mode() == Mode::Closed {
            *recoveries = 0;
            self.open(word, &recoveries, now);
        }
    }

    /// Opens it again after a recovery that failed, for longer than before.
    fn reopen(&self, word: Word, recoveries: &mut u32, now: Instant) {
        *recoveries = recoveries.saturating_add(1);
        self.open(word, recoveries, now);
    }

    fn open(&self, word: Word, recoveries: &u32, now: Instant) {
        let length = self.live.config().open_for(*recoveries, self.random.hash_one(word.bits()));
        self.publish(word, Mode::Open, self.nanos(now).saturating_add(length.as_nanos() as u64));
    }

    /// Ends a half-open state whose time is up. Probes that are still out count as failed. If none is out there was
    /// merely no traffic: the breaker opens without a wait, and the next call is its probe.
    fn expire(&self, recoveries: &mut u32, now: Instant) {
        let word = self.locked_word();
        if word.mode() != Mode::HalfOpen || self.nanos(now) < self.until.load(Ordering::Relaxed) {
            return;
        }
        if word.probes() > 0 {
            self.reopen(word, recoveries, now);
        } else {
            self.publish(word, Mode::Open, self.nanos(now));
        }
    }

    fn looked_at(&self, now: Instant) -> Word {
        let word = Word::from(self.word.load(Ordering::Acquire));
        if word.mode() != Mode::HalfOpen {
            return word;
        }
        let mut recoveries = self.lock();
        self.expire(&mut recoveries, now);
        self.locked_word()
    }

    /// Changes the state by hand.
    fn put(&self, mode: Mode) {
        let mut recoveries = self.lock();
        *recoveries = 0;
        self.publish(self.locked_word(), mode, NEVER);
    }

    /// Goes from the state in `word` to another. Only with the lock held.
    fn publish(&self, word: Word, mode: Mode, until: u64) -> Word {
        if let Some(window) = self.window.get().filter(|_| mode == Mode::Closed) {
            window.clear();
        }
        let next = word.next(mode);
        self.until.store(until, Ordering::Relaxed);
        // Release pairs with the acquire in `admit`. A count that somebody exchanges at this moment is lost with the
        // state it belonged to.
        self.word.store(next.bits(), Ordering::Release);
        let change = (word.mode().state(), mode.state());
        if let Some(index) = TRANSITIONS.iter().position(|known| *known == change) {
            self.transitions[index].fetch_add(1, Ordering::Relaxed);
        }
        next
    }

    fn lock(&self) -> impl std::ops::DerefMut<Target = u32> {
        self.recoveries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The word as it stands, with the lock held: but for the count of a closed breaker nobody else changes it.
    fn locked_word(&self) -> Word {
        Word::from(self.word.load(Ordering::Relaxed))
    }

    /// A moment as it is stored: before [`NEVER`], however late it is.
    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.origin).as_nanos()).unwrap_or(NEVER).min(NEVER - 1)
    }
}

/// What an admitted call takes along.
#[derive(Debug, Clone, Copy)]
struct Admitted {
    /// The mode and generation that admitted it.
    key: u32,
    /// When, if anybody will ask.
    started: Option<Instant>,
}

fn nanos_of(milliseconds: u32) -> u64 {
    u64::from(milliseconds) * 1_000_000
}

/// An admitted call's right to say how it ended: once, and only to the state that admitted it.
///
/// Dropped without a verdict, because the caller cancelled, the request was bad or the code panicked, it counts for
/// nothing and gives its place back. `B` is a reference to the breaker, or an `Arc` of it.
#[derive(Debug)]
#[must_use = "a permit that is dropped counts for nothing"]
pub struct Permit<B: Deref<Target = Breaker>> {
    breaker: B,
    key: u32,
    started: Option<Instant>,
}

/// A key that settles nothing and is no probe's.
const SETTLED: u32 = 0;

impl<B: Deref<Target = Breaker>> Permit<B> {
    #[inline]
    fn new(breaker: B, Admitted { key, started }: Admitted) -> Self {
        Self { breaker, key, started }
    }

    /// The call went well.
    #[inline]
    pub fn succeed(mut self, now: impl Now) {
        let key = mem::replace(&mut self.key, SETTLED);
        self.breaker.succeeded(key, self.started, now);
    }

    /// The call failed, by its handler's fault or by taking too long.
    pub fn fail(mut self, now: impl Now) {
        let key = mem::replace(&mut self.key, SETTLED);
        self.breaker.settle(key, self.started, now.now(), false);
    }

    /// Whether the call is one of the few that decide whether a half-open breaker closes.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        word::is_probe(self.key)
    }
}

impl<B: Deref<Target = Breaker>> Drop for Permit<B> {
    #[inline]
    fn drop(&mut self) {
        if self.is_probe() {
            self.breaker.released(self.key);
        }
    }
}
