//! The AOS supervisor: it keeps agents in the state that is wanted of them, through systemd.
//!
//! It runs as user `aos` without root. It never reads a byte that an agent wrote, starts no process itself, and
//! may be killed at any time: agents belong to systemd, and [`run`] rebuilds everything else from the database and
//! from systemd.
//!
//! # Tasks
//!
//! | task | owns | hears | tells |
//! |---|---|---|---|
//! | [`run`] (composition root) | the start and the end | SIGTERM, SIGINT, the end of any other task | systemd: READY, STOPPING |
//! | one [`agent::AgentTask`] per agent | that agent's record, its view, its jobs | commands (mailbox of 8: full is "busy"), pokes (coalesced), ends of jobs | answers; events (1,024: full waits 5 s, then drops with a message) |
//! | [`registry::Registry::rounds`] | the rounds | a timer | pokes to all agents; the heartbeat |
//! | [`systemd::watch::Watcher`] | the subscriptions to systemd | its signals (1,024) | pokes; ends of jobs through [`systemd::jobs::Jobs`] |
//! | [`bus::signals::Signals`] | the agents' objects on the bus | events | D-Bus signals |
//! | zbus, one task per call | the call | the bus | [`service::Service`] |
//! | the database's thread ([`db::Db`]) | the connection and the lock | jobs (64: full waits, 20 s deadline) | answers |
//! | [`notify::keep_watchdog`] | nothing | a timer, the heartbeat | systemd: WATCHDOG |
//!
//! Blocking work (the package store, files) runs on the runtime's blocking threads. No lock is held across an
//! await. Every wait has a deadline.

pub mod agent;
pub mod bus;
pub mod change;
pub mod checkpoint;
pub mod clock;
pub mod db;
pub mod enabled;
pub mod exec;
pub mod explain;
pub mod failure;
pub mod files;
pub mod forks;
pub mod logging;
pub mod notify;
pub mod packages;
pub mod quota;
pub mod registry;
pub mod service;
pub mod settings;
pub mod store;
pub mod systemd;
#[cfg(test)]
pub(crate) mod tests;
pub mod trust;
pub mod workspace;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use agent::Context;
use clock::Clock;
use db::Db;
use notify::Heart;
use registry::Registry;
use service::Service;
use settings::Settings;
use store::DiskStore;
use systemd::bus::SystemBus;
use systemd::jobs::Jobs;
use systemd::watch::Watcher;
use trust::Trust;

/// Events that wait for the bus; a start of all agents at boot makes a few for each.
const EVENTS: usize = 1024;
/// The oldest heartbeat with which the watchdog is still fed: two rounds and the database's deadline.
const HEART_MAX_AGE: Duration = Duration::from_secs(50);

/// Longest wait for the first look at all agents before calls are served; the unit's start may take 90 s.
const FIRST_LOOKS: Duration = Duration::from_secs(30);

/// Runs the supervisor until it is told to stop. An error means that it could not start, or that a task that must
/// not end did.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let connection = zbus::connection::Builder::system()
        .max_queued(std::num::NonZeroUsize::new(EVENTS).unwrap_or(std::num::NonZeroUsize::MIN))
        .build()
        .await
        .context("cannot connect to the system bus")?;
    let mut tasks = start(&connection, settings).await?;
    notify::tell(&[NotifyState::Ready]);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");

    // Cancel-safe: signals and joins that are dropped unfinished lose nothing, and the loop ends here anyway.
    let ended = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = tasks.join_next() => Some(ended),
    };
    notify::tell(&[NotifyState::Stopping]);
    match ended {
        None => {
            tracing::info!("stopping; agents go on");
            Ok(())
        }
        Some(Some(Ok(name))) => Err(anyhow::anyhow!("the {name} ended; systemd starts the supervisor anew")),
        Some(Some(Err(error))) => Err(error).context("a task failed"),
        Some(None) => Err(anyhow::anyhow!("no task is left")),
    }
}

/// Starts everything, in the order in which each needs the other; the bus name comes last.
async fn start(connection: &zbus::Connection, settings: Settings) -> anyhow::Result<JoinSet<&'static str>> {
    let settings = Arc::new(settings);
    let state = &settings.places.state;
    let db = Db::open(state)?;
    let packages = Arc::new(
        DiskStore::open(state, Trust::new(settings.places.trust.clone()), settings.limits.max_archive_bytes)
            .context("cannot open the package store")?,
    );
    let jobs = Arc::new(Jobs::default());
    let watcher = Watcher::subscribe(connection).await.context("cannot watch systemd")?;
    let systemd = SystemBus::new(connection, Arc::clone(&jobs)).await.context("cannot reach systemd")?;
    let (events, events_end) = mpsc::channel(EVENTS);
    let context = Arc::new(Context {
        settings: Arc::clone(&settings),
        clock: Clock::system(),
        db,
        systemd,
        packages,
        events,
        limiting: tokio::sync::Semaphore::new(agent::LIMITING),
    });
    let registry = Registry::new(context);
    let service = Arc::new(Service::new(Arc::clone(&registry)));
    let limits = &settings.limits;
    let gate = bus::access::Gate::new(connection, limits.max_calls_per_user, limits.max_installs_per_user);
    bus::serve(connection, Arc::clone(&service), gate.clone()).await?;

    let mut tasks = JoinSet::new();
    let pokes: Arc<dyn systemd::watch::Pokes> = registry.clone();
    tasks.spawn(async move {
        watcher.run(jobs, pokes).await;
        "connection to the bus"
    });
    let signals = bus::signals::Signals::new(connection, Arc::clone(&service), gate);
    tasks.spawn(async move {
        signals.run(events_end).await;
        "task of signals"
    });
    registry.load().await.context("cannot read the records of agents")?;
    service.tidy().await;
    registry.first_looks(FIRST_LOOKS).await;
    bus::take_name(connection).await?;
    let heart = Heart::new();
    let rounds = registry.rounds(heart.clone());
    tasks.spawn(async move {
        rounds.await;
        "reconciler"
    });
    // Not in the set: it ends at once when the unit has no watchdog.
    tokio::spawn(notify::keep_watchdog(heart, HEART_MAX_AGE));
    Ok(tasks)
}
