//! What a request and a chunk that pass through the API port cost the server: system calls, counted by tracing the port's thread,
//! wake-ups, which the kernel counts, and what the gateway behind the port allocates, with its HTTP client. How long they take is
//! for `bellrope bench port` to print. And what a chunk costs it on its way to a caller of `ai.chat_stream`.
//!
//! Where processes may not be traced the system calls are skipped, and that is said.
#![cfg(target_arch = "x86_64")]

mod providers;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{Sender, channel},
    },
};

use bellrope_gateway::{
    Gateway, GatewaySettings, PassedAnswer, PassedStream, Told, Way, inbound::pass_request, pass::PassFormat,
};
use bellrope_shm::CountingAllocator;
use bellrope_testkit::program::{PATIENCE, Running};
use futures_util::StreamExt;
use hyper::body::Bytes;
use nix::{
    errno::Errno,
    sys::{
        ptrace,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use providers::{CHUNK, WHOLE, frugal_provider, provider};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// Requests, or chunks, that are counted.
const COUNT: usize = 200;
/// Those before: connections are opened, and buffers grow to their size.
const WARM_UP: usize = 20;
/// What a request takes at most, and a chunk: see the lists that the tests print.
const CALLS_OF_A_REQUEST: f64 = 6.3;
/// `write` is how a thread of tokio wakes itself: nothing of a request is written by it.
const WRITE: u64 = 1;
const CALLS_OF_A_CHUNK: f64 = 3.2;
/// At most it sleeps until the tool asks, and until the provider answers: on a busy machine the next piece is often there
/// already.
const WAKE_UPS_OF_A_REQUEST: f64 = 2.3;
const WAKE_UPS_OF_A_CHUNK: f64 = 1.3;
/// Of the thread of the port that has nothing to do with it, for all requests: its timer, and what it did before.
const WAKE_UPS_OF_ANOTHER_THREAD: i64 = 10;
/// Of a worker, for a chunk to a caller of the socket: the caller gives credit for many chunks at once, and each worker looks
/// around once a second.
const WORKER_WAKE_UPS_OF_A_CHUNK: f64 = 0.25;

/// Allocations of the gateway and its HTTP client. Those of the port itself, a process of its own, are not counted.
const ALLOCATIONS_OF_A_REQUEST: u64 = 90;
const ALLOCATIONS_OF_A_CHUNK: u64 = 7;
/// Counts whose median is taken: a thread of the test program may say something meanwhile.
const COUNTS: usize = 5;

/// The server's, below the scene's folder.
const SOCKET: &str = "bellrope/bellrope.sock";

/// One at a time: each counts what the machine does.
static ALONE: Mutex<()> = Mutex::new(());

/// A server whose provider this process is, and a connection to its port.
struct Scene {
    server: Running,
    port: BufReader<TcpStream>,
    /// Lets the provider write a chunk; closed, it ends its answer.
    chunks: Option<Sender<()>>,
    home: tempfile::TempDir,
}

impl Scene {
    /// With one thread for the port.
    fn new() -> Self {
        Self::with(1)
    }

    fn with(threads: usize) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (provider, chunks) = provider();
        let config = format!(
            "api_threads = {threads}\n[gateway]\nprovider = \"p\"\n[gateway.providers.p]\nkind = \"openai\"\nbase_url = \"http://{provider}\"\n\
             model = \"m\"\npass_through = \"exact\"\n"
        );
        let file = home.path().join("bellrope.toml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bellrope"));
        command.args(["serve", "--api-port", "0", "--config"]).arg(&file).env_clear();
        command.env("XDG_RUNTIME_DIR", home.path()).env("XDG_STATE_HOME", home.path().join("state"));
        command.env("BELLROPE_LOCAL_MODELS", "").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let server = Running::start(&mut command);
        let line = server.said("API port on http://");
        let port = Self::connect(line.rsplit("http://").next().unwrap().trim().parse().unwrap());
        Self { server, port, chunks: Some(chunks), home }
    }

    fn connect(address: SocketAddr) -> BufReader<TcpStream> {
        let port = TcpStream::connect(address).unwrap();
        port.set_nodelay(true).unwrap();
        port.set_read_timeout(Some(PATIENCE)).unwrap();
        BufReader::new(port)
    }

    fn send(&mut self, stream: bool) {
        let body = format!(r#"{{"model":"p/m","stream":{stream},"messages":[{{"role":"user","content":"Hi"}}]}}"#);
        let host = self.port.get_ref().peer_addr().unwrap();
        let head = format!("POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n");
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        self.port.get_mut().write_all(request.as_bytes()).unwrap();
    }

    /// Reads up to the end of a line that begins so.
    fn read_to(&mut self, start: &str) {
        let mut line = String::new();
        while !line.starts_with(start) {
            line.clear();
            assert!(self.port.read_line(&mut line).unwrap() > 0, "the answer ended before {start:?}");
        }
    }

    /// One request and its whole answer.
    fn ask(&mut self) {
        self.send(false);
        let mut line = String::new();
        let mut length = 0;
        while line != "\r\n" {
            line.clear();
            assert!(self.port.read_line(&mut line).unwrap() > 0, "the answer ended in its head");
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.port.read_exact(&mut body).unwrap();
        assert_eq!(String::from_utf8(body).unwrap(), WHOLE);
    }

    /// One chunk, from the provider to here.
    fn chunk(&mut self) {
        self.chunks.as_ref().unwrap().send(()).unwrap();
        self.read_to("data: {\"id\":\"1\"");
    }

    /// Begins the stream whose chunks are counted. An answer begins with its first chunk.
    fn stream(&mut self) {
        self.send(true);
        self.chunk();
    }

    /// How often the threads of the server went to sleep so far, but for those that have ended; of all, or of those whose names
    /// begin so.
    fn sleeps(&self, name: &str) -> i64 {
        let of = |id: i32| {
            let status = fs::read_to_string(format!("/proc/{}/task/{id}/status", self.server.id())).ok()?;
            let value = |key| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
            if value("Name:")?.starts_with(name) {
                value("voluntary_ctxt_switches:")?.parse::<i64>().ok()
            } else {
                None
            }
        };
        self.threads().filter_map(of).sum()
    }

    fn threads(&self) -> impl Iterator<Item = i32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.server.id())).unwrap();
        tasks.map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap())
    }

    /// The threads that serve the port.
    fn port_threads(&self) -> Vec<i32> {
        let name = |id: &i32| fs::read_to_string(format!("/proc/{}/task/{id}/comm", self.server.id()));
        self.threads().filter(|id| name(id).is_ok_and(|name| name.trim() == "bellrope-api")).collect()
    }
}

/// Wake-ups of the port's thread for each of the things that `act` does.
fn wake_ups(scene: &mut Scene, act: fn(&mut Scene)) -> f64 {
    (0..WARM_UP).for_each(|_| act(scene));
    let before = scene.sleeps("bellrope-api");
    (0..COUNT).for_each(|_| act(scene));
    (scene.sleeps("bellrope-api") - before) as f64 / COUNT as f64
}

/// The system calls of the port's thread while `act` is done so often, by their numbers; `None`: nobody may trace here.
fn system_calls(scene: &mut Scene, act: fn(&mut Scene)) -> Option<BTreeMap<u64, usize>> {
    let [thread] = scene.port_threads()[..] else { panic!("it is one thread: {:?}", scene.port_threads()) };
    (0..WARM_UP).for_each(|_| act(scene));
    let over = AtomicBool::new(false);
    let (ready, is_ready) = channel();
    std::thread::scope(|scope| {
        // Whoever traces has to be the thread that waits.
        let tracing = scope.spawn(|| trace(Pid::from_raw(thread), &over, &ready));
        let is_traced = is_ready.recv_timeout(PATIENCE).unwrap();
        if is_traced {
            (0..COUNT).for_each(|_| act(scene));
            over.store(true, SeqCst);
            // The thread sleeps; what it does next ends the count.
            act(scene);
        }
        tracing.join().unwrap()
    })
}

/// Counts the system calls of a thread until it is over, and then lets it go.
fn trace(thread: Pid, over: &AtomicBool, ready: &Sender<bool>) -> Option<BTreeMap<u64, usize>> {
    let mut calls = BTreeMap::new();
    match ptrace::seize(thread, ptrace::Options::PTRACE_O_TRACESYSGOOD) {
        Ok(()) => {}
        Err(Errno::EPERM | Errno::ENOSYS) => {
            ready.send(false).unwrap();
            return None;
        }
        Err(error) => panic!("{error}"),
    }
    ptrace::interrupt(thread).unwrap();
    let mut is_first = true;
    let mut enters = true;
    loop {
        let signal = match waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap() {
            WaitStatus::PtraceSyscall(_) => {
                if enters && !over.load(SeqCst) {
                    *calls.entry(ptrace::getregs(thread).unwrap().orig_rax).or_default() += 1;
                }
                enters = !enters;
                None
            }
            WaitStatus::PtraceEvent(..) => {
                if is_first {
                    is_first = false;
                    ready.send(true).unwrap();
                }
                None
            }
            WaitStatus::Stopped(_, signal) => Some(signal),
            status => panic!("{status:?}"),
        };
        if over.load(SeqCst) {
            ptrace::detach(thread, signal).unwrap();
            return Some(calls);
        }
        ptrace::syscall(thread, signal).unwrap();
    }
}

/// Straight to the stream: what is printed by a test that passes is not shown.
fn tell(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Holds the number of system calls against a bound.
fn check(what: &str, calls: Option<&BTreeMap<u64, usize>>, most: f64) {
    let Some(calls) = calls else {
        return bellrope_testkit::skipped("processes may not be traced here; system calls were not counted");
    };
    let each = calls.values().sum::<usize>() as f64 / COUNT as f64;
    tell(format_args!("{what}: {each:.2} system calls, by number: {calls:?}"));
    // What waits is in the list, so that a bound that nothing can exceed is noticed.
    assert!((1.0..=most).contains(&each), "{what} takes {each} system calls: {calls:?}");
    let writes = calls.get(&WRITE).copied().unwrap_or_default();
    assert!(writes < COUNT / 4, "{what} wakes the thread that it runs on: {calls:?}");
}

#[test]
fn a_request_that_passes_through_takes_few_system_calls_and_wake_ups() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut scene = Scene::new();
    let wake_ups = wake_ups(&mut scene, Scene::ask);
    tell(format_args!("a request: {wake_ups:.2} wake-ups"));
    assert!(wake_ups <= WAKE_UPS_OF_A_REQUEST, "{wake_ups}");
    check("a request", system_calls(&mut scene, Scene::ask).as_ref(), CALLS_OF_A_REQUEST);
}

#[test]
fn a_request_and_what_it_asks_the_provider_stay_on_one_thread_of_the_port() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut scene = Scene::with(2);
    let threads = scene.port_threads();
    assert_eq!(threads.len(), 2);
    // The second connection goes to the thread that has none. Each opens a connection to the provider.
    let mut other = Scene::connect(scene.port.get_ref().peer_addr().unwrap());
    for _ in 0..2 * WARM_UP {
        scene.ask();
        std::mem::swap(&mut scene.port, &mut other);
    }
    let sleeps = |scene: &Scene| {
        let of = |id: &i32| fs::read_to_string(format!("/proc/{}/task/{id}/status", scene.server.id())).unwrap();
        let count = |status: String| {
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
            line.trim().parse::<i64>().unwrap()
        };
        threads.iter().map(|id| count(of(id))).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        let before = sleeps(&scene);
        (0..COUNT).for_each(|_| scene.ask());
        let woken: Vec<_> = sleeps(&scene).iter().zip(before).map(|(after, before)| after - before).collect();
        tell(format_args!("{COUNT} requests of one connection woke the threads of the port {woken:?} times"));
        let least = woken.iter().min().unwrap();
        assert!(*least <= WAKE_UPS_OF_ANOTHER_THREAD && woken.iter().sum::<i64>() > *least, "{woken:?}");
        std::mem::swap(&mut scene.port, &mut other);
    }
}

#[test]
fn a_chunk_that_passes_through_takes_few_system_calls_and_wake_ups() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut scene = Scene::new();
    scene.stream();
    let wake_ups = wake_ups(&mut scene, Scene::chunk);
    tell(format_args!("a chunk: {wake_ups:.2} wake-ups"));
    assert!(wake_ups <= WAKE_UPS_OF_A_CHUNK, "{wake_ups}");
    check("a chunk", system_calls(&mut scene, Scene::chunk).as_ref(), CALLS_OF_A_CHUNK);
    scene.chunks = None;
    scene.read_to("data: [DONE]");
}

#[test]
fn a_chunk_to_a_caller_wakes_the_thread_that_reads_the_provider_and_no_worker() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut scene = Scene::new();
    let client = bellrope::Client::connect(scene.home.path().join(SOCKET)).unwrap();
    let mut stream = client.stream("ai.chat_stream", br#"{"messages":[{"role":"user","content":"Hi"}]}"#).unwrap();
    let mut chunk = |scene: &Scene| {
        scene.chunks.as_ref().unwrap().send(()).unwrap();
        let chunk = String::from_utf8(stream.next().unwrap().unwrap()).unwrap();
        assert!(chunk.contains("bell"), "{chunk}");
    };
    (0..WARM_UP).for_each(|_| chunk(&scene));
    let [workers, runtime] = ["bellrope-work", "bellrope-async"];
    let before = [workers, runtime].map(|name| scene.sleeps(name));
    assert!(before.iter().all(|sleeps| *sleeps > 0), "their threads are found: {before:?}");
    (0..COUNT).for_each(|_| chunk(&scene));
    let after = [workers, runtime].map(|name| scene.sleeps(name));
    let [workers, runtime] = [0, 1].map(|which| (after[which] - before[which]) as f64 / COUNT as f64);
    tell(format_args!("a chunk to a caller: {workers:.2} wake-ups of workers, {runtime:.2} of the runtime"));
    assert!(workers <= WORKER_WAKE_UPS_OF_A_CHUNK && runtime <= WAKE_UPS_OF_A_CHUNK, "{workers} and {runtime}");
    scene.chunks = None;
    assert!(stream.all(|chunk| chunk.is_ok()));
}

async fn pass(gateway: &Gateway, names: &[String], body: &'static str) -> Result<Bytes, PassedStream> {
    let request = pass_request(PassFormat::ChatCompletions, Bytes::from_static(body.as_bytes()), names);
    match gateway.pass(request.unwrap().unwrap()).await {
        Way::Passed(PassedAnswer { body, .. }) => body,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_passes_through_allocates_little() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut tell, told) = UnixStream::pair().unwrap();
    let url = format!("http://{}", frugal_provider(told));
    let settings = serde_json::json!({"provider": "p", "providers": {
        "p": {"kind": "openai", "base_url": url, "model": "m", "pass_through": "exact"},
    }});
    let settings: GatewaySettings = serde_json::from_value(settings).unwrap();
    let gateway = Gateway::from_settings_and_vars(settings, |_| None).unwrap();
    let names = gateway.names();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let request = r#"{"model":"p/m","stream":false,"messages":[{"role":"user","content":"Hi"}]}"#;
        let mut counts = [0; COUNTS];
        for count in &mut counts {
            for number in 0..WARM_UP + COUNT {
                if number == WARM_UP {
                    ALLOCATOR.start();
                }
                let Ok(whole) = pass(&gateway, names, request).await else { panic!("a whole answer was asked for") };
                assert_eq!(whole, WHOLE);
            }
            *count = ALLOCATOR.stop() / COUNT as u64;
        }
        check_allocations("a request", counts, ALLOCATIONS_OF_A_REQUEST);

        let request = r#"{"model":"p/m","stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
        // The first chunk is the beginning of the answer.
        tell.write_all(b".").unwrap();
        let Err(mut events) = pass(&gateway, names, request).await else { panic!("a stream was asked for") };
        let mut next = async || match events.next().await {
            Some(Told::Bytes(bytes)) => assert_eq!(bytes, CHUNK),
            other => panic!("{other:?}"),
        };
        next().await;
        for count in &mut counts {
            for number in 0..WARM_UP + COUNT {
                if number == WARM_UP {
                    ALLOCATOR.start();
                }
                tell.write_all(b".").unwrap();
                next().await;
            }
            *count = ALLOCATOR.stop() / COUNT as u64;
        }
        check_allocations("a chunk", counts, ALLOCATIONS_OF_A_CHUNK);
    });
}

fn check_allocations(what: &str, mut counts: [u64; COUNTS], most: u64) {
    counts.sort_unstable();
    let each = counts[COUNTS / 2];
    tell(format_args!("{what}: {each} allocations"));
    assert!(each <= most, "{what} takes {each} allocations: {counts:?}");
}
