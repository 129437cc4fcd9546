//! A server's membership in a fleet.

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use bellrope::{
    Server,
    status::{Metrics, OPERATOR},
};
use tokio::{
    runtime::Runtime,
    sync::{oneshot, watch},
    time::timeout,
};

use crate::{
    clock::Clock,
    counters::Counters,
    exhibit::Shown,
    importing::{Choices, Importer, Imports, Types},
    link::{FleetError, random},
    offering::Offers,
    session::{FleetPhase, FleetSession, Membership},
    settings::FleetSettings,
    signing::{Signer, Trust},
};

/// Pauses between tries to connect: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How long the first connection may hold up the start of the server.
const FIRST: Duration = Duration::from_secs(15);

/// A server's membership in a fleet. Dropping it leaves the fleet: what is under way ends as lost. Its thread lives as long as
/// the server has types of the fleet, whose calls then end as `NotExecuted`.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::{sync::Arc, time::Duration};
///
/// use bellrope::Server;
/// use bellrope_fleet::{Fleet, FleetSettings};
///
/// let path = "/run/user/1000/bellrope/bellrope.sock";
/// let settings = FleetSettings { servers: vec!["nats://10.0.0.7".into()], offer: vec!["*".into()], ..Default::default() };
/// let builder = Server::builder().unary_async("echo", |call| async move { Ok(call.into_payload()) });
/// let server = Arc::new(bellrope_fleet::prepare(builder, &settings).bind(path)?);
/// let fleet = Fleet::join(settings, &server, path.into())?;
/// // ... and when it is to end:
/// fleet.drain(Duration::from_secs(5));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Fleet {
    membership: Arc<Membership>,
    /// Ends when the fleet was left. Nothing is said.
    left: Mutex<mpsc::Receiver<Infallible>>,
}

/// What the thread of a fleet tells others.
struct Told {
    /// How the first try to connect went.
    first: mpsc::Sender<Result<(), FleetError>>,
    /// That the fleet was left, by being dropped.
    _left: mpsc::Sender<Infallible>,
}

impl Fleet {
    /// Joins the fleet: offers what the settings say of the server that listens at `socket`, and adds the types of others to
    /// `server`. Returns when the first connection is made and the types of the instances that are there are added. If no
    /// NATS server answers, that is logged, and tried again for ever.
    ///
    /// # Errors
    /// [`FleetError`], of what no other try makes better.
    pub fn join(settings: FleetSettings, server: &Arc<Server>, socket: PathBuf) -> Result<Self, FleetError> {
        settings.check()?;
        let counters = Arc::<Counters>::default();
        let types: Types = Arc::downgrade(server);
        let signer = Signer::of(&settings)?;
        let trust = Arc::new(Trust::of(&settings, signer.as_ref()));
        say_who_is_believed(&settings, signer.as_ref(), &trust);
        let choices = Choices::new(settings.choice).signing(signer.is_some());
        let (needed, no_longer_needed) = oneshot::channel();
        let clock = Clock::start();
        let importer = Importer::new(settings.name.clone(), choices, clock, Arc::clone(&counters), signer, needed);
        let membership = Arc::new(Membership {
            imports: Arc::new(Imports::new(settings.import.clone(), types, Arc::clone(&importer))),
            offers: Arc::new(Offers::new(settings.offer.clone(), OPERATOR)),
            trust,
            number: random(),
            settings,
            socket,
            importer,
            counters,
            phase: watch::Sender::new(FleetPhase::Serving),
            settled: watch::Sender::new(false),
            linked: AtomicBool::new(false),
            instance: Mutex::default(),
        });
        membership.imports.put_in_front();
        server.schemas_from(Arc::<Imports>::clone(&membership.imports));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| local("no runtime can be made for the fleet", &error))?;
        let ((told_first, first), (told_left, left)) = (mpsc::channel(), mpsc::channel());
        let (shared, told) = (Arc::clone(&membership), Told { first: told_first, _left: told_left });
        let run = move || run(&runtime, shared, told, no_longer_needed);
        let thread = std::thread::Builder::new().name("bellrope-fleet".to_owned()).spawn(run);
        thread.map_err(|error| local("no thread can be started for the fleet", &error))?;
        let fleet = Self { membership, left: Mutex::new(left) };
        match first.recv_timeout(FIRST) {
            Ok(Err(error)) if !error.may_pass() => Err(error),
            Ok(Err(error)) => {
                tracing::warn!(target: "bellrope::fleet", "{error}; it is tried again and again");
                Ok(fleet)
            }
            Ok(Ok(())) | Err(_) => Ok(fleet),
        }
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.membership.counters
    }

    /// Shows the fleet among the server's metrics and on its page: what is counted, and the instances with their load.
    pub fn watch(&self, metrics: &Metrics) {
        for (name, help, counter) in self.membership.counters.metrics() {
            metrics.watch_counter(name, help, counter);
        }
        metrics.watch_exhibit(Arc::new(Shown(Arc::clone(&self.membership))));
    }

    /// Whether there is a connection to NATS now.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.membership.linked.load(Relaxed)
    }

    /// Where this server is in its fleet, in 16 hexadecimal digits, for as long as it lives: a call whose session ends in `@` and
    /// this comes here, whichever server imports the type. What a handler keeps for later can be found by it.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{:016x}", self.membership.number)
    }

    /// Calls of this server that the fleet has now.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.membership.importer.under_way()
    }

    /// Offers nothing any more, and waits until the calls of others that run here have ended, at most so long. New calls go to
    /// other instances meanwhile. Answers whether all ended. Calls of this server are forwarded still.
    pub fn drain(&self, most: Duration) -> bool {
        if !self.membership.offers.is_wanted() {
            return true;
        }
        let until = Instant::now() + most;
        self.membership.phase.send_if_modified(|phase| {
            let serving = *phase == FleetPhase::Serving;
            if serving {
                *phase = FleetPhase::Draining;
            }
            serving
        });
        let mut phases = self.membership.phase.subscribe();
        while *phases.borrow_and_update() < FleetPhase::Drained {
            // Without a link nobody else's calls run here.
            if !self.is_linked() {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.membership.phase.send_replace(FleetPhase::Stopped);
        let _ = self.left.lock().unwrap_or_else(PoisonError::into_inner).recv();
    }
}

/// Says once what becomes of who asks.
fn say_who_is_believed(settings: &FleetSettings, signer: Option<&Signer>, trust: &Trust) {
    if !settings.offer.is_empty() && trust.is_empty() {
        tracing::warn!(
            target: "bellrope::fleet",
            "no key is trusted (fleet.trust, fleet.signing_seed_file), so all calls of the fleet count here as one caller's"
        );
    }
    for (key, path) in settings.open_secrets() {
        tracing::warn!(
            target: "bellrope::fleet",
            "others on this machine may read {}, which fleet.{key} names; chmod 600 keeps it to its owner",
            path.display()
        );
    }
    if !settings.import.is_empty() && signer.is_none() {
        tracing::warn!(
            target: "bellrope::fleet",
            "there is no key to sign with (fleet.signing_seed_file), so who asks here is not believed in the fleet"
        );
    }
}

fn local(what: &'static str, error: &std::io::Error) -> FleetError {
    FleetError::Local { what, reason: error.to_string() }
}

/// The thread of the fleet: makes one link after another, until the fleet is left. Then it goes on for the calls of the types that
/// the server has of the fleet, as long as it has any.
fn run(runtime: &Runtime, membership: Arc<Membership>, told: Told, no_longer_needed: oneshot::Receiver<Infallible>) {
    runtime.block_on(async {
        link_after_link(&membership, &told.first).await;
        drop((membership, told));
        // Nobody says so: what would is dropped.
        let _ = no_longer_needed.await;
    });
}

/// Tells how the first try went.
async fn link_after_link(membership: &Arc<Membership>, told: &mpsc::Sender<Result<(), FleetError>>) {
    let mut told = Some(told);
    let mut pause = PAUSES.0;
    while *membership.phase.borrow() != FleetPhase::Stopped {
        match FleetSession::open(membership).await {
            Ok(session) => {
                pause = PAUSES.0;
                membership.linked.store(true, Relaxed);
                tracing::info!(target: "bellrope::fleet", "connected to NATS");
                let running = session.run();
                tokio::pin!(running);
                let mut settled = membership.settled.subscribe();
                let settled = async { drop(settled.wait_for(|settled| *settled).await) };
                tokio::select! {
                    () = &mut running => {}
                    () = settled => {
                        if let Some(told) = told.take() {
                            let _ = told.send(Ok(()));
                        }
                        running.await;
                    }
                }
                membership.linked.store(false, Relaxed);
                if *membership.phase.borrow() != FleetPhase::Stopped {
                    tracing::warn!(target: "bellrope::fleet", "the connection to NATS was lost");
                }
            }
            Err(error) => match told.take() {
                Some(told) => {
                    let is_last = !error.may_pass();
                    let _ = told.send(Err(error));
                    if is_last {
                        membership.phase.send_replace(FleetPhase::Stopped);
                    }
                }
                None => tracing::debug!(target: "bellrope::fleet", "{error}"),
            },
        }
        let mut phases = membership.phase.subscribe();
        let _ = timeout(pause, phases.wait_for(|phase| *phase == FleetPhase::Stopped)).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}
