//! One connection to NATS, which lives once.
//!
//! The client of NATS keeps what it is given while it is offline, and sends it when it has found a server again. Then a call
//! could run that was reported as lost long ago. So a link never reconnects: the task of its connection ends with the
//! connection, and whatever was not sent is gone. The next link is a new one, with a new number.
//!
//! All links of a server, all that is done by way of them, and all its calls to the fleet run in the one thread of the fleet:
//! what NATS brings is dealt with in the wake-up that it has cost.

mod publisher;
mod watch;

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, HeaderMap, ServerAddr, Subscriber};
use futures_util::StreamExt as _;
use tokio::{
    sync::{Notify, mpsc},
    task::{AbortHandle, JoinSet},
    time::timeout,
};

pub(crate) use self::publisher::Lost;
use self::{
    publisher::{MOST_POSTS, Post, Publisher},
    watch::{Watch, note},
};
use crate::{flow::MOST_PART, settings::FleetSettings};

/// Messages that may wait for the socket. With parts of 32 KiB that is 4 MiB.
const QUEUE: usize = 128;
/// Messages of one subscription that may wait for us. What comes on top is lost, and its call ends as `Unknown`.
const UNREAD: usize = 4096;
/// A part has so many bytes at least, where its item has: a NATS server that takes less takes none of our messages.
const LEAST_PART: usize = 1024;
/// Bytes of a message beside its part.
const HEAD: usize = 2048;
/// How long a server may take to let us in.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a message to ourselves may take.
const RETURNS: Duration = Duration::from_secs(2);
/// The end of the subject of a message to ourselves.
pub(crate) const PROBE: &str = "probe";
/// How often NATS is asked whether it is there. Heartbeats of calls are faster.
const PING: Duration = Duration::from_secs(2);
/// The oldest NATS server that says when nobody answers: older ones let such a call run into its time-out.
const OLDEST: (u64, u64) = (2, 2);

/// Why a fleet could not be joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FleetError {
    /// A setting is wrong.
    #[error(transparent)]
    Setting(#[from] crate::settings::SettingFault),
    /// A file of the settings cannot be read, or holds something else.
    #[error("{key} names {path}, which cannot be used: {source}")]
    File {
        /// The setting.
        key: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// No NATS server answers.
    #[error("no NATS server answers at {servers}: {reason}")]
    NoServer {
        /// Where it was looked for.
        servers: String,
        /// What the system said.
        reason: String,
    },
    /// The NATS server does not let us in.
    #[error("the NATS server at {servers} refuses the credentials: {reason}")]
    Credentials {
        /// Where.
        servers: String,
        /// What it said.
        reason: String,
    },
    /// TLS failed: no trust, or one side begins with it and the other does not.
    #[error(
        "TLS with the NATS server at {servers} failed: {reason}; see fleet.ca_file, fleet.certificate_file with fleet.key_file, and fleet.tls_first"
    )]
    Tls {
        /// Where.
        servers: String,
        /// What was said.
        reason: String,
    },
    /// The NATS server is too old.
    #[error("the NATS server is version {version}; it must be {}.{} at least, which says when nobody answers a call", OLDEST.0, OLDEST.1)]
    TooOld {
        /// Its version.
        version: String,
    },
    /// The NATS server takes messages that are too small.
    #[error("the NATS server takes messages of at most {max_payload} bytes; it must take 8192 at least (max_payload)")]
    SmallPayload {
        /// Its limit, in bytes.
        max_payload: usize,
    },
    /// The NATS server does not let us listen or speak where we must.
    #[error("the NATS server lets nothing through on {subject}{}", said(reason))]
    Denied {
        /// The subject.
        subject: String,
        /// What it said, if anything.
        reason: String,
    },
    /// The local server cannot be reached, or the system refused a thread.
    #[error("{what}: {reason}")]
    Local {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        reason: String,
    },
}

fn said(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

impl FleetError {
    /// Whether another try with the same settings may go better: nobody is there yet.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::NoServer { .. })
    }
}

/// One connection to NATS.
#[derive(Debug)]
pub(crate) struct Link {
    publisher: Publisher,
    posts: mpsc::Sender<Post>,
    /// Its number, never used before.
    pub(crate) id: u64,
    prefix: String,
    /// All that is done by way of it, and ends with it.
    tasks: Mutex<JoinSet<()>>,
    runtime: tokio::runtime::Handle,
    /// Notified when a message to ourselves has come back.
    returned: Notify,
}

impl Link {
    /// Connects, and begins to listen to what is sent to this link.
    pub(crate) async fn open(
        settings: &FleetSettings,
        sent: &Arc<AtomicU64>,
    ) -> Result<(Self, Subscriber), FleetError> {
        let watch = Arc::<Watch>::default();
        let client = connect(settings, &watch).await?;
        let info = client.server_info();
        if version(&info.version) < OLDEST {
            return Err(FleetError::TooOld { version: info.version });
        }
        if info.max_payload < 8192 {
            return Err(FleetError::SmallPayload { max_payload: info.max_payload });
        }
        let runtime = tokio::runtime::Handle::current();
        let (prefix, publisher) = (settings.prefix.clone(), Publisher { client, watch, sent: Arc::clone(sent) });
        let (posts, waiting) = mpsc::channel(MOST_POSTS);
        let carrying = publisher.clone().carry(waiting);
        let link =
            Self { publisher, posts, id: random(), prefix, tasks: Mutex::default(), runtime, returned: Notify::new() };
        link.spawn(carrying);
        let subject = format!("{}.to.{:016x}.>", link.prefix, link.id);
        let mut inbox = link.subscribe(subject.clone()).await.map_err(|Lost| link.denied(&subject))?;
        link.probe(&mut inbox, &subject).await?;
        Ok((link, inbox))
    }

    /// Whether what is sent to this link arrives: NATS says nothing to whoever may not listen.
    async fn probe(&self, inbox: &mut Subscriber, subject: &str) -> Result<(), FleetError> {
        let own = self.inbox(self.id, PROBE);
        self.publish(own, None, Vec::new()).await.map_err(|Lost| self.denied(subject))?;
        match timeout(RETURNS, inbox.next()).await {
            Ok(Some(_)) => Ok(()),
            _ => Err(self.denied(subject)),
        }
    }

    fn denied(&self, subject: &str) -> FleetError {
        FleetError::Denied { subject: subject.to_owned(), reason: self.said() }
    }

    /// What NATS said last about something that went wrong.
    pub(crate) fn said(&self) -> String {
        self.publisher.watch.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The subject of what is for a link.
    pub(crate) fn inbox(&self, id: u64, what: &str) -> String {
        format!("{}.to.{id:016x}.{what}", self.prefix)
    }

    /// The subject on which instances take calls of a type.
    pub(crate) fn calls(&self, name: &str) -> String {
        format!("{}.call.{}", self.prefix, crate::names::subject(name))
    }

    /// The subject on which one instance takes calls of a type; of all types with `>`.
    pub(crate) fn calls_at(&self, instance: u64, name: &str) -> String {
        let tail = if name == ">" { name.to_owned() } else { crate::names::subject(name) };
        format!("{}.at.{instance:016x}.{tail}", self.prefix)
    }

    /// The subject on which instances say how much they have to do.
    pub(crate) fn loads(&self) -> String {
        format!("{}.load", self.prefix)
    }

    /// The subject on which instances say that they offer something new.
    pub(crate) fn news(&self) -> String {
        format!("{}.news", self.prefix)
    }

    /// The group of which one gets each call.
    pub(crate) fn group(&self) -> String {
        self.prefix.clone()
    }

    /// The name of the NATS server.
    pub(crate) fn nats_server(&self) -> String {
        self.publisher.client.server_info().server_name
    }

    /// Most bytes of a part. The NATS server may change what it takes.
    pub(crate) fn part(&self) -> usize {
        self.max_payload().saturating_sub(HEAD).clamp(LEAST_PART, MOST_PART)
    }

    /// Most bytes of a message.
    pub(crate) fn max_payload(&self) -> usize {
        self.publisher.client.max_payload()
    }

    /// Hands a message to the socket's queue. Waits while that is full.
    pub(crate) async fn publish(&self, subject: String, reply: Option<String>, payload: Vec<u8>) -> Result<(), Lost> {
        self.publish_signed(subject, reply, None, payload).await
    }

    /// The same with headers, if there are any.
    pub(crate) async fn publish_signed(
        &self,
        subject: String,
        reply: Option<String>,
        headers: Option<HeaderMap>,
        payload: Vec<u8>,
    ) -> Result<(), Lost> {
        self.publisher.publish(subject, reply, headers, payload).await
    }

    /// The same without waiting, for what may be lost. It is dropped where too many such messages wait: strangers may make us
    /// send as many as they like.
    pub(crate) fn post(&self, subject: String, payload: Vec<u8>) {
        self.post_signed(subject, None, payload);
    }

    /// The same with headers, if there are any.
    pub(crate) fn post_signed(&self, subject: String, headers: Option<HeaderMap>, payload: Vec<u8>) {
        let _ = self.posts.try_send(Post { subject, headers, payload });
    }

    /// How many messages may be posted now.
    pub(crate) fn room_for_posts(&self) -> usize {
        self.posts.capacity()
    }

    /// Does something in the fleet's thread that ends with this link, if not before.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(work, &self.runtime)
    }

    pub(crate) async fn subscribe(&self, subject: String) -> Result<Subscriber, Lost> {
        self.publisher.client.subscribe(subject).await.map_err(|_| Lost)
    }

    pub(crate) async fn subscribe_in_group(&self, subject: String) -> Result<Subscriber, Lost> {
        self.publisher.client.queue_subscribe(subject, self.group()).await.map_err(|_| Lost)
    }

    /// Has everything sent that was published.
    pub(crate) async fn flush(&self) {
        let _ = timeout(RETURNS, self.publisher.client.flush()).await;
    }

    /// Waits until a message to ourselves has come back: all that was said or posted before is with NATS, and all that NATS sent
    /// before has come. Answers how long that took.
    pub(crate) async fn round_trip(&self) -> Duration {
        let began = Instant::now();
        let returned = self.returned.notified();
        // What was posted waits in a queue of its own: a message that went past it would come back too early.
        let probe = Post { subject: self.inbox(self.id, PROBE), headers: None, payload: Vec::new() };
        let round = async {
            if self.posts.send(probe).await.is_ok() {
                returned.await;
            }
        };
        let _ = timeout(RETURNS, round).await;
        began.elapsed()
    }

    /// A message to ourselves has come back.
    pub(crate) fn came_back(&self) {
        self.returned.notify_waiters();
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.publisher.is_lost()
    }

    /// Nothing more is handed to it.
    pub(crate) fn close(&self) {
        self.publisher.watch.lost.store(true, Relaxed);
        self.publisher.watch.changed.notify_waiters();
    }

    /// Ends it, and all that is done by way of it.
    pub(crate) async fn end(&self) {
        self.close();
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }

    /// Waits until the link is lost.
    pub(crate) async fn lost(&self) {
        loop {
            let changed = self.publisher.watch.changed.notified();
            if self.is_lost() {
                return;
            }
            changed.await;
        }
    }
}

/// A number that nobody guesses or has had.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    // The system always has some; a machine that has none cannot have TLS either.
    getrandom::getrandom(&mut bytes).expect("the system has random bytes");
    u64::from_le_bytes(bytes).max(1)
}

async fn connect(settings: &FleetSettings, watch: &Arc<Watch>) -> Result<Client, FleetError> {
    let servers = settings.servers.iter().map(|server| server.parse()).collect::<Result<Vec<ServerAddr>, _>>();
    let servers = servers.map_err(|_| {
        let fault = "has an address that is none; write nats://HOST:PORT";
        crate::settings::SettingFault { key: "servers", fault }
    })?;
    let connecting = options(settings, watch)?.connect(servers);
    let shown = settings.shown_servers();
    let error = match timeout(CONNECT * 2, connecting).await {
        Ok(Ok(client)) => return Ok(client),
        Err(_) => return Err(FleetError::NoServer { servers: shown, reason: "it took too long".to_owned() }),
        Ok(Err(error)) => error,
    };
    let reason = in_words(&error);
    // The last is what `rustls` calls the words of a server that has no TLS, or begins without.
    let of_tls = ["tls", "TLS", "certificate", "corrupt message", "received fatal alert"]
        .iter()
        .any(|word| reason.contains(word));
    Err(match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            FleetError::Credentials { servers: shown, reason }
        }
        ConnectErrorKind::Tls => FleetError::Tls { servers: shown, reason },
        ConnectErrorKind::Io | ConnectErrorKind::ServerParse if of_tls => FleetError::Tls { servers: shown, reason },
        ConnectErrorKind::TimedOut if !settings.tls_first => {
            let reason = format!("{reason}: it says nothing, as one that waits for TLS first does");
            FleetError::NoServer { servers: shown, reason }
        }
        _ => FleetError::NoServer { servers: shown, reason },
    })
}

/// An error with its reasons.
fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        source = error.source();
    }
    words
}

fn options(settings: &FleetSettings, watch: &Arc<Watch>) -> Result<ConnectOptions, FleetError> {
    let first = AtomicBool::new(true);
    let watch = Arc::clone(watch);
    let name = if settings.name.is_empty() { "bellrope" } else { &settings.name };
    let mut options = ConnectOptions::new()
        .name(name)
        .client_capacity(QUEUE)
        .subscription_capacity(UNREAD)
        .connection_timeout(CONNECT)
        .ping_interval(PING)
        // It is asked before every try to connect. The second one, which would send what waits, never begins.
        .reconnect_to_server_callback(move |_, _| {
            let is_first = first.swap(false, Relaxed);
            async move { if is_first { None } else { end_of_connection().await } }
        })
        .event_callback(move |event| {
            note(&watch, &event);
            std::future::ready(())
        });
    if let Some(path) = &settings.credentials {
        let text = read("fleet.credentials", path)?;
        let source = |source| FleetError::File { key: "fleet.credentials", path: path.clone(), source };
        options = options.credentials(&text).map_err(source)?;
    }
    if let Some(path) = &settings.nkey_seed_file {
        options = options.nkey(read("fleet.nkey_seed_file", path)?);
    }
    // Of an address that has them, as in nats://USER:PASSWORD@HOST.
    let named = settings.servers.iter().filter_map(|server| server.parse::<ServerAddr>().ok());
    if let Some((user, password)) =
        named.filter_map(|server| Some((server.username()?.to_owned(), server.password()?.to_owned()))).next()
    {
        options = options.user_and_password(user, password);
    }
    if let (Some(user), Some(path)) = (&settings.user, &settings.password_file) {
        options = options.user_and_password(user.clone(), read("fleet.password_file", path)?);
    }
    if let Some(path) = &settings.token_file {
        options = options.token(read("fleet.token_file", path)?);
    }
    if let Some(path) = &settings.ca_file {
        if !read("fleet.ca_file", path)?.contains("-----BEGIN CERTIFICATE-----") {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidData, "it holds no certificate");
            return Err(FleetError::File { key: "fleet.ca_file", path: path.clone(), source });
        }
        options = options.add_root_certificates(path.clone());
    }
    if let (Some(certificate), Some(key)) = (&settings.certificate_file, &settings.key_file) {
        read("fleet.certificate_file", certificate)?;
        read("fleet.key_file", key)?;
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    if settings.tls_first {
        options = options.tls_first();
    }
    Ok(options)
}

/// Ends the task that would connect once more, with all that it holds: nothing else does than to unwind it. That says nothing to
/// anybody. In a program that ends where others unwind, the task stays.
async fn end_of_connection<T>() -> T {
    if cfg!(panic = "unwind") {
        std::panic::resume_unwind(Box::new("the link is lost"));
    }
    std::future::pending().await
}

/// What is in a file that a setting names.
pub(crate) fn read(key: &'static str, path: &Path) -> Result<String, FleetError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| FleetError::File { key, path: path.to_owned(), source })?;
    Ok(text.trim().to_owned())
}

fn version(text: &str) -> (u64, u64) {
    let mut numbers = text.split(['.', '-']).map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
