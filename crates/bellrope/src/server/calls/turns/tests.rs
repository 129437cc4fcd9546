use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bellrope_proto::BufferBudget;

use super::*;

/// A connection with many calls, all of which could go on at any time.
const MANY: usize = 1_000;

/// Ready as often as it is polled, and so many times polled before it ends.
fn busy(polls: usize, mut polled: impl FnMut()) -> impl Future<Output = ()> {
    let mut left = polls;
    std::future::poll_fn(move |context| {
        polled();
        left -= 1;
        if left == 0 {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

impl TaskHandle {
    fn is_finished(&self) -> bool {
        self.0.is(State::Ended)
    }
}

fn is_empty(turns: &Turns) -> bool {
    let queue = turns.queue();
    queue.having == 0 && queue.waiting.is_empty()
}

/// Runs what stands in the runtime's queue, some rounds of it.
fn run(runtime: &tokio::runtime::Runtime, rounds: usize) {
    runtime.block_on(async {
        for _ in 0..rounds {
            tokio::task::yield_now().await;
        }
    });
}

/// It looks at what comes from elsewhere after every poll.
fn one_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().global_queue_interval(1).build().unwrap()
}

// Fault 65.
#[test]
fn a_connection_with_one_task_waits_for_a_few_polls_of_one_with_a_thousand() {
    let runtime = one_thread();
    let order: Arc<Mutex<Vec<usize>>> = Arc::default();
    let (crowd, lone) = (Turns::default(), Turns::default());
    for _ in 0..MANY {
        let order = Arc::clone(&order);
        crowd.spawn(runtime.handle(), busy(100, move || order.lock().unwrap().push(0)));
    }
    let polled = Arc::clone(&order);
    lone.spawn(runtime.handle(), busy(10, move || polled.lock().unwrap().push(1)));
    while !is_empty(&lone) {
        run(&runtime, 1);
    }
    let order = order.lock().unwrap();
    let waits: Vec<_> = order.split(|who| *who == 1).map(<[_]>::len).collect();
    assert_eq!(waits.len(), 11);
    assert!(
        waits[..10].iter().all(|polls| *polls <= 2 * AT_ONCE),
        "polls of the others before each of its own: {waits:?}"
    );
}

#[test]
fn tasks_of_one_connection_go_on_in_the_order_in_which_they_were_woken() {
    let runtime = one_thread();
    let order: Arc<Mutex<Vec<usize>>> = Arc::default();
    let turns = Turns::default();
    for who in 0..50 {
        let order = Arc::clone(&order);
        turns.spawn(runtime.handle(), busy(3, move || order.lock().unwrap().push(who)));
    }
    while !is_empty(&turns) {
        run(&runtime, 1);
    }
    let order = order.lock().unwrap();
    let expected: Vec<_> = (0..3).flat_map(|_| 0..50).collect();
    assert_eq!(*order, expected);
}

#[test]
fn a_task_that_is_dropped_passes_its_turn_on_and_leaves_nothing() {
    let runtime = one_thread();
    let turns = Turns::default();
    let ran = Arc::new(AtomicUsize::new(0));
    let stuck: Vec<_> = (0..AT_ONCE).map(|_| turns.spawn(runtime.handle(), busy(usize::MAX, || {}))).collect();
    let waiting: Vec<_> = (0..MANY).map(|_| turns.spawn(runtime.handle(), std::future::pending())).collect();
    let ends = {
        let ran = Arc::clone(&ran);
        turns.spawn(runtime.handle(), async move {
            ran.fetch_add(1, SeqCst);
        })
    };
    // Before any of them was polled, and then one by one while they are.
    waiting.iter().step_by(2).for_each(TaskHandle::abort);
    run(&runtime, 3);
    waiting.iter().for_each(TaskHandle::abort);
    while !ends.is_finished() {
        run(&runtime, 1);
    }
    assert_eq!(ran.load(SeqCst), 1);
    stuck.iter().for_each(TaskHandle::abort);
    while !stuck.iter().chain(&waiting).all(TaskHandle::is_finished) {
        run(&runtime, 1);
    }
    assert!(is_empty(&turns), "{turns:?}");
}

// Fault 65.
#[test]
fn a_thousand_tasks_that_are_taken_back_are_dropped_in_turns_with_those_of_others() {
    struct Noted(Arc<Mutex<Vec<usize>>>, usize);

    impl Drop for Noted {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(self.1);
        }
    }

    let runtime = one_thread();
    let order: Arc<Mutex<Vec<usize>>> = Arc::default();
    let (crowd, lone) = (Turns::default(), Turns::default());
    let spawn = |turns: &Turns, who| {
        let noted = Noted(Arc::clone(&order), who);
        turns.spawn(runtime.handle(), async move {
            let _noted = noted;
            std::future::pending::<()>().await;
        })
    };
    let mut tasks: Vec<_> = (0..MANY).map(|_| spawn(&crowd, 0)).collect();
    while !is_empty(&crowd) {
        run(&runtime, 1);
    }
    // Those that wait for their first turn are no different.
    tasks.extend((0..MANY).map(|_| spawn(&crowd, 0)));
    tasks.iter().for_each(TaskHandle::abort);
    spawn(&lone, 1).abort();
    while !(is_empty(&crowd) && is_empty(&lone)) {
        run(&runtime, 1);
    }
    let order = order.lock().unwrap();
    assert_eq!(order.len(), 2 * MANY + 1, "each was dropped, on the runtime");
    let before = order.iter().position(|who| *who == 1).unwrap();
    assert!(before <= 2 * AT_ONCE, "{before} were dropped before the other's");
}

#[test]
fn nothing_is_forgotten_where_many_threads_wake_and_drop() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    let connections = [(); 3].map(|()| Turns::default());
    let ended = Arc::new(AtomicUsize::new(0));
    let (mut aborted, mut others) = (Vec::new(), Vec::new());
    for number in 0..3 * MANY {
        let turns = &connections[number % 3];
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<()>(1);
        let is_aborted = number % 5 == 0;
        let ended = Arc::clone(&ended);
        let task = turns.spawn(runtime.handle(), async move {
            for _ in 0..5 {
                receiver.recv().await;
                tokio::task::yield_now().await;
            }
            // One that is dropped ends too, without having done this.
            ended.fetch_add(usize::from(!is_aborted), SeqCst);
        });
        // Woken from elsewhere, each again and again.
        runtime.spawn(async move { while sender.send(()).await.is_ok() {} });
        if is_aborted { &mut aborted } else { &mut others }.push(task);
    }
    aborted.iter().for_each(TaskHandle::abort);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !connections.iter().all(is_empty) || !others.iter().chain(&aborted).all(TaskHandle::is_finished) {
        assert!(std::time::Instant::now() < deadline, "{} of {} have ended", ended.load(SeqCst), others.len());
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(ended.load(SeqCst), others.len());
}

#[test]
fn a_runtime_that_has_ended_takes_everything_with_it() {
    let runtime = one_thread();
    let handle = runtime.handle().clone();
    let turns = Turns::default();
    let held = Arc::new(());
    let spawn = || {
        let held = Arc::clone(&held);
        turns.spawn(&handle, busy(usize::MAX, move || drop(Arc::clone(&held))))
    };
    let tasks: Vec<_> = (0..10 * MANY).map(|_| spawn()).collect();
    run(&runtime, 3);
    drop(runtime);
    assert!(is_empty(&turns) && Arc::strong_count(&held) == 1, "{turns:?}");
    spawn().abort();
    drop(tasks);
    assert!(is_empty(&turns) && Arc::strong_count(&held) == 1, "{turns:?}");
}

// Fault 65.
#[test]
fn a_process_with_many_busy_connections_has_as_many_tasks_in_the_runtimes_queue_as_it_has_connections() {
    const CONNECTIONS: usize = 50;

    let runtime = one_thread();
    let order: Arc<Mutex<Vec<usize>>> = Arc::default();
    let budget = BufferBudget::new(1_000_000);
    let process = Holder::new(&budget, None);
    let crowd: Vec<_> =
        (0..CONNECTIONS).map(|_| (Turns::default(), Holder::new(&budget, Some(Arc::clone(&process))))).collect();
    // All of the first one's begin while it is alone.
    let mut held = Vec::new();
    for (turns, holder) in &crowd {
        held.extend(holder.reserve(100));
        for _ in 0..20 {
            let order = Arc::clone(&order);
            turns
                .are_of(holder, runtime.handle())
                .spawn(runtime.handle(), busy(20, move || order.lock().unwrap().push(0)));
        }
    }
    run(&runtime, 50);
    let lone = Turns::default();
    let polled = Arc::clone(&order);
    let before = order.lock().unwrap().len();
    let other = Holder::new(&budget, None);
    lone.are_of(&other, runtime.handle()).spawn(runtime.handle(), busy(5, move || polled.lock().unwrap().push(1)));
    assert!(crowd.iter().all(|(turns, _)| turns.queue().having <= 1), "what one began while it was alone is no more");
    while !is_empty(&lone) {
        run(&runtime, 1);
    }
    let polls = order.lock().unwrap().len() - before;
    assert!(polls <= 6 * (CONNECTIONS + 5), "{polls} polls for five of its own");
    while !crowd.iter().all(|(turns, _)| is_empty(turns)) {
        run(&runtime, 100);
    }
    let polled = order.lock().unwrap().iter().filter(|polled| **polled == 0).count();
    assert_eq!(polled, CONNECTIONS * 20 * 20, "nobody is forgotten");
}
