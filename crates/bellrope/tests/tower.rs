//! Layers of tower around calls and handlers.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bellrope::{
    AsyncClient, CallError, HandlerError, Server,
    server::OwnedCall,
    tower::{Calls, Request},
};
use tokio::sync::Semaphore;
use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};

/// How many handlers run now, and the most that ever did.
#[derive(Default)]
struct Running {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Running {
    fn enter(self: &Arc<Self>) -> Left {
        self.most.fetch_max(self.now.fetch_add(1, SeqCst) + 1, SeqCst);
        Left(Arc::clone(self))
    }
}

struct Left(Arc<Running>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, SeqCst);
    }
}

#[tokio::test]
async fn a_limit_around_a_handler_holds_for_all_its_callers() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("tower.sock");
    let (running, gate) = (Arc::<Running>::default(), Arc::new(Semaphore::new(0)));
    let (seen, opened) = (Arc::clone(&running), Arc::clone(&gate));
    let handler = ServiceBuilder::new().concurrency_limit(2).service(service_fn(move |call: OwnedCall| {
        let (running, gate) = (Arc::clone(&seen), Arc::clone(&opened));
        async move {
            let _left = running.enter();
            gate.acquire().await.map_err(|error| HandlerError::new(error.to_string()))?.forget();
            Ok::<_, HandlerError>(call.payload().to_ascii_uppercase())
        }
    }));
    let _server = Server::builder().tower("shout", handler).bind(&path).unwrap();
    let client = AsyncClient::connect(&path).await.unwrap();
    let calls: Vec<_> = (0..6)
        .map(|_| {
            let caller = Calls::new(client.clone());
            tokio::spawn(caller.oneshot(Request::new("shout", "ding")))
        })
        .collect();
    let two = async {
        while running.now.load(SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), two).await.unwrap();
    gate.add_permits(6);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), b"DING");
    }
    assert_eq!(running.most.load(SeqCst), 2);
}

#[tokio::test]
async fn a_time_out_around_a_caller_cancels_the_call_at_its_handler_and_one_around_a_handler_is_its_error() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("tower.sock");
    let running = Arc::<Running>::default();
    let seen = Arc::clone(&running);
    let late = ServiceBuilder::new()
        .timeout(Duration::from_millis(1))
        .service(service_fn(|_: OwnedCall| pending::<Result<Vec<u8>, BoxError>>()));
    let refusing = service_fn(async |_: OwnedCall| Err::<Vec<u8>, _>(HandlerError::with_code(7, "hoarse")));
    let _server = Server::builder()
        .tower("late", late)
        .tower("hoarse", refusing)
        .unary_async("never", move |_| {
            let left = seen.enter();
            async move {
                let _left = left;
                pending().await
            }
        })
        .bind(&path)
        .unwrap();
    let caller = Calls::from(AsyncClient::connect(&path).await.unwrap());
    let error = caller.clone().oneshot(Request::new("late", "")).await.unwrap_err();
    assert!(matches!(&error, CallError::Handler { text, .. } if text.contains("timed out")), "{error}");
    let error = caller.clone().oneshot(Request::new("hoarse", "")).await.unwrap_err();
    assert!(matches!(&error, CallError::Handler { code: 7, text } if text == "hoarse"), "{error}");

    let hasty = ServiceBuilder::new().timeout(Duration::from_millis(200)).service(caller);
    let error = hasty.oneshot(Request::new("never", "")).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>(), "{error}");
    let gone = async {
        while running.most.load(SeqCst) == 0 || running.now.load(SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.unwrap();
}
