//! Servers of a fleet, in this process and in others.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bellrope::{Client, HandlerError, Server, server::ServerBuilder};
use bellrope_fleet::{Fleet, FleetError, FleetSettings};
use tempfile::TempDir;

use bellrope_testkit::nats::eventually;

/// A server in this process.
pub(crate) struct Member {
    pub(crate) fleet: Fleet,
    _server: Arc<Server>,
    pub(crate) path: PathBuf,
    pub(crate) seen: Arc<Seen>,
    _home: TempDir,
}

/// What handlers have seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) began: AtomicUsize,
    /// Those of `never` alone.
    pub(crate) never_began: AtomicUsize,
    pub(crate) dropped: AtomicUsize,
    pub(crate) chunks: AtomicUsize,
}

struct OnDrop(Arc<Seen>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

pub(crate) fn settings(url: &str) -> FleetSettings {
    FleetSettings { servers: vec![url.to_owned()], ..FleetSettings::default() }
}

/// A runtime for strangers, who speak NATS by themselves.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// One that offers everything.
pub(crate) fn offering(url: &str) -> Member {
    join(FleetSettings { offer: vec!["*".into()], ..settings(url) }, builder).unwrap()
}

/// One that imports everything, and knows what the others have.
pub(crate) fn importing(url: &str) -> Member {
    join(FleetSettings { import: vec!["*".into()], ..settings(url) }, |_| Server::builder()).unwrap()
}

pub(crate) fn join(settings: FleetSettings, types: impl Fn(&Arc<Seen>) -> ServerBuilder) -> Result<Member, FleetError> {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let seen = Arc::<Seen>::default();
    let server = Arc::new(bellrope_fleet::prepare(types(&seen), &settings).bind(&path).unwrap());
    let fleet = Fleet::join(settings, &server, path.clone())?;
    Ok(Member { fleet, _server: server, path, seen, _home: home })
}

impl Member {
    /// A client that knows the types of the fleet.
    pub(crate) fn client(&self) -> Client {
        let client = Client::connect(&self.path).unwrap();
        eventually("the types of the fleet are known", || client.message_type("echo").is_ok());
        client
    }
}

/// Handlers of every style.
pub(crate) fn builder(seen: &Arc<Seen>) -> ServerBuilder {
    let [never, endless, held] = [(); 3].map(|()| Arc::clone(seen));
    let counted = Arc::clone(seen);
    Server::builder()
        .unary_async("echo", move |call| {
            counted.began.fetch_add(1, Ordering::SeqCst);
            async move { Ok(call.into_payload()) }
        })
        .unary_async("said", |call| async move {
            let said = call.metadata();
            let [caller, session] =
                [said.and_then(|said| said.caller_text()), said.and_then(|said| said.session_text())];
            let trace = said.and_then(|said| said.trace_context()).map(|trace| trace.to_string());
            Ok(format!("{caller:?} {session:?} {trace:?}").into_bytes())
        })
        .unary_async("who", |call| async move {
            let caller = call.caller();
            Ok(format!("{:?} {}", call.vouched(), caller.acting_name().is_some()).into_bytes())
        })
        .unary_async("breaks", |call| async move {
            if call.payload() == b"bad" { Err(HandlerError::failure("it broke")) } else { Ok(call.into_payload()) }
        })
        .unary_async("fail", |_| async { Err(HandlerError::with_code(7, "as asked")) })
        .unary_async("slow", |call| async move {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            Ok(call.into_payload())
        })
        .unary_async("never", move |_| {
            never.began.fetch_add(1, Ordering::SeqCst);
            never.never_began.fetch_add(1, Ordering::SeqCst);
            let guard = OnDrop(Arc::clone(&never));
            async move {
                let _guard = guard;
                std::future::pending().await
            }
        })
        .server_stream("count", |call, mut chunks| async move {
            let many: u32 = String::from_utf8_lossy(call.payload()).parse().unwrap();
            for n in 0..many {
                chunks.send(n.to_le_bytes()).await?;
            }
            Ok(())
        })
        .server_stream("endless", move |_, mut chunks| {
            let seen = Arc::clone(&endless);
            let guard = OnDrop(Arc::clone(&seen));
            async move {
                let _guard = guard;
                seen.began.fetch_add(1, Ordering::SeqCst);
                loop {
                    chunks.send([7; 1024]).await?;
                    seen.chunks.fetch_add(1, Ordering::SeqCst);
                }
            }
        })
        .server_stream("once", move |_, mut chunks| {
            let guard = OnDrop(Arc::clone(&held));
            async move {
                let _guard = guard;
                chunks.send(b"one").await?;
                std::future::pending().await
            }
        })
        .server_stream("pauses", |call, mut chunks| async move {
            let pause: u64 = String::from_utf8_lossy(call.payload()).parse().unwrap();
            for _ in 0..3 {
                chunks.send(b"one").await?;
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            Ok(())
        })
        .client_stream("tally", |_, mut chunks| async move {
            let mut sizes = Vec::new();
            while let Some(chunk) = chunks.next().await {
                sizes.push(chunk.len() as u8);
            }
            Ok(sizes)
        })
        .client_stream("first", |_, mut chunks| async move { Ok(chunks.next().await.unwrap_or_default()) })
        .client_stream("join", |call, mut chunks| async move {
            let mut joined = call.into_payload();
            while let Some(chunk) = chunks.next().await {
                joined.extend(chunk);
            }
            Ok(joined)
        })
        .duplex("double", |_, mut incoming, mut outgoing| async move {
            while let Some(chunk) = incoming.next().await {
                outgoing.send([&chunk[..], &chunk].concat()).await?;
            }
            Ok(())
        })
}

const MEMBER: &str = "BELLROPE_FLEET_MEMBER";

/// A server in a process of its own, which can be killed. It notes each call that runs.
pub(crate) struct Process {
    pub(crate) child: Child,
}

impl Process {
    /// `role` is `offer` or `import`; the socket and the notes are in `home` under this name.
    pub(crate) fn start(role: &str, url: &str, home: &Path, name: &str) -> Self {
        Self::started(Command::new(std::env::current_exe().unwrap()), role, url, home, name)
    }

    /// In a network namespace.
    pub(crate) fn start_in(namespace: &str, role: &str, url: &str, home: &Path, name: &str) -> Self {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(std::env::current_exe().unwrap());
        Self::started(command, role, url, home, name)
    }

    fn started(mut command: Command, role: &str, url: &str, home: &Path, name: &str) -> Self {
        command.args(["servers::as_a_member", "--exact", "--nocapture"]);
        command.env(MEMBER, format!("{role}\n{url}\n{}\n{name}", home.display()));
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { child }
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn socket(home: &Path, name: &str) -> PathBuf {
    home.join(name).join("member.sock")
}

pub(crate) fn notes(home: &Path, name: &str) -> PathBuf {
    home.join(format!("{name}.notes"))
}

/// What a member does in its own process: nothing in a run of the tests.
#[test]
fn as_a_member() {
    let Ok(told) = std::env::var(MEMBER) else { return };
    let told: Vec<_> = told.split('\n').collect();
    let (role, url, home, name) = (told[0], told[1], Path::new(told[2]), told[3]);
    let mut settings = settings(url);
    let mut builder = Server::builder();
    if role == "offer" {
        settings.offer = vec!["*".into()];
        let notes = OpenOptions::new().create(true).append(true).open(notes(home, name)).unwrap();
        builder = noting(notes);
    } else {
        settings.import = vec!["*".into()];
    }
    let path = socket(home, name);
    let server = Arc::new(bellrope_fleet::prepare(builder, &settings).bind(&path).unwrap());
    let fleet = Fleet::join(settings, &server, path).unwrap();
    // Until the test that started it ends, however that ends.
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    drop(fleet);
}

/// Handlers that note the number of each call before they answer.
fn noting(notes: File) -> ServerBuilder {
    let notes = Arc::new(notes);
    let [unary, stream, waiting] = [(); 3].map(|()| Arc::clone(&notes));
    Server::builder()
        .unary_async("waits", move |call| {
            let notes = Arc::clone(&waiting);
            async move {
                (&*notes).write_all(&call.payload()[..8]).map_err(HandlerError::from)?;
                tokio::time::sleep(Duration::from_millis(2_500)).await;
                Ok(call.into_payload())
            }
        })
        .unary_async("echo", move |call| {
            let notes = Arc::clone(&unary);
            async move {
                // In one write, of which the kernel has all or nothing when this process is killed.
                (&*notes).write_all(&call.payload()[..8]).map_err(HandlerError::from)?;
                Ok(call.into_payload())
            }
        })
        .server_stream("count", move |call, mut chunks| {
            let notes = Arc::clone(&stream);
            async move {
                (&*notes).write_all(&call.payload()[..8]).map_err(HandlerError::from)?;
                for n in 0..50_u32 {
                    chunks.send(n.to_le_bytes()).await?;
                }
                Ok(())
            }
        })
}
