//! A worker's inbox, and the place where it is parked while it sleeps, under a model checker: the same source, compiled over shuttle's atomics and locks, in thousands of
//! random and adversarial schedules. The bell is a real one.

#[path = "../src"]
#[expect(unreachable_pub, reason = "this is the library's source, of which the model needs a part")]
mod src {
    pub mod server {
        pub mod inbox;
        #[cfg(feature = "tokio")]
        pub mod parked;
    }
}

/// What the inbox is built from here.
mod sync {
    pub(crate) use std::sync::PoisonError;

    pub(crate) use shuttle::sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    };
}

use std::{
    sync::{
        Arc,
        // Not the model's: the worker only looks at it, as it does at its server's.
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use bellrope_shm::wait;
use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler},
    thread,
};
use src::server::inbox::Inbox;
#[cfg(feature = "tokio")]
use src::server::parked::Parked;

/// What travels here means nothing to the inbox.
type Message = ();

/// Of each kind; `BELLROPE_SCHEDULES` asks for more.
const SCHEDULES: usize = 1_500;

/// Runs `body` in random schedules, and in schedules that favour few, well-placed interruptions.
fn in_many_schedules(body: fn()) {
    let asked = std::env::var("BELLROPE_SCHEDULES").ok().and_then(|text| text.parse().ok());
    let schedules = asked.unwrap_or(SCHEDULES);
    let mut config = Config::default();
    config.silence_warnings = true; // that all orderings count as the strongest: those that matter here are
    Runner::new(RandomScheduler::new(schedules), config.clone()).run(body);
    Runner::new(PctScheduler::new(3, schedules), config).run(body);
}

fn has_rung<M>(inbox: &Inbox<M>) -> bool {
    wait::readable(inbox.notifier(), Some(Duration::ZERO)).unwrap()
}

/// The worker's turns until it would fall asleep. Answers how many messages it took, and whether it would.
fn turns(inbox: &Inbox<Message>) -> (usize, bool) {
    let mut taken = 0;
    for _ in 0..3 {
        taken += inbox.take().len();
        if inbox.prepare_sleep() {
            return (taken, true);
        }
        inbox.awake();
    }
    (taken, false)
}

#[test]
fn nobody_sleeps_over_a_message() {
    in_many_schedules(|| {
        let inbox = Inbox::<Message>::new().unwrap();
        let senders = [(); 2].map(|()| {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || inbox.send(()))
        });
        let (taken, asleep) = turns(&inbox);
        senders.into_iter().for_each(|sender| assert!(sender.join().unwrap()));
        let rung = has_rung(&inbox);
        let left = inbox.take().len();
        assert_eq!(taken + left, 2, "each message is taken once");
        assert!(rung || !asleep || left == 0, "the worker sleeps over {left} messages");
    });
}

#[test]
fn nothing_stays_with_a_worker_that_has_ended() {
    in_many_schedules(|| {
        let inbox = Inbox::<Message>::new().unwrap();
        let senders = [(); 2].map(|()| {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || inbox.send(()))
        });
        let taken = inbox.take().len() + inbox.close().len();
        let sent = senders.into_iter().map(|sender| sender.join().unwrap()).filter(|sent| *sent).count();
        assert_eq!(taken, sent, "what is not taken is known to its sender");
        assert!(inbox.take().is_empty() && !inbox.send(()));
    });
}

#[test]
fn whoever_falls_asleep_while_the_server_stops_is_woken() {
    in_many_schedules(|| {
        let (inbox, stopping) = (Inbox::<Message>::new().unwrap(), Arc::new(AtomicBool::new(false)));
        let stop = {
            let (inbox, stopping) = (Arc::clone(&inbox), Arc::clone(&stopping));
            thread::spawn(move || {
                stopping.store(true, SeqCst);
                inbox.wake();
            })
        };
        let asleep = !stopping.load(SeqCst) && turns(&inbox).1;
        stop.join().unwrap();
        assert!(!asleep || has_rung(&inbox), "the worker sleeps on");
    });
}

/// A worker that may be parked, and the messages that it has done.
#[cfg(feature = "tokio")]
type Done = Vec<u32>;

/// The worker's turns until it sleeps for good, parked, or until all was done that comes.
#[cfg(feature = "tokio")]
fn turns_and_naps(inbox: &Inbox<u32>, parked: &Parked<Done>, mut worker: Box<Done>) {
    for _ in 0..4 {
        worker.extend(inbox.take());
        if !inbox.prepare_sleep() {
            inbox.awake();
            continue;
        }
        parked.park(worker);
        thread::yield_now();
        if !wait::readable(inbox.notifier(), Some(Duration::ZERO)).unwrap() {
            return;
        }
        worker = parked.take();
        inbox.awake();
        inbox.notifier().clear();
    }
    // What is left is the test's to take.
    inbox.wake();
    parked.park(worker);
}

#[cfg(feature = "tokio")]
#[test]
fn what_is_sent_to_a_parked_worker_is_done_once_in_its_order_or_wakes_it() {
    in_many_schedules(|| {
        let (inbox, parked) = (Inbox::<u32>::new().unwrap(), Arc::new(Parked::<Done>::new()));
        {
            let (inbox_of_it, parked) = (Arc::downgrade(&inbox), Arc::clone(&parked));
            inbox.stand_in_with(move || {
                let Some(inbox) = inbox_of_it.upgrade() else { return false };
                parked.stand_in(|worker| worker.extend(inbox.take())).is_some()
            });
        }
        let senders = [1, 11].map(|first| {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || [first, first + 1].into_iter().all(|message| inbox.send_or_stand_in(message)))
        });
        turns_and_naps(&inbox, &parked, Box::default());
        senders.into_iter().for_each(|sender| assert!(sender.join().unwrap()));
        let (rung, mut done) = (has_rung(&inbox), *parked.take());
        let left = inbox.take();
        assert!(rung || left.is_empty(), "the worker sleeps over {left:?}");
        done.extend(left);
        let of = |first: u32| done.iter().copied().filter(|message| message / 10 == first / 10).collect::<Vec<_>>();
        assert_eq!((of(1), of(11)), (vec![1, 2], vec![11, 12]), "each is done once, in the order of its sender");
    });
}
