use std::sync::Arc;

use bellrope_proto::{connection::ClientConnection, handshake::Style};
use bellrope_shm::socket::Socket;

use super::*;
use crate::server::{
    calls::body::Body,
    core::Core,
    handler::{
        port::Port,
        registry::{Handler, Registry},
    },
    inbox::Inbox,
    instructions,
    message::{AsyncReply, WorkerMessage},
    parked::Parked,
    worker::{session::Session, visit::Turn},
};

const ASYNC: u16 = 1;
const STREAM: u16 = 2;
const MANY: usize = 1_000;

/// A worker whose loop does not turn, and whose async handlers never run: what they say is made up.
struct Still {
    worker: Box<Worker>,
    /// Of its clients.
    sockets: Vec<Socket>,
    /// Not driven.
    _runtime: tokio::runtime::Runtime,
}

impl Still {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut registry = Registry::default();
        registry.add("async", Handler::UnaryAsync(Box::new(|_| Box::pin(std::future::pending()))));
        registry.add("stream", Handler::ServerStream(Box::new(|_, _| Box::pin(std::future::pending()))));
        let core = instructions::core_on(registry, Some(runtime.handle().clone()));
        let mut worker = Worker::new(core, 0).unwrap().1;
        // On a busy machine a round would be cut short anywhere.
        worker.visitor = worker.visitor.without_clock();
        Self { worker, sockets: Vec::new(), _runtime: runtime }
    }

    /// A client of it, and its calls, which were begun.
    fn client(&mut self, calls: usize, message_type: u16) -> (ClientConnection, SessionId, Vec<u64>) {
        let (mut client, connection, socket) = instructions::accepted(&self.worker.core);
        self.sockets.push(socket);
        let index = self.worker.free.last().copied().unwrap_or(self.worker.sessions.len());
        let id = SessionId { index, serial: connection.serial };
        self.worker.adopt(connection);
        let style = if message_type == STREAM { Style::ServerStream } else { Style::Unary };
        let calls = (0..calls)
            .map(|_| {
                let call = client.submit(message_type, style, b"", None).unwrap();
                let _ = client.commit();
                let session = self.worker.sessions[index].as_mut().unwrap();
                self.worker.visitor.visit(session, &mut Turn::default(), u32::MAX).unwrap();
                call
            })
            .collect();
        (client, id, calls)
    }

    /// A client with one call, and of another process than all others.
    fn of_another_process(&mut self, pid: i32) -> (ClientConnection, SessionId, Vec<u64>) {
        let client = self.client(1, ASYNC);
        let peer = &mut self.worker.sessions[client.1.index].as_mut().unwrap().peer;
        self.worker.processes.left(*peer);
        peer.pid = pid;
        self.worker.processes.came(client.1.index, *peer);
        client
    }

    fn heed(&mut self, said: impl IntoIterator<Item = (SessionId, u64, FromHandler)>) {
        let message = |(session, call, what)| WorkerMessage::FromHandler { session, call, what };
        self.worker.heed(said.into_iter().map(message).collect());
    }
}

/// An answer of nothing.
fn empty() -> FromHandler {
    FromHandler::Answered(Ok(AsyncReply { bytes: Vec::new(), reservation: None }))
}

/// What has come for a client.
fn came(client: &mut ClientConnection) -> Vec<u64> {
    let mut came = Vec::new();
    while let Some(answer) = client.next_response() {
        client.take(&answer, &mut vec![0; answer.len]);
        came.push(answer.id);
    }
    came
}

// Fault 65.
#[test]
fn an_answer_waits_for_a_batch_of_another_connections_and_not_for_all_of_them() {
    let mut still = Still::new();
    let (mut crowd, crowded, calls) = still.client(MANY, ASYNC);
    let (mut lone, alone, call) = still.client(1, ASYNC);
    still.heed(calls.iter().map(|call| (crowded, *call, empty())));
    still.heed([(alone, call[0], empty())]);
    assert!(still.worker.deliver_in_turns());
    let first = came(&mut crowd);
    assert_eq!(first, calls[..BATCH_MESSAGES], "in the order in which they were given");
    assert_eq!(came(&mut lone), call);
    let mut all = first;
    while still.worker.deliver_in_turns() {
        all.extend(came(&mut crowd));
    }
    assert_eq!(all, calls, "nothing is lost");
}

// Fault 65.
#[test]
fn a_turn_ends_with_its_bytes_where_handlers_have_much_to_say() {
    let mut still = Still::new();
    let (_crowd, crowded, streams) = still.client(16, STREAM);
    let (mut lone, alone, call) = still.client(1, ASYNC);
    let permits = Arc::new(tokio::sync::Semaphore::new(1 << 20));
    let chunk = |len: usize| {
        let permit = Arc::clone(&permits).try_acquire_many_owned(len as u32).unwrap();
        FromHandler::Chunk(Body::with_permit(vec![7; len], permit))
    };
    still.heed(streams.iter().map(|call| (crowded, *call, chunk(BATCH_BYTES / 2))));
    still.heed([(alone, call[0], empty())]);
    assert!(still.worker.deliver_in_turns());
    let left = still.worker.sessions[crowded.index].as_ref().unwrap().said.len();
    assert_eq!((left, came(&mut lone)), (14, call));
}

#[test]
fn what_was_said_to_a_connection_that_is_gone_goes_with_it() {
    let mut still = Still::new();
    let (_crowd, crowded, calls) = still.client(MANY, ASYNC);
    still.heed(calls.iter().map(|call| (crowded, *call, empty())));
    assert!(still.worker.deliver_in_turns());
    still.worker.close(crowded.index, &crate::server::worker::closing::Closing::HungUp);
    assert!(!still.worker.deliver_in_turns());
    let (mut next, index, call) = still.client(1, ASYNC);
    still.heed([(index, call[0], empty())]);
    assert!(still.worker.deliver_in_turns());
    assert_eq!(came(&mut next), call);
}

/// A worker that sleeps, parked where others may stand in for it.
struct Asleep {
    parked: Arc<Parked<Worker>>,
    inbox: Arc<Inbox<WorkerMessage>>,
    core: Arc<Core>,
    _runtime: tokio::runtime::Runtime,
}

impl Still {
    fn sleep(mut self) -> Asleep {
        let (parked, inbox, core) =
            (Arc::new(Parked::new()), Arc::clone(&self.worker.inbox), Arc::clone(&self.worker.core));
        self.worker.lets_others_stand_in(&parked);
        assert!(self.worker.arm_all() && inbox.prepare_sleep());
        parked.park(self.worker);
        Asleep { parked, inbox, core, _runtime: self._runtime }
    }
}

impl Asleep {
    fn say(&self, session: SessionId, call: u64, what: FromHandler) {
        Port { inbox: Arc::clone(&self.inbox), session, call, max_chunk: 1024 }.send(what);
    }

    fn is_woken(&self) -> bool {
        bellrope_shm::wait::readable(self.inbox.notifier(), Some(std::time::Duration::ZERO)).unwrap()
    }
}

#[test]
fn what_a_handler_says_while_its_worker_sleeps_arrives_and_wakes_nobody() {
    let mut still = Still::new();
    let (mut client, session, calls) = still.client(100, ASYNC);
    let asleep = still.sleep();
    for call in calls {
        asleep.say(session, call, empty());
        assert_eq!(came(&mut client), [call], "before the handler goes on");
        assert!(!asleep.is_woken());
    }
    let worker = asleep.parked.take();
    assert!(worker.sessions[session.index].as_ref().unwrap().open.iter().next().is_none(), "the calls have ended");
}

#[test]
fn a_worker_that_is_awake_does_what_handlers_say_itself() {
    let mut still = Still::new();
    let (mut client, session, calls) = still.client(1, ASYNC);
    let asleep = still.sleep();
    let mut worker = asleep.parked.take();
    asleep.say(session, calls[0], empty());
    assert_eq!(came(&mut client), [0; 0]);
    assert!(asleep.is_woken(), "it may have been about to sleep");
    assert!(worker.read_inbox());
    assert_eq!(came(&mut client), calls);
}

#[test]
fn whoever_stands_in_leaves_what_is_not_of_handlers_to_the_worker_and_wakes_it() {
    let mut still = Still::new();
    let (mut client, session, calls) = still.client(1, ASYNC);
    let asleep = still.sleep();
    assert!(asleep.inbox.send(WorkerMessage::TypesChanged), "its sender is none who stands in");
    assert!(asleep.is_woken());
    asleep.inbox.notifier().clear();
    // It has not woken yet.
    assert!(!asleep.inbox.prepare_sleep());
    asleep.say(session, calls[0], empty());
    assert_eq!(came(&mut client), calls);
    assert!(asleep.is_woken());
    let mut worker = asleep.parked.take();
    assert!(matches!(worker.left[..], [WorkerMessage::TypesChanged]));
    worker.read_inbox();
    assert!(worker.left.is_empty());
}

#[test]
fn a_worker_that_is_to_end_is_woken_for_everything() {
    let mut still = Still::new();
    let (mut client, session, calls) = still.client(1, ASYNC);
    let asleep = still.sleep();
    asleep.core.draining.store(true, std::sync::atomic::Ordering::Release);
    asleep.say(session, calls[0], empty());
    assert!(asleep.is_woken());
    assert_eq!(came(&mut client), [0; 0]);
    assert!(asleep.parked.take().read_inbox());
    assert_eq!(came(&mut client), calls);
}

#[test]
fn what_finds_no_room_or_exceeds_a_turn_wakes_the_worker() {
    let mut still = Still::new();
    let (_client, session, calls) = still.client(64, ASYNC);
    let (mut crowd, crowded, others) = still.client(MANY, ASYNC);
    let asleep = still.sleep();
    let large = || FromHandler::Answered(Ok(AsyncReply { bytes: vec![7; 30_000], reservation: None }));
    let told = calls.iter().take_while(|call| {
        asleep.say(session, **call, large());
        !asleep.is_woken()
    });
    let delivered = told.count();
    assert!((1..calls.len() - 1).contains(&delivered), "{delivered}");
    let mut worker = asleep.parked.take();
    let is_full = |session: &Session| session.hot && session.wants_care();
    assert!(is_full(worker.sessions[session.index].as_ref().unwrap()));
    // More than one turn of answers.
    worker.hot.clear();
    let message = |call: &u64| WorkerMessage::FromHandler { session: crowded, call: *call, what: empty() };
    worker.heed(others.iter().map(message).collect());
    assert!(!worker.stand_in());
    let mut all = came(&mut crowd);
    assert_eq!(all, others[..BATCH_MESSAGES]);
    while worker.deliver_in_turns() {
        all.extend(came(&mut crowd));
    }
    assert_eq!(all, others, "nothing is lost, and nothing out of order");
}

#[test]
fn a_panic_of_what_stands_in_wakes_the_worker_which_finds_it_at_once() {
    let (inbox, parked) = (Inbox::<u32>::new().unwrap(), Arc::new(Parked::<u32>::new()));
    let place = Arc::clone(&parked);
    inbox.stand_in_with(move || place.stand_in(|_| panic!("on purpose")).unwrap_or(false));
    assert!(inbox.prepare_sleep());
    parked.park(Box::new(7));
    let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| inbox.send_or_stand_in(7)));
    assert!(said.is_err());
    assert!(bellrope_shm::wait::readable(inbox.notifier(), Some(std::time::Duration::ZERO)).unwrap());
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| parked.take())).is_err());
}

// Fault 65.
#[test]
fn an_answer_waits_for_one_turn_of_another_process_where_a_round_takes_long() {
    let mut still = Still::new();
    still.worker.visitor = still.worker.visitor.without_time();
    let crowd: Vec<_> = (0..20).map(|_| still.client(100, ASYNC)).collect();
    let (mut lone, alone, call) = still.of_another_process(7);
    for (_, session, calls) in &crowd {
        still.heed(calls.iter().map(|call| (*session, *call, empty())));
    }
    assert!(still.worker.deliver_in_turns());
    still.heed([(alone, call[0], empty())]);
    // One of each process.
    assert!(still.worker.deliver_in_turns() && still.worker.deliver_in_turns());
    assert_eq!(came(&mut lone), call);
    while still.worker.deliver_in_turns() {}
    for (mut client, _, calls) in crowd {
        assert_eq!(came(&mut client), calls, "nothing is lost");
    }
}

// Fault 65.
#[test]
fn an_answer_is_not_passed_by_those_of_another_process_that_have_a_few_each() {
    let mut still = Still::new();
    still.worker.visitor = still.worker.visitor.without_time();
    // More and more of them say something, and each is done with in one turn.
    let mut crowd: Vec<_> = (0..100).map(|_| still.client(1, ASYNC)).collect();
    let (mut lone, alone, call) = still.of_another_process(7);
    let mut others = crowd.iter().map(|(_, session, calls)| (*session, calls[0], empty()));
    still.heed(others.by_ref().take(40));
    assert!(still.worker.deliver_in_turns());
    still.heed([(alone, call[0], empty())]);
    // One of each process.
    for other in others.by_ref().take(2) {
        assert!(still.worker.deliver_in_turns());
        still.heed([other]);
    }
    assert_eq!(came(&mut lone), call);
    still.heed(others);
    while still.worker.deliver_in_turns() {}
    for (client, _, calls) in &mut crowd {
        assert_eq!(came(client), *calls, "nothing is lost");
    }
}
