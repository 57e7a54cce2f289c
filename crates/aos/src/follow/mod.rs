//! Following one run of an agent to its end: its output to standard output, its exit status to the caller.
//!
//! Tasks: [`pump`] reads the journal and writes to standard output; it may block there (a pager), so it is a task
//! of its own. [`Watch::follow`] waits for the end of the run, from the supervisor's signals; a supervisor that
//! dies is asked again when it is back, since the run goes on without it. When the end is known, the pump is told,
//! and returns when everything the agent wrote has been written.
//!
//! Ctrl-C (and SIGTERM) asks the supervisor to stop the agent; a second one leaves it to itself.

mod ending;
mod pump;

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use aos_client::{AgentEvent, Client, EventStream};
use futures_util::StreamExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use zbus::fdo::{DBusProxy, NameOwnerChangedStream};

use crate::journal;
use crate::output::Output;
use crate::supervisor;
pub(crate) use ending::Ending;
use ending::{Known, judge};
use pump::{Pump, Source};

/// How often the supervisor is asked without a signal. Signals tell at once; this is for one that was lost.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// What must be in place before a run starts so that nothing of it is missed.
pub(crate) struct Watch {
    client: Client,
    id: aos_core::id::AgentId,
    source: Source,
    events: EventStream,
    owners: NameOwnerChangedStream,
    interrupts: Interrupts,
}

/// Ctrl-C and a polite kill.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Cancel safe: a signal that is not taken stays pending.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

impl Watch {
    /// Subscribes to the supervisor and marks the place in the journal.
    pub(crate) async fn prepare(client: &Client, id: &aos_core::id::AgentId) -> Result<Self> {
        let previous = match client.agent(id.as_str()).await {
            Ok(agent) => agent.invocation_id,
            Err(error) if supervisor::is_not_found(&error) => None,
            Err(error) => return Err(supervisor::explain(error)),
        };
        let events = client.events().await.map_err(supervisor::explain)?;
        let bus = DBusProxy::new(client.connection()).await.context("cannot address the bus")?;
        let owners = bus
            .receive_name_owner_changed_with_args(&[(0, aos_client::names::BUS_NAME)])
            .await
            .context("cannot watch the supervisor")?;
        let source = Source { unit: id.unit_name(), after: journal::newest_cursor().await?, previous };
        Ok(Self {
            client: client.clone(),
            id: id.clone(),
            source,
            events,
            owners,
            interrupts: Interrupts::listen()?,
        })
    }

    /// What the unit said since [`Watch::prepare`], for a run that did not start.
    pub(crate) async fn what_was_said(&self) -> Vec<String> {
        pump::said(&self.source).await
    }

    /// Follows the run to its end.
    pub(crate) async fn follow(self, invocation: String, out: Output) -> Result<Ending> {
        let Self { client, id, source, events, mut owners, mut interrupts } = self;
        let (finish, finished) = oneshot::channel();
        let pump = Pump::start(source, invocation.clone(), out)?;
        let mut pump: JoinHandle<Result<()>> = tokio::spawn(pump.run(finished));
        let mut known = Known { id: id.as_str().to_owned(), invocation, persistent: false };
        let mut events = pin!(events);
        let mut ticks = tokio::time::interval(ASK_EVERY);
        let mut stopping: Option<JoinHandle<()>> = None;
        let ending = loop {
            // Every branch is cancel safe: streams and signals keep what was not taken, and a
            // join handle can be awaited again.
            tokio::select! {
                written = &mut pump => return stopped_writing(written),
                Some(event) = events.next() => {
                    if let AgentEvent::Exited { id, invocation_id, result, exit_status } = event
                        && id == known.id
                        && invocation_id == known.invocation
                        && !goes_on(&client, &mut known).await
                    {
                        break Ending::of(&result, exit_status);
                    }
                }
                Some(change) = owners.next() => {
                    let back = change.args().is_ok_and(|args| args.new_owner.is_some());
                    if back && let Some(ending) = judge(&client, &mut known).await? {
                        break ending;
                    }
                }
                _ = ticks.tick() => {
                    if let Some(ending) = judge(&client, &mut known).await? {
                        break ending;
                    }
                }
                () = interrupts.next() => {
                    if stopping.is_some() {
                        out.note(&format!("leaving {id}; `aos stop {id}` stops it"));
                        return Ok(Ending::Left);
                    }
                    out.note(&format!("stopping {id} (Ctrl-C again leaves it to itself)"));
                    stopping = Some(tokio::spawn(stop(client.clone(), id.to_string(), out)));
                }
            }
        };
        // The pump has ended already when nobody waits for this.
        if finish.send(()).is_err() {
            return stopped_writing(pump.await);
        }
        tokio::select! {
            written = &mut pump => match written.context("the task that writes the output ended")? {
                Ok(()) => Ok(ending),
                Err(error) => stopped_writing(Ok(Err(error))),
            },
            () = interrupts.next() => Ok(Ending::Left),
        }
    }
}

/// The pump ended before the run: standard output was closed, or it failed.
fn stopped_writing(written: Result<Result<()>, tokio::task::JoinError>) -> Result<Ending> {
    match written.context("the task that writes the output ended")? {
        Ok(()) => Err(anyhow!("the output ended before the agent")),
        Err(error) if is_broken_pipe(&error) => Ok(Ending::Closed),
        Err(error) => Err(error),
    }
}

/// True when a reader of ours went away.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |cause: &std::io::Error| cause.kind() == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(broken))
}

/// A persistent agent that systemd starts again goes on with a new invocation.
async fn goes_on(client: &Client, known: &mut Known) -> bool {
    matches!(judge(client, known).await, Ok(None)) && known.persistent
}

async fn stop(client: Client, id: String, out: Output) {
    if let Err(error) = client.stop(&id).await {
        let error = supervisor::explain(error).context(format!("cannot stop {id}"));
        out.error(&error);
    }
}
