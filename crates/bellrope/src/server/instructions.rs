//! What a call costs in instructions. The test has calls made one step at a time, each step in a function of its own;
//! `scripts/instructions` has valgrind count what happens inside of one and compares it with the number that is kept. Run
//! by itself, the test checks that the steps are what they claim to be. Both ends are in one thread: nobody waits, so the
//! count is the same every time.

use std::{hint::black_box, sync::Arc, time::Instant};

use bellrope_proto::{
    Terms,
    connection::{ClientConnection, Failure, ServerConnection, pair},
    handshake::Style,
    layout::Geometry,
};
use bellrope_shm::{
    SharedMemory,
    socket::{PeerCredentials, Socket},
};

#[cfg(feature = "tokio")]
use super::inbox::Inbox;
use super::{
    calls::body::Body,
    config::ServerConfig,
    core::Core,
    handler::registry::{Handler, Registry},
    message::NewConnection,
    worker::{
        session::Session,
        visit::{Turn, Visit, Visitor},
    },
};
use crate::breaker::{Breaker, Caller as BreakerCaller};

/// Calls of each kind; a multiple of the calls of which one is timed.
const CALLS: u32 = 3_200;
/// Calls that one visit finds, where there are many.
const BATCH: u32 = 16;
const ECHO: u16 = 1;
const SIZE: usize = 64;
/// So many bytes that a compact ring starts over behind each record.
const LONG: usize = 1024;

#[test]
#[expect(clippy::print_stdout, reason = "scripts/instructions reads how often each step was done")]
fn a_call_goes_through_every_step_that_is_counted() {
    let core = echoing();
    let (mut client, mut session) = connect(&core);
    let mut visitor = Visitor::new(
        Arc::clone(&core),
        0,
        #[cfg(feature = "tokio")]
        Inbox::new().unwrap(),
    )
    .without_clock();
    let (payload, mut request, mut reply) = ([0x5A; SIZE], [0; SIZE], [0; SIZE]);
    for _ in 0..CALLS {
        // By hand, without a server around it.
        let call = commit(&mut client, &payload);
        assert_eq!(receive(&mut session.connection, &mut request), call);
        answer(&mut session.connection, call, &request);
        assert_eq!((complete(&mut client, &mut reply), reply), (call, payload));
        // As a worker does it.
        let call = commit(&mut client, &payload);
        assert_eq!(dispatch(&mut visitor, &mut session), Visit::Done);
        assert_eq!((complete(&mut client, &mut reply), reply), (call, payload));
        breaker(&core.breakers[0]);
    }
    for _ in 0..CALLS / BATCH {
        for _ in 0..BATCH {
            client.submit(ECHO, Style::Unary, &payload, None).expect("the ring has room");
        }
        let _ = client.commit();
        assert_eq!(batch(&mut visitor, &mut session), Visit::Done);
        for _ in 0..BATCH {
            let answer = client.next_response().expect("the call was answered");
            client.take(&answer, &mut reply[..answer.len]);
        }
    }
    let (mut client, mut session) = connect_over(&core, core.fixed.terms.geometry.into_compact());
    let (payload, mut reply) = ([0x5A; LONG], [0; LONG]);
    for _ in 0..CALLS {
        let call = client.submit(ECHO, Style::Unary, &payload, None).expect("the ring has room");
        let _ = client.commit();
        assert_eq!(dispatch_long(&mut visitor, &mut session), Visit::Done);
        assert_eq!((complete_long(&mut client, &mut reply), reply), (call, payload));
    }
    assert_eq!(core.metrics.snapshot().total_requests(), 3 * u64::from(CALLS));
    let twice = 2 * CALLS;
    let times = [twice, CALLS, CALLS, CALLS, CALLS, twice, CALLS, CALLS, CALLS];
    let steps =
        ["commit", "receive", "answer", "dispatch", "batch", "complete", "breaker", "dispatch_long", "complete_long"];
    for (step, times) in steps.into_iter().zip(times) {
        println!("counted {step} {times}");
    }
    #[cfg(feature = "service")]
    typed::count();
}

/// What a typed call has over a raw one of the same bytes: arguments of three small fields and an answer of three, written
/// and read.
#[cfg(feature = "service")]
#[expect(clippy::print_stdout, reason = "scripts/instructions reads how often each step was done")]
mod typed {
    use std::{borrow::Cow, hint::black_box};

    use serde::{Deserialize, Serialize};

    use super::CALLS;
    use crate::service::{Codec, Json, Postcard};

    /// As the macro makes them of `fn see(&self, id: u32, name: &str, on: bool) -> Result<Seen, String>`.
    #[derive(Serialize, Deserialize)]
    struct Request<'call> {
        id: u32,
        #[serde(borrow)]
        name: Cow<'call, str>,
        on: bool,
    }

    #[derive(Serialize, Deserialize)]
    struct Seen {
        id: u32,
        length: u32,
        on: bool,
    }

    pub(super) fn count() {
        let (mut request, mut answer) = (Vec::with_capacity(256), Vec::with_capacity(256));
        for _ in 0..CALLS {
            assert_eq!(json(&mut request, &mut answer), 9);
            assert_eq!(postcard(&mut request, &mut answer), 9);
        }
        println!("counted json {CALLS}\ncounted postcard {CALLS}");
    }

    #[inline(never)]
    fn json(request: &mut Vec<u8>, answer: &mut Vec<u8>) -> u32 {
        codec::<Json>(request, answer)
    }

    #[inline(never)]
    fn postcard(request: &mut Vec<u8>, answer: &mut Vec<u8>) -> u32 {
        codec::<Postcard>(request, answer)
    }

    #[inline(always)]
    fn codec<C: Codec>(request: &mut Vec<u8>, answer: &mut Vec<u8>) -> u32 {
        request.clear();
        answer.clear();
        let asked = Request { id: black_box(70_000), name: Cow::Borrowed(black_box("bell rope")), on: true };
        C::encode(&asked, &mut *request).unwrap();
        let Request { id, name, on } = C::decode(black_box(request)).unwrap();
        let seen = Seen { id, length: name.len() as u32, on };
        C::encode(&Ok::<_, String>(seen), &mut *answer).unwrap();
        C::decode::<Result<Seen, String>>(black_box(answer)).unwrap().unwrap().length
    }
}

/// The client sends a call.
#[inline(never)]
fn commit(client: &mut ClientConnection, payload: &[u8]) -> u64 {
    let id = client.submit(ECHO, Style::Unary, payload, None).expect("the ring has room");
    let _ = black_box(client.commit());
    id
}

/// The server takes it.
#[inline(never)]
fn receive(connection: &mut ServerConnection<Body>, into: &mut [u8]) -> u64 {
    let front = connection.front();
    let call = connection.plain_call(front, false).expect("nothing more is said of it");
    connection.take_plain(&call, &mut into[..call.len]);
    call.id
}

/// A worker's visit to the connection: takes the call, has it handled and answers.
#[inline(never)]
fn dispatch(visitor: &mut Visitor, session: &mut Session) -> Visit {
    visitor.visit(session, &mut Turn::default(), u32::MAX).expect("the client keeps to the protocol")
}

/// As [`dispatch`], where many calls wait: what one of them costs.
#[inline(never)]
fn batch(visitor: &mut Visitor, session: &mut Session) -> Visit {
    visitor.visit(session, &mut Turn::default(), u32::MAX).expect("the client keeps to the protocol")
}

/// As [`dispatch`], of a call of 1 KB over a compact ring, which starts over behind it.
#[inline(never)]
fn dispatch_long(visitor: &mut Visitor, session: &mut Session) -> Visit {
    visitor.visit(session, &mut Turn::default(), u32::MAX).expect("the client keeps to the protocol")
}

/// As [`complete`], of the answer to that.
#[inline(never)]
fn complete_long(client: &mut ClientConnection, into: &mut [u8]) -> u64 {
    client.take_long_response(|len| &mut into[..len]).expect("the call was answered")
}

/// The client takes the answer.
#[inline(never)]
fn complete(client: &mut ClientConnection, into: &mut [u8]) -> u64 {
    client.take_response(|len| &mut into[..len]).expect("the call was answered")
}

/// A closed breaker lets a call through and hears that it went well.
#[inline(never)]
fn breaker(breaker: &Breaker) {
    let caller = || BreakerCaller::Connection(1);
    breaker.acquire_for(caller, Instant::now).expect("it is closed").succeed_for(caller, Instant::now);
}

/// The server answers it. With [`receive`] and [`breaker`] this is what a call costs that nobody counts, guards or looks after.
#[inline(never)]
fn answer(connection: &mut ServerConnection<Body>, call: u64, payload: &[u8]) {
    let keep = |_| Err(Failure::new(bellrope_proto::frame::ErrorCode::Exhausted, "the ring has room"));
    let answered = connection.answer(call, payload.len(), &mut Vec::new(), keep, |reply| {
        reply.put(payload);
        Ok(())
    });
    assert_eq!(answered, Ok(None));
    let _ = connection.commit();
}

/// A server without threads that echoes.
fn echoing() -> Arc<Core> {
    let mut registry = Registry::default();
    let echo = Handler::Unary(Box::new(|call, reply| {
        reply.put(call.payload());
        Ok(())
    }));
    registry.add("echo", echo);
    core_with(registry)
}

/// A server without threads that has these handlers.
pub(crate) fn core_with(registry: Registry) -> Arc<Core> {
    core_on(
        registry,
        #[cfg(feature = "tokio")]
        None,
    )
}

/// A server that has these handlers, without threads, but for the async ones.
pub(crate) fn core_on(
    registry: Registry,
    #[cfg(feature = "tokio")] runtime: Option<tokio::runtime::Handle>,
) -> Arc<Core> {
    let config = ServerConfig { workers: 1, ..ServerConfig::default() };
    let core = Core::new(
        registry,
        &config,
        #[cfg(feature = "tokio")]
        runtime,
    );
    Arc::new(core.expect("the default settings are in their ranges"))
}

/// A connection to it, whose client nobody has to wake.
pub(crate) fn connect(core: &Arc<Core>) -> (ClientConnection, Session) {
    connect_over(core, core.fixed.terms.geometry)
}

/// The same over rings of this geometry.
fn connect_over(core: &Arc<Core>, geometry: Geometry) -> (ClientConnection, Session) {
    let (client, connection, _) = accepted_over(core, geometry);
    let holder = core.holder_for(connection.peer);
    let mut session = Session::new(
        connection,
        holder,
        None,
        #[cfg(feature = "tokio")]
        0,
    );
    session.hot = true;
    (client, session)
}

/// A connection to it, as the acceptor hands it over, and its client's socket.
pub(crate) fn accepted(core: &Arc<Core>) -> (ClientConnection, NewConnection, Socket) {
    accepted_over(core, core.fixed.terms.geometry)
}

fn accepted_over(core: &Arc<Core>, geometry: Geometry) -> (ClientConnection, NewConnection, Socket) {
    let memory = SharedMemory::anonymous(geometry.mapping_len());
    let (client, connection) = pair(&memory, Terms { geometry, ..core.fixed.terms });
    let (socket, clients) = Socket::pair().unwrap();
    let peer = PeerCredentials { pid: 0, uid: 0 };
    let connection = NewConnection {
        socket,
        connection,
        stream: None,
        serial: 1,
        peer,
        slot: core.connection_limits.take(&core.live, peer, false).unwrap(),
        name: "counted".to_owned(),
        told: None,
    };
    (client, connection, clients)
}
