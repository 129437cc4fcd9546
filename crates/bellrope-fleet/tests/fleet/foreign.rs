//! Messages of strangers on our subjects.

use std::sync::atomic::{AtomicBool, Ordering};

use bellrope::Client;
use futures_util::StreamExt as _;

use bellrope_testkit::nats::Nats;

use crate::servers::{importing, offering};

/// Listens to everything, and sends it again with bytes changed, cut and made up, on the subjects where it was seen.
async fn disturb(url: &str, stop: &AtomicBool) -> u64 {
    let client = async_nats::connect(url).await.unwrap();
    let mut heard = client.subscribe("bellrope.>").await.unwrap();
    let mut rng = fastrand::Rng::with_seed(7);
    let mut sent = 0;
    while !stop.load(Ordering::SeqCst) {
        let Ok(Some(message)) = tokio::time::timeout(std::time::Duration::from_millis(50), heard.next()).await else {
            continue;
        };
        // What we sent ourselves comes back: not again.
        if message.headers.is_some() || rng.u8(..) < 100 {
            continue;
        }
        let mut payload = message.payload.to_vec();
        match rng.u8(0..3) {
            0 => payload.truncate(rng.usize(..=payload.len())),
            1 => payload = (0..rng.usize(..100)).map(|_| rng.u8(..)).collect(),
            _ => {
                // Neither the version nor who speaks: those are refused at once.
                if payload.len() > 12 {
                    let at = rng.usize(11..payload.len());
                    payload[at] = rng.u8(..);
                }
            }
        }
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("From", "a stranger");
        client.publish_with_headers(message.subject, headers, payload.into()).await.unwrap();
        sent += 1;
    }
    client.flush().await.unwrap();
    sent
}

#[test]
fn messages_of_strangers_break_nothing_but_the_calls_that_they_are_about() {
    let Some(nats) = Nats::start() else { return };
    let there = offering(&nats.url());
    let here = importing(&nats.url());
    let client = here.client();
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let disturbing = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(disturb(&nats.url(), &stop))
        });
        for round in 0..300_usize {
            // Whatever becomes of each: it ends.
            let _ = client.call("echo", &vec![1; round * 7]);
            if round % 10 == 0 {
                let _ = client.stream("count", b"20").unwrap().take_while(Result::is_ok).count();
            }
        }
        stop.store(true, Ordering::SeqCst);
        disturbing.join().unwrap()
    });
    assert!(sent > 50, "{sent}");
    // Both sides are well.
    let fresh = Client::connect(&here.path).unwrap();
    bellrope_testkit::nats::eventually("calls are answered as ever", || {
        fresh.call("echo", b"ding").is_ok_and(|it| it == b"ding")
    });
    assert_eq!(fresh.stream("count", b"100").unwrap().map(Result::unwrap).count(), 100);
    assert!(there.fleet.is_linked() && here.fleet.is_linked());
}
