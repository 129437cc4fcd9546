//! Callers on other machines, which their servers may invent.

use std::time::Instant;

use bellrope::breaker::{BreakerState as State, Caller};

use super::{HONEST, admits, breaker, fail, seconds};

#[test]
fn callers_that_one_server_invents_open_it_for_themselves_and_never_for_all() {
    let (breaker, now) = (breaker(), Instant::now());
    let invented = |server, caller| Caller::Remote { server, caller };
    fail(&breaker, invented(1, 1), 5, now);
    assert!(!admits(&breaker, invented(1, 1), now) && admits(&breaker, invented(1, 2), now));
    for caller in 2..1_000 {
        // More than it remembers.
        fail(&breaker, invented(1, caller), 4, now);
        assert_eq!(breaker.state(now), State::Closed, "{caller}");
    }
    assert!(admits(&breaker, invented(2, 1), now) && admits(&breaker, HONEST, now));
    fail(&breaker, invented(2, 1), 1, now);
    assert_eq!(breaker.state(now), State::Open, "another server has met it, too");
    // While it is half-open, all of its callers together have not all places.
    let later = now + seconds(60);
    let held: Vec<_> = (1..10).filter_map(|caller| breaker.acquire_for(|| invented(3, caller), later).ok()).collect();
    assert_eq!(held.len(), 2);
    assert!(admits(&breaker, HONEST, later));
}
