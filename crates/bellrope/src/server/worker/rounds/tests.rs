use std::sync::{Arc, atomic::Ordering::Relaxed};

use bellrope_proto::{connection::ClientConnection, handshake::Style};
use bellrope_shm::{socket::Socket, wait::EVENTS};

use super::*;
use crate::server::{
    handler::registry::{Handler, Registry},
    instructions,
    message::WorkerMessage,
};

const ECHO: u16 = 1;
/// More than epoll reports at once.
const MANY: usize = 2 * EVENTS;

/// A worker whose loop turns when it is told to.
struct Stepped(Box<Worker>);

/// A client of it.
struct Client {
    connection: ClientConnection,
    socket: Socket,
    index: usize,
}

impl Stepped {
    fn new() -> Self {
        let mut registry = Registry::default();
        registry.add("echo", Handler::Unary(Box::new(|_, _| Ok(()))));
        let mut worker = Worker::new(instructions::core_with(registry), 0).unwrap().1;
        // A round that took long would do more.
        worker.visitor = worker.visitor.without_clock();
        Self(worker)
    }

    /// One whose connection the worker has and leaves to its doorbell.
    fn client(&mut self) -> Client {
        let (connection, accepted, socket) = instructions::accepted(&self.0.core);
        let index = self.0.free.last().copied().unwrap_or(self.0.sessions.len());
        self.0.adopt(accepted);
        assert!(self.0.arm_all());
        Client { connection, socket, index }
    }

    fn closed(&self) -> u64 {
        self.0.core.metrics.closed.load(Relaxed)
    }

    /// Lets the loop turn until this client has an answer. Answers how many turns that took and how many connections were
    /// closed meanwhile, or until then at most.
    fn serve(&mut self, client: &mut Client) -> (usize, u64) {
        let before = self.closed();
        for rounds in 1..100 {
            self.0.round();
            if client.is_answered() {
                return (rounds, self.closed() - before);
            }
        }
        panic!("the call was not answered");
    }

    /// Lets the loop turn until nothing is put off.
    fn settle(&mut self) {
        while self.0.round() {
            self.0.look_after_sleepers();
        }
    }
}

impl Client {
    /// Makes a call, and rings.
    fn call(&mut self) {
        self.connection.submit(ECHO, Style::Unary, b"", None).unwrap();
        let _ = self.connection.commit();
        self.socket.ring();
    }

    fn is_answered(&mut self) -> bool {
        let answer = self.connection.next_response();
        answer.inspect(|answer| self.connection.take(answer, &mut [])).is_some()
    }
}

// Fault 63.
#[test]
fn an_honest_call_is_served_after_a_few_of_many_hang_ups_wherever_it_stands_among_them() {
    for place in [0, MANY / 2, MANY] {
        let mut worker = Stepped::new();
        let (mut honest, mut others) = (worker.client(), (0..MANY).map(|_| worker.client()).collect::<Vec<_>>());
        let later = others.split_off(place);
        drop(others);
        honest.call();
        drop(later);
        worker.0.look_after_sleepers();
        let (rounds, closed) = worker.serve(&mut honest);
        assert!(rounds <= MANY / EVENTS_A_ROUND + 1, "{rounds} rounds, the {place}th");
        assert!(closed <= (rounds * CLOSINGS_A_ROUND) as u64, "{closed} closings in {rounds} rounds, the {place}th");
        worker.settle();
        assert_eq!(worker.closed(), MANY as u64, "none is forgotten");
    }
}

// Fault 63.
#[test]
fn an_honest_call_is_served_before_any_of_those_is_closed_that_rang_too_often_or_broke_the_protocol() {
    let mut worker = Stepped::new();
    let mut others: Vec<_> = (0..40).map(|_| worker.client()).collect();
    let mut honest = worker.client();
    for other in &mut others {
        (0..=MAX_RINGS).for_each(|_| other.socket.ring());
    }
    honest.call();
    worker.0.look_after_sleepers();
    let (_, closed) = worker.serve(&mut honest);
    assert!(closed <= 2 * CLOSINGS_A_ROUND as u64, "{closed} closings");
    worker.settle();
    assert_eq!(worker.closed(), 40);

    let mut others: Vec<_> = (0..40).map(|_| worker.client()).collect();
    for other in &mut others {
        // Of a call that was never made.
        other.connection.cancel(7).unwrap();
        other.call();
    }
    honest.call();
    worker.0.look_after_sleepers();
    let (_, closed) = worker.serve(&mut honest);
    assert!(closed <= 2 * CLOSINGS_A_ROUND as u64, "{closed} closings");
}

// Fault 63.
#[test]
fn an_honest_call_is_served_after_a_few_newcomers_and_whoever_is_gone_already_is_not_visited() {
    let mut worker = Stepped::new();
    let mut honest = worker.client();
    let inbox = Arc::clone(&worker.0.inbox);
    for _ in 0..MANY {
        let (mut connection, accepted, _) = instructions::accepted(&worker.0.core);
        connection.submit(ECHO, Style::Unary, b"", None).unwrap();
        let _ = connection.commit();
        assert!(inbox.send(WorkerMessage::Connected(Box::new(accepted))));
    }
    honest.call();
    worker.0.look_after_sleepers();
    let (_, closed) = worker.serve(&mut honest);
    assert!(closed <= CLOSINGS_A_ROUND as u64 && worker.0.sessions.len() <= 1 + NEWCOMERS_A_ROUND);
    worker.settle();
    assert_eq!((worker.closed(), worker.0.core.metrics.snapshot().total_requests()), (MANY as u64, 1));
}

#[test]
fn the_worker_does_not_sleep_while_something_is_put_off() {
    let mut worker = Stepped::new();
    let client = worker.client();
    worker.0.end(client.index, Closing::HungUp);
    assert!(!worker.0.arm_all());
    worker.0.round();
    assert!(worker.0.arm_all() && worker.closed() == 1);
}

#[test]
fn an_event_of_one_that_is_gone_is_not_taken_for_that_of_the_next_at_its_place() {
    let mut worker = Stepped::new();
    let client = worker.client();
    let late = PollEvent { key: key(client.index, 1), hung_up: true };
    worker.0.end(client.index, Closing::HungUp);
    worker.settle();
    let (mut connection, mut accepted, socket) = instructions::accepted(&worker.0.core);
    accepted.serial = 2;
    worker.0.adopt(accepted);
    worker.settle();
    assert!(worker.0.arm_all());
    // Of the one before: heard, it would be drained of its ring.
    connection.submit(ECHO, Style::Unary, b"", None).unwrap();
    let _ = connection.commit();
    socket.ring();
    worker.0.backlog.note(&[late]);
    worker.0.round();
    assert!(connection.next_response().is_none());
    worker.0.look_after_sleepers();
    let mut next = Client { connection, socket, index: client.index };
    worker.serve(&mut next);
}
