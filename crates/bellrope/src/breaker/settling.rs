//! What the end of a call does to a breaker.

use std::time::Instant;

use super::{
    caller::Caller,
    callers::Verdict,
    core::{Breaker, Guarded, NEVER},
    now::Now,
    word::{Key, Mode, Word},
};
use crate::sync::Ordering;

impl Breaker {
    /// A call that was admitted under `key` went well.
    #[inline(always)]
    pub(super) fn succeeded(
        &self,
        key: u32,
        caller: impl FnOnce() -> Option<Caller>,
        started: Option<Instant>,
        now: impl Now,
    ) {
        let word = Word::from(self.word.load(Ordering::Acquire));
        if word.is_closed_without_failure(key) && !self.live.has_rates() {
            return;
        }
        self.succeeded_rarer(key, caller, started, now);
    }

    #[cold]
    #[inline(never)]
    fn succeeded_rarer(
        &self,
        key: u32,
        caller: impl FnOnce() -> Option<Caller>,
        started: Option<Instant>,
        now: impl Now,
    ) {
        self.settle(key, caller(), started, now.now(), true);
    }

    /// Counts how a call ended, unless it was admitted under an older state.
    #[cold]
    pub(super) fn settle(&self, key: u32, caller: Option<Caller>, started: Option<Instant>, now: Instant, well: bool) {
        let slow = self.live.has_slow_rate()
            && started.is_some_and(|started| now.saturating_duration_since(started) >= self.live.slow_call());
        let state = match Key::from(key) {
            Key::State(state) => state,
            Key::OfCaller(of) => {
                let mut guarded = self.lock();
                guarded.callers.settle_probe(of, Some(well && !slow), self.event(now));
                return self.mark(&guarded.callers);
            }
            Key::Placed { .. } => return self.settle_probe(key, now, well && !slow),
        };
        let word = Word::from(self.word.load(Ordering::Acquire));
        match word.mode() {
            _ if word.key() != state => {}
            Mode::Closed if self.live.enabled() => {
                let caller = caller.filter(|_| self.live.min_callers() > 1);
                if !self.rate(state, caller, now, !well, slow) {
                    self.count(state, caller, now, well);
                }
            }
            Mode::HalfOpen => self.settle_probe(key, now, well && !slow),
            Mode::Closed | Mode::Open | Mode::ForcedOpen | Mode::ForcedClosed => {}
        }
    }

    /// Counts a call in the window of the rates. Answers whether that has opened something.
    fn rate(&self, key: u32, caller: Option<Caller>, now: Instant, failed: bool, slow: bool) -> bool {
        let Some(window) = self.window.get().filter(|_| self.live.has_rates()) else { return false };
        let is_reached = window.note(self.nanos(now), failed, slow, &self.live);
        let Some(caller) = caller.filter(|_| failed || slow) else {
            if is_reached {
                self.trip(key, now);
            }
            return is_reached;
        };
        let mut guarded = self.lock();
        let word = self.locked_word();
        if word.key() != key {
            return true;
        }
        let is_of_several = guarded.callers.bad(caller, self.event(now));
        match (is_reached, is_of_several) {
            (false, _) => {}
            (true, true) => self.open_for_all(&mut guarded, word, now),
            (true, false) => {
                guarded.callers.open_once(caller, self.event(now));
                self.mark(&guarded.callers);
                // What it counted was this caller's, mostly.
                window.clear();
            }
        }
        is_reached
    }

    /// Counts failures in a row.
    fn count(&self, key: u32, caller: Option<Caller>, now: Instant, well: bool) {
        if let Some(caller) = caller.filter(|_| !well) {
            return self.count_failure(key, caller, now);
        }
        let mut word = Word::from(self.word.load(Ordering::Acquire));
        // Only the count changes here; whoever changes the state meanwhile makes the exchange fail.
        while word.key() == key {
            let failures = if well { 0 } else { word.failures().saturating_add(1) };
            if failures >= self.live.failure_threshold() {
                return self.trip(key, now);
            }
            let counted = word.with_failures(failures);
            match self.word.compare_exchange(word.bits(), counted.bits(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(seen) => word = Word::from(seen),
            }
        }
        if well && word.has_callers() {
            let mut guarded = self.lock();
            if self.locked_word().key() == key {
                guarded.callers.succeeded(caller, self.event(now));
                self.mark(&guarded.callers);
            }
        }
    }

    fn count_failure(&self, key: u32, caller: Caller, now: Instant) {
        let mut guarded = self.lock();
        let word = self.locked_word();
        if word.key() != key {
            return;
        }
        match guarded.callers.failed(caller, self.event(now)) {
            Verdict::ForAll => self.open_for_all(&mut guarded, word, now),
            Verdict::ForCaller | Verdict::Nothing => self.mark(&guarded.callers),
        }
    }

    #[cold]
    fn settle_probe(&self, key: u32, now: Instant, well: bool) {
        let mut guarded = self.lock();
        let Some((word, caller)) = self.take_probe(&mut guarded, key) else { return };
        if well {
            if let Some(caller) = caller {
                guarded.callers.recovered(caller);
            }
            let word = word.without_probe().with_success();
            if word.successes() >= self.live.success_threshold() {
                guarded.recoveries = 0;
                self.publish(&mut guarded, word, Mode::Closed, NEVER);
            } else {
                self.word.store(word.bits(), Ordering::Release);
            }
            return;
        }
        let event = self.event(now);
        match caller {
            // One caller's failures keep it from nobody else.
            Some(caller) if !guarded.callers.failed_probe(caller, event) => {
                guarded.callers.open_once(caller, event);
                self.word.store(word.without_probe().bits(), Ordering::Release);
            }
            _ => self.reopen(&mut guarded, word, now),
        }
    }

    /// Takes a probe off the list, and says whose it was. `None`: it is of a state that is over. Every change of state
    /// empties the list.
    fn take_probe(&self, guarded: &mut Guarded, key: u32) -> Option<(Word, Option<Caller>)> {
        let word = self.locked_word();
        match Key::from(key) {
            Key::State(state) => (word.key() == state).then_some((word, None)),
            Key::Placed { place, generation } if word.short_generation() == generation => {
                let caller = guarded.probers.get_mut(place)?.take()?;
                Some((word, Some(caller)))
            }
            Key::Placed { .. } | Key::OfCaller(_) => None,
        }
    }

    /// A permit was dropped without a verdict.
    #[cold]
    pub(super) fn released(&self, key: u32) {
        let mut guarded = self.lock();
        if let Key::OfCaller(of) = Key::from(key) {
            guarded.callers.settle_probe(of, None, self.event(self.origin));
        } else if let Some((word, _)) = self.take_probe(&mut guarded, key) {
            self.word.store(word.without_probe().bits(), Ordering::Release);
        }
    }

    /// Opens a closed breaker.
    #[cold]
    fn trip(&self, key: u32, now: Instant) {
        let mut guarded = self.lock();
        let word = self.locked_word();
        if word.key() == key && word.mode() == Mode::Closed {
            self.open_for_all(&mut guarded, word, now);
        }
    }

    fn open_for_all(&self, guarded: &mut Guarded, word: Word, now: Instant) {
        guarded.recoveries = 0;
        guarded.callers.forget_failures();
        self.open(guarded, word, now);
    }
}
