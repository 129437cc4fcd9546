//! What was freed in pieces and stays with the C library: it is in no budget, and adds to what the budget allows.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bellrope_proto::BufferBudget;
use bellrope_shm::process::trim_heap;

/// The heap is trimmed after each such part of the budget that was granted...
const GRANTED: u64 = 8;
/// ...while more than this part of it is in use: then what lies idle may exceed what the process is to take.
const USED: u64 = 4;

/// Bytes that were granted since the heap of this process was trimmed.
static SINCE: AtomicU64 = AtomicU64::new(0);

/// Told of each large grant, before memory is taken for it. Each thread has a heap of its own, so what one has freed is of
/// no use to the next, and one small thing that stays keeps the rest of it.
pub(crate) fn granted(bytes: u64, budget: &BufferBudget) {
    let since = SINCE.fetch_add(bytes, Relaxed).saturating_add(bytes);
    if is_due(since, budget.used(), budget.limit()) {
        SINCE.store(0, Relaxed);
        trim_heap();
    }
}

fn is_due(since: u64, used: u64, limit: u64) -> bool {
    since >= limit / GRANTED && used > limit / USED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heap_is_trimmed_where_the_budget_is_short_and_not_for_each_message() {
        assert!(is_due(100, 201, 800));
        assert!(!is_due(99, 800, 800), "for each message");
        assert!(!is_due(1_000_000, 200, 800), "without need");
    }
}
