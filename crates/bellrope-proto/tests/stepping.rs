//! Death between any two instructions. A process pushes to a ring, or pops from it, one machine instruction at a time; after
//! each of them the other side looks at the ring as if the process had died right there. It is killed for real at some of
//! them, to see that this is the same.
//!
//! Where processes may not be traced this is skipped, and says so.
#![cfg(not(loom))]

use std::{
    fs::File,
    os::fd::AsRawFd,
    process::{Child, Command, Stdio},
};

use bellrope_proto::{
    frame::Kind,
    layout::{ADMITTED, ASLEEP, AWAITED, CONSUMER_POSITION, Geometry},
    ring::{Consumer, Producer, RecordClass, admitted},
};
use bellrope_shm::{MemoryHandle, SharedMemory, View, sync::Ordering};
use bellrope_testkit::skipped;
use nix::{
    sys::{
        ptrace,
        signal::{Signal, raise},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

const PUSHING: &str = "a_record_is_there_wholly_or_not_at_all_whichever_instruction_is_its_producers_last";
const POPPING: &str = "a_producer_goes_on_whichever_instruction_is_its_consumers_last";
/// Number of the scene that this process plays, and where its memory is, if it is not the test itself.
const SCENE: &str = "BELLROPE_STEPPING_SCENE";
const MEMORY: &str = "BELLROPE_STEPPING_MEMORY";
/// How a process says that it may not be traced.
const FORBIDDEN: i32 = 77;
const UNTRACED: &str = "processes may not be traced here";
/// Instructions of each scene after which the process is killed for real.
const KILLS: usize = 16;
/// More instructions than any scene has.
const ENDLESS: usize = 1_000_000;

/// A record.
#[derive(Clone, Copy)]
struct Letter {
    id: u64,
    extension: Option<u64>,
    len: usize,
}

const fn letter(id: u64, len: usize) -> Letter {
    Letter { id, extension: None, len }
}

struct Push {
    name: &'static str,
    /// Whether the ring has a front and a back.
    compact: bool,
    /// Sent and received before.
    before: &'static [Letter],
    /// Whether the consumer sleeps.
    asleep: bool,
    /// Sent instruction by instruction, and committed together.
    act: &'static [Letter],
}

/// As much as a lap takes: a record like the last of them begins the next one.
const LAP: [Letter; 4] = [letter(1, 900), letter(2, 900), letter(3, 900), letter(4, 500)];

const PUSHES: &[Push] = &[
    Push { name: "a record", compact: false, before: &[], asleep: false, act: &[letter(1, 40)] },
    Push {
        name: "a record to a sleeper",
        compact: false,
        before: &[letter(1, 8)],
        asleep: true,
        act: &[letter(2, 200)],
    },
    Push {
        name: "an extended record",
        compact: false,
        before: &[],
        asleep: false,
        act: &[Letter { id: 1, extension: Some(u64::MAX - 5), len: 100 }],
    },
    Push {
        name: "three records at once",
        compact: false,
        before: &[],
        asleep: true,
        act: &[letter(1, 40), letter(2, 0), Letter { id: 3, extension: Some(9), len: 77 }],
    },
    Push { name: "the first record of a lap", compact: false, before: &LAP, asleep: false, act: &[letter(5, 500)] },
    Push {
        name: "the first two of a lap, to a sleeper",
        compact: false,
        before: &LAP,
        asleep: true,
        act: &[letter(5, 500), letter(6, 8)],
    },
    Push {
        name: "a record at which a ring starts over",
        compact: true,
        before: &[],
        asleep: false,
        act: &[letter(1, 1000)],
    },
    Push {
        name: "a record where a ring has started over, to a sleeper",
        compact: true,
        before: &[letter(1, 1000)],
        asleep: true,
        act: &[letter(2, 1000)],
    },
    Push {
        name: "three records, the last two of which go to the back",
        compact: true,
        before: &[letter(1, 1000)],
        asleep: true,
        act: &[letter(2, 1000), letter(3, 1000), letter(4, 40)],
    },
];

struct Pop {
    name: &'static str,
    compact: bool,
    /// Sent before.
    letters: &'static [Letter],
    /// Whether the producer waits for room.
    awaited: bool,
    /// What is done instruction by instruction.
    act: fn(&mut Consumer),
}

const POPS: &[Pop] = &[
    Pop { name: "a record", compact: false, letters: &[letter(1, 40)], awaited: false, act: pop },
    Pop {
        name: "a record that frees much room",
        compact: false,
        letters: &[letter(1, 1000), letter(2, 8)],
        awaited: false,
        act: pop,
    },
    Pop {
        name: "a record at which a ring starts over",
        compact: true,
        letters: &[letter(1, 1000)],
        awaited: false,
        act: pop,
    },
    Pop {
        name: "a record behind which a ring does not start over after all",
        compact: true,
        letters: &[letter(1, 1000), letter(2, 8)],
        awaited: false,
        act: pop,
    },
    Pop {
        name: "the last record before a ring starts over, and sleep",
        compact: true,
        letters: &[letter(1, 1000)],
        awaited: false,
        act: |consumer| {
            pop(consumer);
            let _ = consumer.arm();
        },
    },
    Pop {
        name: "a record, for a producer that waits",
        compact: false,
        letters: &LAP,
        awaited: true,
        act: |consumer| {
            pop(consumer);
            let _ = consumer.relieve();
        },
    },
    Pop {
        name: "nothing, and sleep",
        compact: false,
        letters: &[],
        awaited: false,
        act: |consumer| _ = consumer.arm(),
    },
    Pop {
        name: "the last record, and sleep",
        compact: false,
        letters: &[letter(1, 100)],
        awaited: false,
        act: |consumer| {
            pop(consumer);
            let _ = consumer.arm();
        },
    },
];

#[test]
fn a_record_is_there_wholly_or_not_at_all_whichever_instruction_is_its_producers_last() {
    if let Some((scene, view)) = part(|scene| PUSHES[scene].compact) {
        return act_push(&PUSHES[scene], &view);
    }
    for (number, scene) in PUSHES.iter().enumerate() {
        let Some(seen) = step_push(number, scene, None) else { return skipped(UNTRACED) };
        for kill in 1..=KILLS {
            step_push(number, scene, Some(seen * kill / KILLS)).expect("it was allowed before");
        }
        told("pushing", scene.name, seen);
    }
}

#[test]
fn a_producer_goes_on_whichever_instruction_is_its_consumers_last() {
    if let Some((scene, view)) = part(|scene| POPS[scene].compact) {
        let mut consumer = Consumer::new(view, geometry(POPS[scene].compact));
        return between_two_stops(|| (POPS[scene].act)(&mut consumer));
    }
    for (number, scene) in POPS.iter().enumerate() {
        let Some(seen) = step_pop(number, scene, None) else { return skipped(UNTRACED) };
        for kill in 1..=KILLS {
            step_pop(number, scene, Some(seen * kill / KILLS)).expect("it was allowed before");
        }
        told("popping", scene.name, seen);
    }
}

/// Steps through a push, or kills the process after so many instructions. Answers how many there were.
fn step_push(number: usize, scene: &Push, kill_after: Option<usize>) -> Option<usize> {
    let (view, memory) = mapping(scene.compact);
    let mut traced = Traced::start(PUSHING, number, &memory)?;
    let mut consumer = Consumer::new(view, geometry(scene.compact));
    for letter in scene.before {
        receive(&mut consumer, *letter);
    }
    let _ = consumer.arm();
    if !scene.asleep {
        consumer.disarm();
    }
    let mut received = false;
    let mut look = |consumer: &mut Consumer| {
        let there = consumer.peek().expect("a dead producer breaks no rule").is_some();
        if there && !received {
            // All of them, or the first one would not be there.
            scene.act.iter().for_each(|letter| receive(consumer, *letter));
            received = true;
        }
        assert!(!there || consumer.peek() == Ok(None), "nothing comes after what was sent");
        received
    };
    let steps = traced.step_through(kill_after, || _ = look(&mut consumer));
    assert!(look(&mut consumer) || kill_after.is_some(), "{}: in the end it is there", scene.name);
    let _ = consumer.arm();
    Some(steps)
}

/// Steps through a pop, or kills the process after so many instructions. Answers how many there were.
fn step_pop(number: usize, scene: &Pop, kill_after: Option<usize>) -> Option<usize> {
    let (view, memory) = mapping(scene.compact);
    let mut before = vec![0; view.len()];
    let sent = send(&view, scene);
    let mut traced = Traced::start(POPPING, number, &memory)?;
    let mut look = || {
        let mut now = vec![0; view.len()];
        view.read(0, &mut now);
        // Only what a step has changed is news.
        if now != before {
            producer_goes_on(scene, &now);
            before = now;
        }
    };
    let steps = traced.step_through(kill_after, &mut look);
    look();
    if kill_after.is_none() && !scene.letters.is_empty() {
        let most = if scene.compact { geometry(true).capacity } else { sent };
        assert!(admitted(&view) > 0 && admitted(&view) <= most, "{}: what was taken is admitted", scene.name);
    }
    Some(steps)
}

/// The producer of a ring that looks like this may go on: it finds room, or waits for it, and wakes who sleeps.
fn producer_goes_on(scene: &Pop, ring: &[u8]) {
    let len = geometry(scene.compact).segment_len();
    let view = SharedMemory::anonymous(len).view(0..len);
    let sent = send(&view, scene);
    let mut producer = twin(&view, scene);
    view.write(0, ring);
    let published = view.load(CONSUMER_POSITION, Ordering::Relaxed) & !AWAITED;
    let behind = scene.letters.first().map_or(0, |letter| 16 + letter.len.next_multiple_of(8) as u64);
    // A ring that starts over is in its next lap.
    let first = if scene.compact && scene.letters.len() == 1 { geometry(true).capacity } else { behind };
    for at in [published, view.load(ADMITTED, Ordering::Relaxed)] {
        assert!(at == 0 || at == first, "{}: {at} is neither before nor behind the record", scene.name);
    }
    let asleep = (0..view.len()).step_by(8).any(|at| view.load(at, Ordering::Relaxed) == ASLEEP);
    let mut pushed = 0;
    while producer
        .push(RecordClass::Bulk, Kind::Request, 1, 99, None, &[1; 40])
        .expect("a dead consumer breaks no rule")
    {
        pushed += 1;
        assert_eq!(producer.publish().needed(), asleep && pushed == 1, "{}: woken if asleep", scene.name);
    }
    assert!(pushed > 0 || sent > 3000, "{}: an empty ring has room", scene.name);
    producer.await_room().expect("a dead consumer breaks no rule");
}

/// Sends what a scene of popping begins with. Answers where it ends.
fn send(view: &View, scene: &Pop) -> u64 {
    twin(view, scene).position()
}

fn twin(view: &View, scene: &Pop) -> Producer {
    let mut producer = Producer::new(view.clone(), geometry(scene.compact));
    for letter in scene.letters {
        push(&mut producer, *letter);
        let _ = producer.publish();
    }
    if scene.awaited {
        assert!(!producer.push(RecordClass::Bulk, Kind::Request, 1, 99, None, &[0; 900]).unwrap(), "the ring is full");
        producer.await_room().unwrap();
    }
    producer
}

fn act_push(scene: &Push, view: &View) {
    let mut producer = Producer::new(view.clone(), geometry(scene.compact));
    for letter in scene.before {
        push(&mut producer, *letter);
        let _ = producer.publish();
    }
    // Made before, so that nearly all that is stepped through is the ring's.
    let payloads: Vec<_> = scene.act.iter().map(|letter| payload(letter.id, letter.len)).collect();
    between_two_stops(|| {
        for (letter, payload) in scene.act.iter().zip(&payloads) {
            push_payload(&mut producer, letter, payload);
        }
        let _ = producer.publish();
    });
}

fn push(producer: &mut Producer, letter: Letter) {
    push_payload(producer, &letter, &payload(letter.id, letter.len));
}

fn push_payload(producer: &mut Producer, letter: &Letter, payload: &[u8]) {
    let pushed = producer.push(RecordClass::Bulk, Kind::Request, 7, letter.id, letter.extension, payload);
    assert!(pushed.unwrap(), "there is room");
}

fn pop(consumer: &mut Consumer) {
    let record = consumer.peek().unwrap().unwrap();
    let mut payload = [0; 1024];
    consumer.read(&record, 0, &mut payload[..record.header.len as usize]);
    let _ = consumer.advance(&record);
    consumer.admit();
}

/// Takes this very record from the ring, whole.
fn receive(consumer: &mut Consumer, letter: Letter) {
    let record = consumer.peek().unwrap().expect("the record is there");
    let mut found = vec![0; record.header.len as usize];
    consumer.read(&record, 0, &mut found);
    let extension = record.header.extended.then_some(record.extension);
    assert_eq!((record.id, extension, found), (letter.id, letter.extension, payload(letter.id, letter.len)));
    let _ = consumer.advance(&record);
}

fn payload(id: u64, len: usize) -> Vec<u8> {
    (0..len).map(|index| (id as usize * 31 + index) as u8 | 1).collect()
}

fn geometry(compact: bool) -> Geometry {
    let geometry = Geometry::new(4096).unwrap();
    if compact { geometry.into_compact() } else { geometry }
}

fn mapping(compact: bool) -> (View, MemoryHandle) {
    let len = geometry(compact).segment_len();
    let (memory, descriptor) = SharedMemory::create(len).unwrap();
    (memory.view(0..len), descriptor)
}

/// The scene that this process was started to play, and its ring.
fn part(compact: impl Fn(usize) -> bool) -> Option<(usize, View)> {
    let scene = std::env::var(SCENE).ok()?.parse().expect("set by the test");
    let len = geometry(compact(scene)).segment_len();
    let path = std::env::var_os(MEMORY).expect("set by the test");
    let file = File::options().read(true).write(true).open(path).unwrap();
    let memory = SharedMemory::open(&file.into(), len).unwrap();
    if ptrace::traceme().is_err() {
        std::process::exit(FORBIDDEN);
    }
    Some((scene, memory.view(0..len)))
}

/// Does something between two stops, between which the tracer steps.
fn between_two_stops(act: impl FnOnce()) {
    raise(Signal::SIGSTOP).unwrap();
    act();
    raise(Signal::SIGSTOP).unwrap();
}

/// A process that stands still unless it is told to make a step. It dies with this at the latest.
struct Traced {
    child: Child,
    /// The one of its threads that plays.
    thread: Pid,
}

impl Traced {
    /// Starts one and waits for its first stop. `None` where tracing is forbidden.
    fn start(test: &str, scene: usize, memory: &MemoryHandle) -> Option<Self> {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env(SCENE, scene.to_string())
            .env(MEMORY, format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd()))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        match wait(None) {
            WaitStatus::Stopped(thread, Signal::SIGSTOP) => Some(Self { child, thread }),
            WaitStatus::Exited(_, FORBIDDEN) => None,
            other => panic!("{other:?} where the first stop was due"),
        }
    }

    /// Steps to the second stop, with a look after every instruction; or kills the process after so many of them. Answers
    /// how many there were.
    fn step_through(&mut self, kill_after: Option<usize>, mut look: impl FnMut()) -> usize {
        for steps in 0..ENDLESS {
            if kill_after == Some(steps) {
                self.kill();
                return steps;
            }
            ptrace::step(self.thread, None).unwrap();
            match wait(Some(self.thread)) {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => look(),
                WaitStatus::Stopped(_, Signal::SIGSTOP) => return steps,
                other => panic!("{other:?} after {steps} steps"),
            }
        }
        panic!("there is no end after {ENDLESS} steps");
    }

    fn kill(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        let _ = self.child.kill();
        // Whoever traces a thread has to hear of its end before that of its process is told.
        while !matches!(wait(Some(self.thread)), WaitStatus::Signaled(..) | WaitStatus::Exited(..)) {}
        let _ = self.child.wait();
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for news of a thread, or of any process or thread of ours.
fn wait(thread: Option<Pid>) -> WaitStatus {
    waitpid(thread, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)).unwrap()
}

#[expect(clippy::print_stderr, reason = "figures are for people")]
fn told(what: &str, scene: &str, steps: usize) {
    eprintln!("{what} {scene}: seen after each of {steps} instructions, killed for real after {KILLS} of them");
}
