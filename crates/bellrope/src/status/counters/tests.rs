use super::*;

// Fault 49.
#[test]
fn counts_are_summed_over_workers_and_unknown_types_share_a_row() {
    let metrics = Metrics::new(["echo", "chat"].into_iter(), 0, 2, 10);
    metrics.shard(0).count(1, None);
    metrics.shard(1).count(1, Some(ErrorCode::HandlerPanic));
    metrics.shard(1).count(999, Some(ErrorCode::UnknownMessageType));
    metrics.shard(0).count(0, Some(ErrorCode::UnknownMessageType));
    metrics.shard(0).time(2, 10, 4);
    metrics.shard(0).time(2, 11, 1);
    let snapshot = metrics.snapshot();
    let totals: Vec<_> = snapshot.types.iter().map(|row| (row.name.as_str(), row.total())).collect();
    assert_eq!(totals, [("echo", 2), ("chat", 0), ("unknown", 2)]);
    assert_eq!(snapshot.types[0].outcomes[2], ("handler_panic", 1));
    assert_eq!(snapshot.types[1].buckets[3], 4, "the bound belongs to its bucket");
    assert_eq!(snapshot.types[1].buckets[4], 1);
    assert_eq!(snapshot.types[1].latency_sum, Duration::from_micros(51));
    assert_eq!([snapshot.total_requests(), metrics.total_requests()], [4, 4]);
}

/// Counters are written with every call: two workers that shared a line would take it from each other each time.
#[test]
fn no_line_has_counters_of_two_workers() {
    const LINE: usize = 64;
    const WORKERS: usize = 8;
    fn note<T>(part: &T, worker: usize, owners: &mut std::collections::HashMap<usize, usize>) {
        let start = std::ptr::from_ref(part).addr();
        for line in start / LINE..=(start + size_of::<T>() - 1) / LINE {
            let owner = *owners.entry(line).or_insert(worker);
            assert_eq!(owner, worker, "line {line:#x} has counters of both");
        }
    }
    let metrics = Metrics::new(["echo", "chat"].into_iter(), 3, WORKERS, 10);
    let mut owners = std::collections::HashMap::new();
    for worker in 0..WORKERS {
        let shard: &Shard = metrics.shard(worker);
        note(shard, worker, &mut owners);
        shard.types.iter().for_each(|counters| note(counters, worker, &mut owners));
    }
    // Three lines and a bit for each of six types, and one for the shard.
    assert!(owners.len() >= WORKERS * (1 + 6 * 3));
}

#[test]
fn what_an_async_handler_has_begun_is_running_until_it_has_ended() {
    let metrics = Metrics::new(["chat"].into_iter(), 0, 2, 10);
    metrics.shard(0).began(1);
    metrics.shard(1).began(1);
    assert_eq!(metrics.snapshot().types[0].running, 2);
    metrics.shard(1).ended(1);
    assert_eq!(metrics.snapshot().types[0].running, 1);
    metrics.shard(0).round(7);
    metrics.shard(1).round(5);
    assert_eq!(metrics.snapshot().queued_requests, 12);
}

#[cfg(feature = "tokio")]
#[test]
fn what_the_acceptor_says_is_what_others_hear() {
    let metrics = Metrics::new(["chat"].into_iter(), 0, 1, 2);
    assert_eq!(metrics.readiness(), Readiness::Starting);
    metrics.accepting(false);
    assert_eq!(metrics.readiness(), Readiness::Ready);
    metrics.accepting(true);
    assert_eq!(metrics.readiness(), Readiness::Exhausted);
    metrics.accepted.store(2, Relaxed);
    metrics.accepting(true);
    assert_eq!(metrics.readiness(), Readiness::Full);
    metrics.serving.store(false, Relaxed);
    metrics.accepting(true);
    assert_eq!(metrics.readiness(), Readiness::Stopping);
    metrics.serving.store(true, Relaxed);
    assert_eq!(metrics.readiness(), Readiness::Stopping, "whatever it said last");
}

#[test]
fn the_latest_breaker_of_a_name_is_shown() {
    let metrics = Metrics::new(["chat"].into_iter(), 0, 1, 10);
    let breaker = || Arc::new(Breaker::new(crate::breaker::BreakerConfig::default()).unwrap());
    metrics.watch_breaker("chat", breaker());
    let second = breaker();
    second.force_open();
    metrics.watch_breaker("chat", second);
    let breakers = metrics.snapshot().breakers;
    assert_eq!((breakers.len(), breakers[0].1.state), (1, crate::breaker::BreakerState::Open));
    metrics.forget_breaker("chat");
    assert!(metrics.snapshot().breakers.is_empty() && metrics.breaker("chat").is_none());
}

/// Prints what counting and timing costs a call, as a worker does it: each counted, one in 32 timed for 32.
/// `cargo test --release -p bellrope --lib what_counting_costs -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, for a release build on a quiet machine"]
#[expect(clippy::print_stdout, reason = "a measurement prints what it found")]
fn what_counting_costs() {
    const CALLS: u32 = 32_000_000;
    let metrics = Metrics::new(["echo"].into_iter(), 0, 1, 10);
    let shard = metrics.shard(0);
    let began = Instant::now();
    for _ in 0..CALLS / 32 {
        let started = std::hint::black_box(Instant::now());
        for _ in 0..32 {
            std::hint::black_box(shard).count(std::hint::black_box(1), None);
        }
        shard.time(1, started.elapsed().as_micros() as u64, 32);
    }
    println!("{:.2} ns a call", began.elapsed().as_nanos() as f64 / f64::from(CALLS));
    assert_eq!(metrics.snapshot().total_requests(), u64::from(CALLS));
}

#[test]
fn our_own_memory_can_be_read() {
    let memory = crate::status::MemoryUse::of(std::process::id()).unwrap();
    assert!(memory.rss_kb >= memory.anon_kb && memory.anon_kb > 0);
}

/// Asks for a breaker, as one may who shows more of it.
#[derive(Debug)]
struct Asks(std::sync::Weak<Metrics>, std::sync::mpsc::Sender<bool>);

impl Exhibit for Asks {
    fn families(&self) -> Vec<crate::status::Family> {
        let _ = self.1.send(self.0.upgrade().is_some_and(|metrics| metrics.breaker("echo").is_some()));
        Vec::new()
    }

    fn panel(&self) -> crate::status::Panel {
        unreachable!("nobody looks at it")
    }
}

#[test]
fn whoever_shows_something_may_ask_for_a_breaker() {
    let metrics = Arc::new(Metrics::new(["echo"].into_iter(), 0, 1, 10));
    metrics.watch_breaker("echo", Arc::new(Breaker::new(crate::breaker::BreakerConfig::default()).unwrap()));
    let (done, heard) = std::sync::mpsc::channel();
    metrics.watch_exhibit(Arc::new(Asks(Arc::downgrade(&metrics), done)));
    std::thread::spawn(move || metrics.snapshot());
    assert_eq!(heard.recv_timeout(Duration::from_secs(60)), Ok(true), "the lock is free");
}
