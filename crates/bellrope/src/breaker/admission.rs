//! Which calls a breaker admits.

use std::time::{Duration, Instant};

use super::{
    caller::Caller,
    callers::Admission,
    config::{PROBES_OUT, nanos_of},
    core::{Breaker, Guarded},
    now::Now,
    permit::{Admitted, Permit},
    state::Rejected,
    word::{Key, Mode, PLACES, Word},
};
use crate::sync::Ordering;

impl Breaker {
    /// Admits a call, or not. The time is asked for only if the breaker is not closed, or if it looks at slow calls.
    ///
    /// # Errors
    /// [`Rejected`] while the breaker is open, and while it is half-open with all probes out.
    #[inline]
    pub fn acquire(&self, now: impl Now) -> Result<Permit<&Self>, Rejected> {
        let admitted = self.admit(|| None, now)?;
        Ok(Permit::new(self, admitted))
    }

    /// Admits a call of somebody, or not: see [`min_callers`](super::BreakerConfig::min_callers). `caller` is asked who
    /// calls only while somebody's calls are refused. The permit is to be settled for the same caller.
    ///
    /// ```
    /// use std::time::Instant;
    ///
    /// use bellrope::breaker::{Breaker, BreakerConfig, BreakerState, Caller};
    ///
    /// # fn main() -> Result<(), bellrope::breaker::BreakerSetting> {
    /// let breaker = Breaker::new(BreakerConfig::default())?;
    /// let (one, other) = (Caller::Connection(1), Caller::Connection(2));
    /// for _ in 0..5 {
    ///     breaker.acquire_for(|| one, Instant::now).expect("closed").fail_for(one, Instant::now);
    /// }
    /// assert!(breaker.acquire_for(|| one, Instant::now).is_err_and(|rejected| rejected.for_caller));
    /// assert!(breaker.acquire_for(|| other, Instant::now).is_ok());
    /// assert_eq!(breaker.state(Instant::now()), BreakerState::Closed);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Breaker::acquire`], and [`Rejected`] while this caller's own breaker is open.
    #[inline]
    pub fn acquire_for(&self, caller: impl FnOnce() -> Caller, now: impl Now) -> Result<Permit<&Self>, Rejected> {
        let admitted = self.admit(|| Some(caller()), now)?;
        Ok(Permit::new(self, admitted))
    }

    /// Admits a call of anybody, if that takes one look: the breaker is closed for all, and does not look at slow calls. `None`:
    /// ask [`Breaker::acquire_for`].
    #[cfg(feature = "server")]
    #[inline(always)]
    pub(crate) fn acquire_at_once(&self) -> Option<Permit<&Self>> {
        let word = Word::from(self.word.load(Ordering::Acquire));
        if !word.admits_all() || self.live.has_slow_rate() {
            return None;
        }
        Some(Permit::new(self, Admitted { key: word.key(), started: None }))
    }

    /// Like [`Breaker::acquire`], with a permit that may be kept with the call.
    ///
    /// # Errors
    /// As [`Breaker::acquire`].
    #[inline]
    pub fn acquire_owned(self: &std::sync::Arc<Self>, now: impl Now) -> Result<Permit<std::sync::Arc<Self>>, Rejected> {
        let admitted = self.admit(|| None, now)?;
        Ok(Permit::new(std::sync::Arc::clone(self), admitted))
    }

    /// Like [`Breaker::acquire_for`], with a permit that may be kept with the call.
    ///
    /// # Errors
    /// As [`Breaker::acquire_for`].
    #[inline]
    pub fn acquire_owned_for(
        self: &std::sync::Arc<Self>,
        caller: impl FnOnce() -> Caller,
        now: impl Now,
    ) -> Result<Permit<std::sync::Arc<Self>>, Rejected> {
        let admitted = self.admit(|| Some(caller()), now)?;
        Ok(Permit::new(std::sync::Arc::clone(self), admitted))
    }

    /// The closed path: one load.
    #[inline]
    fn admit(&self, caller: impl FnOnce() -> Option<Caller>, now: impl Now) -> Result<Admitted, Rejected> {
        // Acquire pairs with the release in `publish`: who sees a state sees what was written with it.
        let word = Word::from(self.word.load(Ordering::Acquire));
        if word.admits_all() {
            let started = if self.live.has_slow_rate() { Some(now.now()) } else { None };
            return Ok(Admitted { key: word.key(), started });
        }
        self.admit_some(word, caller(), now.now())
    }

    #[cold]
    fn admit_some(&self, mut word: Word, caller: Option<Caller>, now: Instant) -> Result<Admitted, Rejected> {
        let until = self.until.load(Ordering::Relaxed);
        // Most rejections are decided here, without the lock.
        let may_change = match word.mode() {
            Mode::Open => self.nanos(now) >= until,
            Mode::HalfOpen => word.probes() < self.live.half_open_max_requests() || self.nanos(now) >= until,
            Mode::ForcedOpen => false,
            Mode::Closed | Mode::ForcedClosed => true,
        };
        if may_change {
            let mut guarded = self.lock();
            self.expire(&mut guarded, now);
            word = self.locked_word();
            if word.mode() == Mode::Open && self.nanos(now) >= self.until.load(Ordering::Relaxed) {
                let until = self.nanos(now).saturating_add(nanos_of(self.live.half_open_timeout_ms()));
                guarded.callers.end_run();
                word = self.publish(&mut guarded, word, Mode::HalfOpen, until);
            }
            match word.mode() {
                Mode::HalfOpen if word.probes() < self.live.half_open_max_requests() => {
                    if let Some(key) = self.probe(&mut guarded, word, caller, now)? {
                        self.word.store(word.with_probe().bits(), Ordering::Release);
                        return Ok(Admitted { key, started: Some(now) });
                    }
                }
                Mode::Closed => return self.admit_caller(&mut guarded, word, caller, now),
                Mode::ForcedClosed => return Ok(Admitted { key: word.key(), started: Some(now) }),
                Mode::Open | Mode::HalfOpen | Mode::ForcedOpen => {}
            }
        }
        self.rejections.fetch_add(1, Ordering::Relaxed);
        Err(self.rejection(word, now))
    }

    /// Admits a call while the breaker is closed, unless it is open for this caller alone.
    fn admit_caller(
        &self,
        guarded: &mut Guarded,
        word: Word,
        caller: Option<Caller>,
        now: Instant,
    ) -> Result<Admitted, Rejected> {
        let admission = caller.map_or(Admission::Free, |caller| guarded.callers.admit(caller, self.event(now)));
        self.mark(&guarded.callers);
        match admission {
            Admission::Free => Ok(Admitted { key: word.key(), started: Some(now) }),
            Admission::Probe(of) => Ok(Admitted { key: Key::OfCaller(of).bits(), started: Some(now) }),
            Admission::Refused(left) => Err(self.refuse_caller(left)),
        }
    }

    /// The key of one more probe. `None`: there is no place for it, since one caller may not have them all.
    fn probe(
        &self,
        guarded: &mut Guarded,
        word: Word,
        caller: Option<Caller>,
        now: Instant,
    ) -> Result<Option<u32>, Rejected> {
        let Some(caller) = caller.filter(|_| self.live.min_callers() > 1) else { return Ok(Some(word.key())) };
        if let Some(left) = guarded.callers.refuses(caller, self.nanos(now)) {
            return Err(self.refuse_caller(left));
        }
        let is_own = |prober: &Option<Caller>| prober.is_some_and(|prober| prober.origin() == caller.origin());
        let own = guarded.probers.iter().filter(|prober| is_own(prober)).count();
        if own >= (self.live.half_open_max_requests() as usize - 1).max(1) {
            return Ok(None);
        }
        let place = match guarded.probers.iter().position(Option::is_none) {
            Some(place) => place,
            None if guarded.probers.len() == PLACES => return Ok(None),
            None => {
                guarded.probers.push(None);
                guarded.probers.len() - 1
            }
        };
        guarded.probers[place] = Some(caller);
        Ok(Some(Key::Placed { place, generation: word.short_generation() }.bits()))
    }

    fn refuse_caller(&self, left: u64) -> Rejected {
        self.rejections.fetch_add(1, Ordering::Relaxed);
        self.caller_rejections.fetch_add(1, Ordering::Relaxed);
        Rejected { for_caller: true, retry_after: Some(Duration::from_nanos(left)) }
    }

    fn rejection(&self, word: Word, now: Instant) -> Rejected {
        let left = Duration::from_nanos(self.until.load(Ordering::Relaxed).saturating_sub(self.nanos(now)));
        Rejected {
            for_caller: false,
            retry_after: match word.mode() {
                Mode::ForcedOpen => None,
                Mode::HalfOpen => Some(left.min(PROBES_OUT)),
                _ => Some(left),
            },
        }
    }
}
