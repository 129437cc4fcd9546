//! Every form of call takes options, and keeps to them or says why not.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use bellrope::{AsyncClient, CallError, Client, Server, client::CallOptions};
use bellrope::{
    client::{CancelToken, ClientConfig, Connection, ConnectionState, Pool, PoolConfig, Retry},
    server::ServerConfig,
};
use bellrope_testkit::support::{PATIENCE, eventually, serve};

use super::running;

/// A server none of whose handlers ever ends by itself.
fn silent(path: &Path) -> Server {
    Server::builder()
        .client_stream("swallow", |_, chunks| async move {
            let _held = chunks;
            std::future::pending().await
        })
        .duplex("mute", |_, incoming, outgoing| async move {
            let _held = (incoming, outgoing);
            std::future::pending().await
        })
        .server_stream("mum", |_, outgoing| async move {
            let _held = outgoing;
            std::future::pending().await
        })
        .bind(path)
        .unwrap()
}

#[test]
fn an_option_that_a_form_cannot_keep_to_is_refused_before_anything_is_sent() {
    let server = serve(ServerConfig::default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = Client::connect(&server.path).unwrap();
    let async_client = runtime.block_on(AsyncClient::connect(&server.path)).unwrap();
    let mut connection = Connection::connect(&server.path).unwrap();
    let retried = CallOptions::new().retry(Retry::NotExecuted);
    let errors = [
        client.client_stream_with("total", b"", &retried).unwrap_err(),
        client.duplex_with("double", b"", &retried).unwrap_err(),
        client.client_stream("total", b"").unwrap().finish_with(&retried).unwrap_err(),
        runtime.block_on(async_client.client_stream_with("total", b"", &retried)).unwrap_err(),
        runtime.block_on(async_client.duplex_with("double", b"", &retried)).unwrap_err(),
        connection.call_with("echo", b"", &mut Vec::new(), &retried).unwrap_err(),
        connection.submit_with("echo", b"", &retried).unwrap_err(),
        connection.queue_with("echo", b"", &retried).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, CallError::UnusableOption { option: "retry", .. }), "{error}");
        assert!(
            !error.is_retryable() && error.to_string().starts_with("the option retry cannot be used with "),
            "{error}"
        );
    }
    let cancelled = CallOptions::new().cancel(&CancelToken::new());
    for error in [
        connection.submit_with("echo", b"", &cancelled),
        connection.queue_with("echo", b"", &cancelled).map(Option::unwrap),
    ] {
        assert!(error.unwrap_err().to_string().contains("Connection::cancel"));
    }
    assert_eq!(connection.in_flight(), 0);
    connection.call("echo", b"on", &mut Vec::new()).unwrap();
}

#[test]
fn a_time_out_is_for_the_whole_call_of_every_form() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let server = silent(&path);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = Client::connect(&path).unwrap();
    let async_client = runtime.block_on(AsyncClient::connect(&path)).unwrap();
    let short = CallOptions::new().timeout(Duration::from_millis(50));
    let chunk = [7; 1000];

    let mut errors = vec![
        client.client_stream_with("swallow", b"", &short).unwrap().finish().unwrap_err(),
        client.client_stream("swallow", b"").unwrap().finish_with(&short).unwrap_err(),
        // The earlier of both holds.
        client
            .client_stream_with("swallow", b"", &short)
            .unwrap()
            .finish_with(&CallOptions::new().timeout(PATIENCE))
            .unwrap_err(),
        client.duplex_with("mute", b"", &short).unwrap().1.next().unwrap().unwrap_err(),
        client.stream_with("mum", b"", &short).unwrap().next().unwrap().unwrap_err(),
    ];
    // Nobody takes the chunks, so that their sender waits for credit: until the time is over, or the server has said so.
    let mut upload = client.client_stream_with("swallow", b"", &short).unwrap();
    while matches!(upload.send(&chunk), Ok(true)) {}
    errors.push(upload.finish().unwrap_err());
    let (mut sink, mut stream) = client.duplex_with("mute", b"", &short).unwrap();
    while matches!(sink.send(&chunk), Ok(true)) {}
    errors.push(stream.next().unwrap().unwrap_err());

    runtime.block_on(async {
        let upload = async_client.client_stream_with("swallow", b"", &short).await.unwrap();
        errors.push(upload.finish().await.unwrap_err());
        let upload = async_client.client_stream("swallow", b"").await.unwrap();
        errors.push(upload.finish_with(&short).await.unwrap_err());
        let mut upload = async_client.client_stream_with("swallow", b"", &short).await.unwrap();
        while matches!(upload.send(&chunk).await, Ok(true)) {}
        errors.push(upload.finish().await.unwrap_err());
        let (mut sink, mut stream) = async_client.duplex_with("mute", b"", &short).await.unwrap();
        while matches!(sink.send(&chunk).await, Ok(true)) {}
        errors.push(stream.next().await.unwrap().unwrap_err());
        assert!(stream.next().await.is_none());
    });
    for error in errors {
        assert!(matches!(error, CallError::DeadlineExceeded), "{error}");
    }
    eventually("every handler is dropped", || server.metrics().snapshot().types.iter().all(|row| row.running == 0));
}

#[test]
fn an_upload_without_a_time_out_waits_for_its_answer_no_longer_than_a_call() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let _server = silent(&path);
    let mut config = ClientConfig::new(&path);
    config.call_timeout = Duration::from_millis(50);
    let client = Client::with(config.clone()).unwrap();
    let error = client.client_stream("swallow", b"").unwrap().finish().unwrap_err();
    assert!(matches!(error, CallError::DeadlineExceeded), "{error}");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let client = AsyncClient::with(config).await.unwrap();
        let error = client.client_stream("swallow", b"").await.unwrap().finish().await.unwrap_err();
        assert!(matches!(error, CallError::DeadlineExceeded), "{error}");
    });
}

#[test]
fn a_token_ends_every_form_of_call_and_its_handler() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let server = silent(&path);
    let under_way = || server.metrics().snapshot().types.iter().map(|row| row.running).sum::<u64>();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = Client::connect(&path).unwrap();
    let async_client = runtime.block_on(AsyncClient::connect(&path)).unwrap();
    let token = CancelToken::new();
    let options = CallOptions::new().cancel(&token);

    let upload = client.client_stream_with("swallow", b"", &options).unwrap();
    let finishing = client.client_stream("swallow", b"").unwrap();
    let (mut sink, mut chunks) = client.duplex_with("mute", b"", &options).unwrap();
    let stream = runtime.block_on(async_client.stream_with("mum", b"", &options)).unwrap();
    let async_upload = runtime.block_on(async_client.client_stream_with("swallow", b"", &options)).unwrap();
    let async_finishing = runtime.block_on(async_client.client_stream("swallow", b"")).unwrap();
    let (_async_sink, mut async_chunks) = runtime.block_on(async_client.duplex_with("mute", b"", &options)).unwrap();
    eventually("all are under way", || under_way() == 7);
    let ended = std::thread::scope(|scope| {
        let finishing = scope.spawn(|| finishing.finish_with(&options).unwrap_err());
        let receiving = scope.spawn(move || (chunks.next().unwrap().unwrap_err(), chunks.next().is_none()));
        let sending = scope.spawn(move || while matches!(sink.send(&[7; 1000]), Ok(true)) {});
        let mut stream = stream;
        let streaming = runtime.spawn(async move { stream.next().await.unwrap().unwrap_err() });
        let async_finishing = runtime.spawn({
            let options = options.clone();
            async move { async_finishing.finish_with(&options).await.unwrap_err() }
        });
        token.cancel();
        let (received, ended) = receiving.join().unwrap();
        assert!(ended);
        sending.join().unwrap();
        let streamed = runtime.block_on(streaming).unwrap();
        vec![finishing.join().unwrap(), received, streamed, runtime.block_on(async_finishing).unwrap()]
    });
    let late = [
        upload.finish().unwrap_err(),
        runtime.block_on(async_upload.finish()).unwrap_err(),
        runtime.block_on(async_chunks.next()).unwrap().unwrap_err(),
        // A token stays cancelled.
        client.client_stream_with("swallow", b"", &options).unwrap_err(),
        client.duplex_with("mute", b"", &options).unwrap_err(),
        runtime.block_on(async_client.duplex_with("mute", b"", &options)).unwrap_err(),
    ];
    for error in ended.into_iter().chain(late) {
        assert!(matches!(error, CallError::Cancelled), "{error}");
    }
    eventually("every handler is dropped", || under_way() == 0);
}

#[test]
fn a_token_ends_calls_that_wait_for_a_server() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let server = silent(&path);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut config = ClientConfig::new(&path);
    config.reconnect_timeout = PATIENCE;
    let client = Client::with(config.clone()).unwrap();
    let async_client = runtime.block_on(AsyncClient::with(config)).unwrap();
    drop(server);
    eventually("the loss is noticed", || {
        [client.state(), async_client.state()].iter().all(|state| *state == ConnectionState::Reconnecting)
    });
    let token = CancelToken::new();
    let options = CallOptions::new().cancel(&token);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| client.call_with("swallow", b"", &options).unwrap_err());
        let async_call = runtime.spawn({
            let (client, options) = (async_client.clone(), options.clone());
            async move { client.stream_with("mum", b"", &options).await.unwrap_err() }
        });
        token.cancel();
        // And not the error of a connection that could not be made, a minute later.
        assert!(matches!(call.join().unwrap(), CallError::Cancelled));
        assert!(matches!(runtime.block_on(async_call).unwrap(), CallError::Cancelled));
    });
}

/// A server whose stream hangs in its first run, after so many chunks, and ends in its second.
fn hanging_stream(path: &Path, runs: &Arc<AtomicUsize>, chunks_before: u8) -> Server {
    let runs = Arc::clone(runs);
    Server::builder()
        .server_stream("hang_once", move |_, mut chunks| {
            let first = runs.fetch_add(1, SeqCst) == 0;
            async move {
                for n in 0..chunks_before {
                    chunks.send([n]).await?;
                }
                if first { std::future::pending().await } else { Ok(chunks.send(b"second").await?) }
            }
        })
        .bind(path)
        .unwrap()
}

#[test]
fn a_stream_is_sent_again_only_before_its_first_chunk_and_only_if_the_caller_allows() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    for (retry, before, wanted) in [
        (Retry::Never, 0, "unknown"),
        (Retry::NotExecuted, 0, "unknown"),
        (Retry::Idempotent, 0, "second"),
        (Retry::Idempotent, 1, "unknown"),
    ] {
        for is_async in [false, true] {
            runs.store(0, SeqCst);
            let server = hanging_stream(&path, &runs, before);
            let options = CallOptions::new().retry(retry);
            let (told, hears) = mpsc::channel();
            let calling = std::thread::spawn({
                let (path, handle) = (path.clone(), runtime.handle().clone());
                move || {
                    let mut stream: Box<dyn FnMut() -> Option<Result<Vec<u8>, CallError>>> = if is_async {
                        let client = handle.block_on(AsyncClient::connect(&path)).unwrap();
                        let mut stream = handle.block_on(client.stream_with("hang_once", b"", &options)).unwrap();
                        Box::new(move || handle.block_on(stream.next()))
                    } else {
                        let client = Client::connect(&path).unwrap();
                        let mut stream = client.stream_with("hang_once", b"", &options).unwrap();
                        Box::new(move || stream.next())
                    };
                    (0..before).for_each(|_| drop(stream().unwrap().unwrap()));
                    told.send(()).unwrap();
                    let end = match stream().unwrap() {
                        Ok(chunk) => String::from_utf8(chunk).unwrap(),
                        Err(CallError::Unknown) => "unknown".to_owned(),
                        Err(error) => error.to_string(),
                    };
                    assert!(stream().is_none());
                    end
                }
            });
            hears.recv_timeout(PATIENCE).unwrap();
            eventually("the call runs", || runs.load(SeqCst) == 1);
            drop(server);
            let _again = hanging_stream(&path, &runs, before);
            assert_eq!(calling.join().unwrap(), wanted, "{retry:?}, async: {is_async}");
        }
    }
}

#[test]
fn a_connection_keeps_to_time_outs_and_tokens() {
    let server = serve(ServerConfig::default());
    let mut connection = Connection::connect(&server.path).unwrap();
    let short = CallOptions::new().timeout(Duration::from_millis(50));
    let mut reply = Vec::new();
    let error = connection.call_with("never", b"", &mut reply, &short).unwrap_err();
    assert!(matches!(error, CallError::DeadlineExceeded), "{error}");
    let token = CancelToken::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            eventually("it runs", || running(&server) == 1);
            token.cancel();
        });
        let options = CallOptions::new().cancel(&token);
        let error = connection.call_with("never", b"", &mut reply, &options).unwrap_err();
        assert!(matches!(error, CallError::Cancelled), "{error}");
        let error = connection.call_with("echo", b"", &mut reply, &options).unwrap_err();
        assert!(matches!(error, CallError::Cancelled), "a token stays cancelled: {error}");
    });
    connection.flush();
    // On a busy machine the first may have been late before it began.
    eventually("no handler is left", || running(&server) == 0);
    connection.call_with("echo", b"on", &mut reply, &short.timeout(PATIENCE)).unwrap();
    assert_eq!((&*reply, connection.in_flight()), (&b"on"[..], 0));
}

#[test]
fn calls_submitted_with_a_time_out_end_at_it_whatever_the_server_does() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let _server = Server::builder()
        .unary("stuck", move |_, _| {
            // It ends with an error when the sender goes: that is the release.
            let _ = released.lock().unwrap().recv();
            Ok(())
        })
        .bind(&path)
        .unwrap();
    let mut connection = Connection::connect(&path).unwrap();
    let at_once = connection.submit("stuck", b"").unwrap();
    let options = [30, 10, 20].map(|ms| CallOptions::new().timeout(Duration::from_millis(ms)));
    let mut timed = vec![connection.submit_with("stuck", b"", &options[0]).unwrap()];
    timed.push(connection.submit_with("stuck", b"", &options[1]).unwrap());
    timed.push(connection.queue_with("stuck", b"", &options[2]).unwrap().unwrap());
    let mut reply = Vec::new();
    // Long before the configuration's time-out, which a wait for any call has.
    for _ in 0..3 {
        let completion = connection.wait(&mut reply).unwrap();
        assert!(matches!(completion.outcome, Err(CallError::DeadlineExceeded)));
        timed.retain(|id| *id != completion.id);
    }
    assert!(timed.is_empty(), "each ends once");
    assert_eq!(connection.in_flight(), 1);
    assert!(connection.poll(&mut reply).unwrap().is_none());
    drop(release);
    let completion = connection.wait(&mut reply).unwrap();
    assert_eq!(completion.id, at_once);
    completion.outcome.unwrap();
}

#[test]
fn a_time_out_may_be_for_ever() {
    let server = serve(ServerConfig::default());
    let mut config = ClientConfig::new(&server.path);
    (config.connect_timeout, config.reconnect_timeout, config.call_timeout) =
        (Duration::MAX, Duration::MAX, Duration::MAX);
    let for_ever = CallOptions::new().timeout(Duration::MAX);
    let client = Client::with(config.clone()).unwrap();
    assert_eq!(client.call_with("later", b"on", &for_ever).unwrap(), b"on");
    assert_eq!(client.call("later", b"on").unwrap(), b"on");
    assert_eq!(client.stream_with("count", b"3", &for_ever).unwrap().count(), 3);
    assert_eq!(client.client_stream("total", b"1").unwrap().finish_with(&for_ever).unwrap(), b"1");
    let mut connection = Connection::with(&config).unwrap();
    connection.call_with("later", b"on", &mut Vec::new(), &for_ever).unwrap();
    connection.submit_with("later", b"on", &for_ever).unwrap();
    connection.wait(&mut Vec::new()).unwrap().outcome.unwrap();
    let mut pool_config = PoolConfig::new(&server.path);
    (pool_config.idle_timeout, pool_config.acquire_timeout) = (Duration::MAX, Duration::MAX);
    let pool = Pool::new(pool_config);
    drop(pool.acquire().unwrap());
    pool.acquire().unwrap().call("later", b"on", &mut Vec::new()).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let client = AsyncClient::with(config).await.unwrap();
        assert_eq!(client.call_with("later", b"on", &for_ever).await.unwrap(), b"on");
        let mut stream = client.stream_with("count", b"1", &for_ever).await.unwrap();
        assert!(stream.next().await.unwrap().is_ok() && stream.next().await.is_none());
    });
}
