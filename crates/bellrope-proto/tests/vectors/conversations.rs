//! Whole calls, as a real client and a real server make them. Every record is taken out of one's ring, noted, and put into
//! the other's.

mod wire;

use bellrope_proto::{
    Failure, Style,
    frame::{ErrorCode, Rejection},
};
use serde_json::{Value, json};
use wire::{Wire, terms};

pub(crate) fn vectors() -> Value {
    let terms = terms();
    json!({
        "capacity": terms.geometry.capacity,
        "max_message": terms.max_message,
        "max_in_flight": terms.max_in_flight,
        "stream_window": terms.stream_window,
        "styles": "the message types 1 to 4 have the styles 0 to 3",
        "conversations": {
            "unary": unary(),
            "failures": failures(),
            "server_stream": server_stream(),
            "client_stream": client_stream(),
            "duplex": duplex(),
            "cancel": cancel(),
            "large": large(),
            "large_refused": large_refused(),
        },
    })
}

fn unary() -> Value {
    let mut wire = Wire::new();
    let first = wire.call(Style::Unary, b"ding", None);
    let second = wire.call(Style::Unary, b"", Some(9_000_000));
    wire.respond(second, b"");
    wire.respond(first, b"DING");
    wire.steps()
}

fn failures() -> Value {
    let mut wire = Wire::new();
    let hoarse = wire.call(Style::Unary, b"a", None);
    let busy = wire.call(Style::ClientStream, b"b", None);
    let broken = wire.call(Style::ServerStream, b"c", None);
    wire.fail(
        busy,
        Failure { detail: Rejection::Busy.to_detail(Some(250)), ..Failure::new(ErrorCode::Rejected, "busy") },
    );
    wire.fail(hoarse, Failure { detail: 7, ..Failure::new(ErrorCode::Handler, "hoarse today") });
    wire.send_chunk(broken, b"half");
    wire.finish(broken, Err(Failure::new(ErrorCode::HandlerPanic, "oh")));
    wire.steps()
}

fn server_stream() -> Value {
    let mut wire = Wire::new();
    let call = wire.call(Style::ServerStream, b"count", None);
    // The window has 1000: the first chunk costs 364, the second 664.
    wire.send_chunk(call, &[0x61; 300]);
    wire.send_chunk(call, &[0x62; 600]);
    wire.send_chunk(call, b"waits for credit");
    wire.consume_at_client(call, 300);
    wire.consume_at_client(call, 600);
    wire.finish(call, Ok(()));
    wire.consume_at_client(call, 16);
    wire.steps()
}

fn client_stream() -> Value {
    let mut wire = Wire::new();
    let call = wire.call(Style::ClientStream, b"sum", None);
    assert!(wire.upload(call, &[0x61; 300]));
    assert!(wire.upload(call, &[0x62; 600]));
    assert!(!wire.upload(call, b"waits for credit"));
    wire.consume_at_server(call, 300);
    wire.consume_at_server(call, 600);
    assert!(wire.upload(call, b"waits for credit"));
    wire.end_upload(call);
    wire.consume_at_server(call, 16);
    wire.respond(call, b"916");
    wire.steps()
}

fn duplex() -> Value {
    let mut wire = Wire::new();
    let call = wire.call(Style::Duplex, b"", None);
    assert!(wire.upload(call, b"one"));
    wire.send_chunk(call, b"ONE");
    assert!(wire.upload(call, b""));
    wire.end_upload(call);
    wire.send_chunk(call, b"");
    wire.finish(call, Ok(()));
    wire.steps()
}

fn cancel() -> Value {
    let mut wire = Wire::new();
    let never = wire.call(Style::Unary, b"never", None);
    let stream = wire.call(Style::ServerStream, b"count", None);
    wire.send_chunk(stream, b"0");
    wire.cancel(stream);
    wire.cancel(never);
    let next = wire.call(Style::Unary, b"next", None);
    wire.respond(next, b"NEXT");
    wire.steps()
}

fn large() -> Value {
    let mut wire = Wire::new();
    let call = wire.large_call(&[0x63; 2500]);
    wire.respond(call, &[0x64; 2049]);
    wire.steps()
}

fn large_refused() -> Value {
    let mut wire = Wire::new();
    // The ring takes three parts; then the refusal arrives, and the client gives the rest up.
    wire.refuse_large(&[0x63; 8000]);
    let call = wire.large_call(&[0x64; 1100]);
    wire.respond(call, b"");
    wire.steps()
}
