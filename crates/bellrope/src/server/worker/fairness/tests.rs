use std::sync::Arc;

use bellrope_proto::{connection::ClientConnection, handshake::Style};
use bellrope_shm::socket::Socket;

use super::*;
use crate::server::{
    handler::registry::{Handler, Registry},
    instructions,
    message::{NewConnection, WorkerMessage},
};

const ECHO: u16 = 1;
const CROWD: i32 = 7;
const MANY: usize = 200;

/// A worker for which every round is long, and its clients. Nobody has to wake it.
struct Busy {
    worker: Box<Worker>,
    clients: Vec<Client>,
}

struct Client {
    connection: ClientConnection,
    socket: Socket,
    index: usize,
}

impl Busy {
    fn new() -> Self {
        let mut registry = Registry::default();
        registry.add("echo", Handler::Unary(Box::new(|_, _| Ok(()))));
        let mut worker = Worker::new(instructions::core_with(registry), 0).unwrap().1;
        worker.visitor = worker.visitor.without_time();
        Self { worker, clients: Vec::new() }
    }

    /// A connection of this process on its way to the worker, and its client's side.
    fn connection(&self, pid: i32) -> (NewConnection, ClientConnection, Socket) {
        let (client, mut accepted, socket) = instructions::accepted(&self.worker.core);
        accepted.peer.pid = pid;
        (accepted, client, socket)
    }

    /// A client of this process, whose connection the worker polls.
    fn client(&mut self, pid: i32) -> Client {
        let (accepted, connection, socket) = self.connection(pid);
        let index = self.worker.free.last().copied().unwrap_or(self.worker.sessions.len());
        self.worker.adopt(accepted);
        Client { connection, socket, index }
    }

    /// So many of the crowd, each with more calls than one turn has time for.
    fn crowd(&mut self, connections: usize) {
        let mut crowd: Vec<_> = (0..connections).map(|_| self.client(CROWD)).collect();
        self.clients.append(&mut crowd);
        self.clients.iter_mut().for_each(|client| (0..16).for_each(|_| client.call()));
    }

    /// One round. The crowd calls on.
    fn round(&mut self) {
        self.worker.round();
        for client in &mut self.clients {
            while client.is_answered() {
                client.call();
            }
        }
    }

    /// Rounds until this client has its answer.
    fn serve(&mut self, client: &mut Client) -> usize {
        (1..1_000)
            .find(|_| {
                self.round();
                client.is_answered()
            })
            .expect("it is answered")
    }
}

impl Client {
    /// Makes a call, for which nobody rings.
    fn call(&mut self) {
        self.connection.submit(ECHO, Style::Unary, b"", None).unwrap();
        let _ = self.connection.commit();
    }

    fn is_answered(&mut self) -> bool {
        let answer = self.connection.next_response();
        answer.inspect(|answer| self.connection.take(answer, &mut [])).is_some()
    }
}

// Fault 63.
#[test]
fn a_call_waits_for_a_few_turns_of_another_process_however_many_connections_that_keeps_busy() {
    let mut busy = Busy::new();
    busy.crowd(MANY);
    let mut honest = busy.client(CROWD + 1);
    for _ in 0..20 {
        busy.round();
    }
    for _ in 0..20 {
        honest.call();
        let before = busy.worker.core.metrics.snapshot().total_requests();
        let rounds = busy.serve(&mut honest);
        let served = busy.worker.core.metrics.snapshot().total_requests() - before;
        // What was begun before it called, and its own.
        assert!(rounds <= 2, "{rounds} rounds, {served} calls");
        busy.round();
    }
}

// Fault 63.
#[test]
fn within_a_process_everybody_has_a_turn_though_others_ring_or_come_in_all_the_time() {
    let mut busy = Busy::new();
    busy.crowd(MANY);
    let mut waiting = busy.client(CROWD);
    waiting.call();
    let mut later = Vec::new();
    let rounds = (1..).find(|_| {
        busy.round();
        // As many come in as have their turns.
        let mut client = busy.client(CROWD);
        client.call();
        later.push(client);
        waiting.is_answered()
    });
    assert!(rounds.unwrap() <= MANY + 2, "{rounds:?}");
    assert!((0..2 * MANY).any(|_| {
        busy.round();
        later[0].is_answered()
    }));
}

// Fault 63.
#[test]
fn whoever_comes_in_is_taken_over_before_most_of_another_process() {
    let mut busy = Busy::new();
    let inbox = Arc::clone(&busy.worker.inbox);
    let mut others = Vec::new();
    for _ in 0..MANY {
        let (accepted, client, socket) = busy.connection(CROWD);
        others.push((client, socket));
        assert!(inbox.send(WorkerMessage::Connected(Box::new(accepted))));
    }
    let (accepted, mut connection, socket) = busy.connection(CROWD + 1);
    connection.submit(ECHO, Style::Unary, b"", None).unwrap();
    let _ = connection.commit();
    assert!(inbox.send(WorkerMessage::Connected(Box::new(accepted))));
    let mut honest = Client { connection, socket, index: 0 };
    let rounds = busy.serve(&mut honest);
    assert!(rounds <= 2 && busy.worker.sessions.len() < MANY / 10, "{rounds}, {}", busy.worker.sessions.len());
}

#[test]
fn turns_go_by_process_in_the_order_of_each_and_those_with_nothing_to_do_come_last() {
    let ordered = |mut list: Vec<usize>, idle: &[usize]| {
        by_process(&mut list, 3, |&index| Some(index / 100), |index| !idle.contains(index));
        list
    };
    assert_eq!(ordered(vec![1, 2, 3, 100, 101, 200], &[]), [1, 100, 200, 2, 101, 3]);
    assert_eq!(ordered(vec![1, 2, 3, 100, 101, 200], &[1, 100]), [2, 101, 200, 3, 1, 100]);
    let crowd: Vec<_> = (0..100).chain([100]).collect();
    let all = ordered(crowd.clone(), &[]);
    assert_eq!((all[..2].to_vec(), all.len()), (vec![0, 100], crowd.len()));
    assert_eq!(all[2..], crowd[1..100], "nobody is lost");
}

// Fault 63.
#[test]
fn of_thousands_of_one_process_few_are_looked_at_to_put_them_in_turns() {
    let looks = std::cell::Cell::new(0);
    let mut list: Vec<usize> = (0..4_000).collect();
    list.push(10_000);
    let mut idle = list.clone();
    for (list, is_busy) in [(&mut list, true), (&mut idle, false)] {
        looks.set(0);
        let of = |&index: &usize| Some(usize::from(index >= 4_000));
        by_process(list, 2, of, |&index| {
            looks.set(looks.get() + 1);
            is_busy || index >= 4_000
        });
        assert!(looks.get() <= LOOKED_AT + 1, "{} looks", looks.get());
        assert_eq!(list.iter().position(|index| *index == 10_000), Some(usize::from(is_busy)));
        list.sort_unstable();
        assert!(list.iter().copied().eq((0..4_000).chain([10_000])), "nobody is lost");
    }
}

#[test]
fn a_connection_that_left_the_list_after_a_round_was_cut_short_is_not_missed() {
    let mut busy = Busy::new();
    busy.crowd(30);
    busy.round();
    assert!(busy.worker.cut_short.visits.is_some());
    let gone: Vec<_> = busy.clients.drain(..20).collect();
    gone.iter().for_each(|client| busy.worker.end(client.index, crate::server::worker::closing::Closing::HungUp));
    busy.round();
    busy.worker.hot.sort_unstable();
    let mut left: Vec<_> = busy.clients.iter().map(|client| client.index).collect();
    left.sort_unstable();
    assert_eq!(busy.worker.hot, left);
}

// Fault 63.
#[test]
fn a_ring_is_heard_before_most_of_another_process_wherever_it_stands_among_them() {
    let mut busy = Busy::new();
    let mut crowd: Vec<_> = (0..2 * EVENTS_A_ROUND - 1).map(|_| busy.client(CROWD)).collect();
    let mut honest = busy.client(CROWD + 1);
    assert!(busy.worker.arm_all());
    crowd.iter().for_each(|client| client.socket.ring());
    honest.call();
    honest.socket.ring();
    busy.worker.look_after_sleepers();
    assert!(busy.worker.backlog.events.len() < 2 * EVENTS_A_ROUND, "some were heard");
    assert_eq!(busy.serve(&mut honest), 1);
    // Whatever is put off is looked after again at once.
    crowd[0].call();
    busy.worker.end(honest.index, crate::server::worker::closing::Closing::HungUp);
    let worked = busy.worker.worked;
    busy.worker.round();
    assert!(busy.worker.worked >= worked + TURNS_PER_LOOK / WORKED);
}
