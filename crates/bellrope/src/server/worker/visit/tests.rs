use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use bellrope_proto::handshake::Style;

use super::*;
use crate::server::{handler::registry::Registry, instructions};

/// Far longer than a turn may last.
const SLOW: Duration = Duration::from_millis(10);

/// How many calls of all that wait one visit takes, if the handler sleeps from its `slow_from`th call on. `quick` calls
/// are made before.
fn taken_at_once(slow_from: u32, quick: u32) -> u32 {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let mut registry = Registry::default();
    let handler = Handler::Unary(Box::new(move |_, _| {
        if counted.fetch_add(1, Relaxed) + 1 >= slow_from {
            std::thread::sleep(SLOW);
        }
        Ok(())
    }));
    registry.add("sometimes slow", handler);
    let core = instructions::core_with(registry);
    let (mut client, mut session) = instructions::connect(&core);
    let mut visitor = Visitor::new(
        Arc::clone(&core),
        0,
        #[cfg(feature = "tokio")]
        Inbox::new().unwrap(),
    );
    let mut visit = |count: u32| {
        for _ in 0..count {
            client.submit(1, Style::Unary, b"", None).unwrap();
        }
        let _ = client.commit();
        let before = calls.load(Relaxed);
        visitor.visit(&mut session, &mut Turn::default(), u32::MAX).unwrap();
        while let Some(answer) = client.next_response() {
            client.take(&answer, &mut []);
        }
        (calls.load(Relaxed) - before, visitor.overran())
    };
    for _ in 0..quick {
        visit(1);
    }
    let (taken, overran) = visit(BATCH_MESSAGES);
    assert!(overran || taken == BATCH_MESSAGES);
    taken
}

// Fault 63.
#[test]
fn a_visit_to_a_connection_with_slow_calls_is_over_after_one() {
    assert_eq!(taken_at_once(0, 0), 1, "of a handler that nobody knows");
    assert_eq!(taken_at_once(0, 5), 1, "of one that is known to be slow");
}

// Fault 63.
#[test]
fn a_handler_that_was_quick_before_does_not_make_its_visit_much_longer() {
    const KNOWN: u32 = 200;
    for quick_of_visit in [0, 1, 3, 17, 40] {
        let taken = taken_at_once(KNOWN + quick_of_visit + 1, KNOWN);
        assert!(taken <= quick_of_visit + 2 * LOOK_EVERY, "{taken} calls, the first {quick_of_visit} of them quick");
    }
}

// Fault 63.
#[test]
fn a_visit_to_quick_calls_is_as_long_as_ever() {
    // Unless the machine had better to do meanwhile.
    let longest = (0..50).map(|_| taken_at_once(u32::MAX, 200)).max();
    assert_eq!(longest, Some(BATCH_MESSAGES));
}
