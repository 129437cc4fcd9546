//! What is said of calls whose server is gone, over a socket.

use bellrope_proto::{
    Style, Terms,
    connection::{ClientConnection, Loss},
    frame::Kind,
    layout::Geometry,
    stream::{Scratch, StreamEnd},
};
use bellrope_shm::SharedMemory;
use serde_json::{Value, json};

use crate::bytes::Travelling;

fn terms() -> Terms {
    Terms { geometry: Geometry::new(16 * 1024).unwrap(), max_message: 16_000, max_in_flight: 16, stream_window: 1000 }
}

pub(crate) fn vectors() -> Value {
    let Terms { geometry, max_message, max_in_flight, stream_window } = terms();
    // Three unary calls; the first has 16 + 10 bytes, the second a fragment of 24 + 4096 and a request of 16 + 904.
    let requests = [10, 5000, 0];
    let whole = 26 + 4120 + 920 + 16;
    let cases = [
        ("nothing was sent", 0, None),
        ("the first request lacks a byte", 25, None),
        ("the first request was sent whole", 26, None),
        ("of the second only its first part", 26 + 4120, None),
        ("the second lacks a byte", 26 + 4120 + 919, None),
        ("all but a byte", whole - 1, None),
        ("all was sent, and the server was killed", whole, None),
        ("all was sent, and the server took none", whole, Some(0)),
        ("all was sent, and the server took the first", whole, Some(1)),
        ("all was sent, and the server took two", whole, Some(2)),
        ("all was sent and taken", whole, Some(3)),
        ("the second was half sent, and the server took none", 26 + 4120, Some(0)),
    ];
    let cases = cases.map(|(what, sent, admitted)| {
        json!({ "what": what, "sent": sent, "admitted": admitted, "outcomes": outcomes(requests, sent, admitted) })
    });
    json!({
        "capacity": geometry.capacity,
        "max_message": max_message,
        "max_in_flight": max_in_flight,
        "stream_window": stream_window,
        "requests": requests,
        "cases": cases,
    })
}

fn outcomes(requests: [usize; 3], sent: usize, admitted: Option<u64>) -> [&'static str; 3] {
    let geometry = terms().geometry;
    let memory = SharedMemory::anonymous(geometry.mapping_len());
    let mut client = ClientConnection::new(&memory, terms());
    let mut end = StreamEnd::of_client(&memory, geometry);
    let ids = requests.map(|size| {
        let payload = vec![1; size];
        if size <= client.max_record() {
            return client.submit(1, Style::Unary, &payload, None).unwrap();
        }
        let mut sending = client.begin_large(Style::Unary, size).unwrap();
        while !client.push_large(&mut sending, 1, &payload, None).unwrap() {
            let _ = client.commit();
        }
        sending.id
    });
    let _ = client.commit();
    let mut scratch = Scratch::new();
    let mut left = sent;
    while left > 0 {
        let count = end.outgoing(&mut scratch).unwrap().len().min(left);
        end.sent(count).unwrap();
        left -= count;
    }
    if let Some(taken) = admitted {
        let last = Travelling::new(Kind::Admitted, 0, 0, Some(taken), b"").encode();
        assert!(end.put().unwrap());
        end.space(&mut scratch)[..last.len()].copy_from_slice(&last);
        end.came(&scratch, last.len()).unwrap();
        assert!(end.is_last());
    }
    ids.map(|id| match client.loss(id) {
        Loss::NotExecuted => "NotExecuted",
        Loss::Unknown => "Unknown",
    })
}
