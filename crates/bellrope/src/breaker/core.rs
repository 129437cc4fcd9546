//! What a breaker is, and how its state changes: under one lock.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::OnceLock,
    time::{Duration, Instant},
};

use super::{
    caller::Caller,
    callers::{Callers, Event},
    config::{BreakerConfig, BreakerSetting, Live},
    state::{BreakerSnapshot, BreakerState, TRANSITIONS},
    window::Window,
    word::{Mode, Word},
};
use crate::sync::{AtomicU64, Mutex, Ordering, PoisonError};

/// The end of a state that does not end by itself.
pub(super) const NEVER: u64 = u64::MAX;

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
///
/// ```
/// use std::{sync::Arc, time::{Duration, Instant}};
///
/// use bellrope::breaker::{Breaker, BreakerConfig, BreakerState, Caller};
///
/// # fn main() -> Result<(), bellrope::breaker::BreakerSetting> {
/// let breaker = Arc::new(Breaker::new(BreakerConfig::default())?);
/// breaker.reconfigure(&BreakerConfig::default().failure_threshold(1).slow_call(Duration::from_secs(2)))?;
/// assert_eq!((breaker.config().failure_threshold, breaker.slow_call()), (1, Duration::from_secs(2)));
///
/// // A permit that is kept with its call, wherever that goes.
/// let permit = breaker.acquire_owned(Instant::now).expect("closed");
/// std::thread::spawn(move || permit.fail(Instant::now)).join().unwrap();
/// let seen = breaker.snapshot(Instant::now());
/// assert_eq!((seen.state, seen.forced), (BreakerState::Open, false));
///
/// // By hand, as `bellrope breaker` does it.
/// breaker.force_close();
/// let caller = Caller::Connection(7);
/// let permit = breaker.acquire_owned_for(|| caller, Instant::now).expect("everything is admitted");
/// permit.succeed_for(|| caller, Instant::now);
/// breaker.force_open();
/// assert!(breaker.acquire(Instant::now).is_err_and(|rejected| rejected.retry_after.is_none()));
/// breaker.reset();
/// assert_eq!(breaker.state(Instant::now()), BreakerState::Closed);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Breaker {
    pub(super) live: Live,
    /// What moments are counted from.
    pub(super) origin: Instant,
    /// Mode, generation and counts: see [`Word`]. Anybody changes the count of a closed breaker by compare-exchange;
    /// everything else changes under `guarded`.
    pub(super) word: AtomicU64,
    /// When an open or half-open breaker's time is up, in ns since `origin`. Written under `guarded` before the word
    /// that it belongs to; a reader may see a later one, and asks again under the lock before it acts upon it.
    pub(super) until: AtomicU64,
    pub(super) guarded: Mutex<Guarded>,
    /// Made when a rate is first on.
    pub(super) window: OnceLock<Window>,
    /// By their place in [`TRANSITIONS`].
    pub(super) transitions: [AtomicU64; TRANSITIONS.len()],
    pub(super) rejections: AtomicU64,
    pub(super) caller_rejections: AtomicU64,
    /// Where the jitter comes from.
    pub(super) random: RandomState,
}

/// What changes under the lock.
#[derive(Debug, Default)]
pub(super) struct Guarded {
    /// Recoveries that failed since the breaker was last closed.
    pub(super) recoveries: u32,
    pub(super) callers: Callers,
    /// Whose probes are out, each at the place that its key names.
    pub(super) probers: Vec<Option<Caller>>,
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
            guarded: Mutex::new(Guarded::default()),
            window,
            transitions: Default::default(),
            rejections: AtomicU64::new(0),
            caller_rejections: AtomicU64::new(0),
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
    /// the rates begins anew. One that is switched off closes.
    ///
    /// # Errors
    /// A setting out of its range; then none has changed.
    pub fn reconfigure(&self, config: &BreakerConfig) -> Result<(), BreakerSetting> {
        config.check()?;
        // One at a time.
        let mut guarded = self.lock();
        self.live.change(config);
        let word = self.locked_word();
        if !config.enabled && !word.mode().is_forced() && word.mode() != Mode::Closed {
            guarded.recoveries = 0;
            self.publish(&mut guarded, word, Mode::Closed, NEVER);
        }
        if !config.enabled || config.min_callers < 2 {
            guarded.callers.clear();
            self.mark(&guarded.callers);
        }
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

    /// The state at this moment. A half-open breaker whose time is up leaves that state here too, so that whoever
    /// looks from time to time sees it go even if nobody calls.
    pub fn state(&self, now: Instant) -> BreakerState {
        self.looked_at(now).mode().state()
    }

    /// State and counters at this moment.
    pub fn snapshot(&self, now: Instant) -> BreakerSnapshot {
        let mode = self.looked_at(now).mode();
        let callers = {
            let mut guarded = self.lock();
            let callers = guarded.callers.snapshot(self.nanos(now));
            self.mark(&guarded.callers);
            callers
        };
        let counted = |index: usize| self.transitions[index].load(Ordering::Relaxed);
        let mut index = 0..;
        BreakerSnapshot {
            state: mode.state(),
            forced: mode.is_forced(),
            transitions: TRANSITIONS.map(|(from, to)| (from, to, index.next().map_or(0, counted))),
            rejections: self.rejections.load(Ordering::Relaxed),
            caller_rejections: self.caller_rejections.load(Ordering::Relaxed),
            callers,
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

    /// Closes it, for every caller too, and forgets every failure; from here on it works by itself again. Its counters go
    /// on.
    pub fn reset(&self) {
        self.put(Mode::Closed);
    }

    /// Opens it again after a recovery that failed, for longer than before.
    pub(super) fn reopen(&self, guarded: &mut Guarded, word: Word, now: Instant) {
        guarded.recoveries = guarded.recoveries.saturating_add(1);
        self.open(guarded, word, now);
    }

    pub(super) fn open(&self, guarded: &mut Guarded, word: Word, now: Instant) {
        let length = self.live.open_for(guarded.recoveries, self.random.hash_one(word.bits()));
        self.publish(guarded, word, Mode::Open, self.nanos(now).saturating_add(length));
    }

    /// Ends a half-open state whose time is up. Probes that are still out count as failed: for all if they are of
    /// several callers, else for the one that they are of. If that leaves nothing, there was merely no traffic: the
    /// breaker opens without a wait, and the next call is its probe.
    pub(super) fn expire(&self, guarded: &mut Guarded, now: Instant) {
        let word = self.locked_word();
        if word.mode() != Mode::HalfOpen || self.nanos(now) < self.until.load(Ordering::Relaxed) {
            return;
        }
        let known: Vec<_> = guarded.probers.iter().flatten().copied().collect();
        if word.probes() as usize > known.len() {
            return self.reopen(guarded, word, now);
        }
        let event = self.event(now);
        let of_several = known.iter().fold(false, |_, caller| guarded.callers.failed_probe(*caller, event));
        if of_several {
            return self.reopen(guarded, word, now);
        }
        for caller in known {
            guarded.callers.open_once(caller, event);
        }
        self.publish(guarded, word, Mode::Open, event.now);
    }

    fn looked_at(&self, now: Instant) -> Word {
        let word = Word::from(self.word.load(Ordering::Acquire));
        if word.mode() != Mode::HalfOpen {
            return word;
        }
        let mut guarded = self.lock();
        self.expire(&mut guarded, now);
        self.locked_word()
    }

    /// Changes the state by hand.
    fn put(&self, mode: Mode) {
        let mut guarded = self.lock();
        guarded.recoveries = 0;
        guarded.callers.clear();
        self.publish(&mut guarded, self.locked_word(), mode, NEVER);
    }

    /// Goes from the state in `word` to another.
    pub(super) fn publish(&self, guarded: &mut Guarded, word: Word, mode: Mode, until: u64) -> Word {
        if let Some(window) = self.window.get().filter(|_| mode == Mode::Closed) {
            window.clear();
        }
        guarded.probers.clear();
        let mut next = word.next(mode);
        if mode == Mode::Closed {
            guarded.callers.end_run();
            next = next.with_callers(guarded.callers.any_failures(), guarded.callers.any_open());
        }
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

    /// Says in the word of a closed breaker what stands in the table. Only with the lock held.
    pub(super) fn mark(&self, callers: &Callers) {
        let mut word = self.locked_word();
        while word.mode() == Mode::Closed {
            let marked = word.with_callers(callers.any_failures(), callers.any_open());
            if marked == word {
                return;
            }
            match self.word.compare_exchange(word.bits(), marked.bits(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(seen) => word = Word::from(seen),
            }
        }
    }

    pub(super) fn event(&self, now: Instant) -> Event<'_> {
        let now = self.nanos(now);
        Event { live: &self.live, now, random: self.random.hash_one(now) }
    }

    pub(super) fn lock(&self) -> impl std::ops::DerefMut<Target = Guarded> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The word as it stands, with the lock held: but for the count of a closed breaker nobody else changes it.
    pub(super) fn locked_word(&self) -> Word {
        Word::from(self.word.load(Ordering::Relaxed))
    }

    /// A moment as it is stored: before [`NEVER`], however late it is.
    pub(super) fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.origin).as_nanos()).unwrap_or(NEVER).min(NEVER - 1)
    }
}
