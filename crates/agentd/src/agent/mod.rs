//! One agent: its task, the handle to it, and what they say to each other.
//!
//! [`AgentTask`] owns everything about one agent: its record, what was last seen of its unit, the jobs it
//! queued and who waits for them. Nobody else changes these. A cheap [`AgentHandle`] sends it commands over a
//! bounded mailbox (a full mailbox is "busy", never a wait), pokes it (pokes coalesce), and reads the view that
//! the task publishes. Events go out over the shared bounded channel of [`Context`].

pub mod change;
mod checkpoint;
pub mod decide;
mod jobs;
mod launch;
mod outcome;
mod pause;
mod remove;
mod requests;
mod task;
mod view;
mod workspace;

use std::sync::Arc;

use aos_client::AgentView;
use aos_core::id::AgentId;
use aos_core::workspace::Operation;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

use crate::change::Change;
use crate::checkpoint::Which;
use crate::clock::Clock;
use crate::db::{AgentRecord, Db, InvocationId, Kept, Removal, Spec};
use crate::failure::Failure;
use crate::settings::Settings;

pub use checkpoint::Checkpointed;
pub use launch::derive_plan;
pub(crate) use launch::{plan_in_force_path, plan_of, plan_path};
pub use outcome::explain_end;
pub use task::AgentTask;
pub(crate) use task::db_failure;
pub use workspace::Answered;
pub(crate) use workspace::is_transactional;

/// Commands that wait for one agent; more is "busy".
const MAILBOX: usize = 8;

/// Agents whose limits are set at a time when the supervisor starts: each writes a file in systemd.
pub const LIMITING: usize = 8;

/// What all tasks of agents share.
#[derive(Debug)]
pub struct Context<S, P> {
    /// Paths and limits.
    pub settings: Arc<Settings>,
    /// The time.
    pub clock: Clock,
    /// The records.
    pub db: Db,
    /// systemd.
    pub systemd: S,
    /// The packages.
    pub packages: Arc<P>,
    /// Where events go.
    pub events: mpsc::Sender<Event>,
    /// Bounds how many agents have their limits set at a time when the supervisor starts.
    pub limiting: Semaphore,
}

/// What others are told.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Something of an agent changed; the whole new view, and the one before.
    Changed {
        /// Before; `None` for a new agent.
        before: Option<Box<AgentView>>,
        /// Now.
        now: Box<AgentView>,
    },
    /// A run ended.
    Exited {
        /// The agent.
        id: AgentId,
        /// The run.
        invocation: InvocationId,
        /// systemd's result.
        result: &'static str,
        /// Exit status or signal.
        status: i32,
    },
    /// The agent is no more.
    Removed {
        /// The agent.
        id: AgentId,
    },
}

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, Failure>>;

/// What can be asked of an agent.
#[derive(Debug)]
pub enum Command {
    /// Make or replace it, and start it.
    Run(Box<Spec>, Reply<InvocationId>),
    /// Start it.
    Start(Reply<InvocationId>),
    /// Stop it and start it.
    Restart(Reply<InvocationId>),
    /// Stop it.
    Stop(Reply<()>),
    /// Freeze its processes.
    Pause(Reply<()>),
    /// Let them go on.
    Resume(Reply<()>),
    /// Start it at boot, or not.
    Enable(AtBoot, Reply<()>),
    /// Change what it may do.
    Change(Box<Change>, Reply<change::Changed>),
    /// Do something with its workspace.
    Workspace(Box<Operation>, Reply<Answered>),
    /// Keep what it is now, under this name.
    Checkpoint(Option<String>, Reply<Checkpointed>),
    /// Bring a checkpoint back; whether one that gives it more capabilities, too.
    Restore(Which, bool, Reply<Checkpointed>),
    /// Remove checkpoints.
    RemoveCheckpoints(Vec<Which>, Reply<()>),
    /// Remove it.
    Remove(Removal, Reply<()>),
}

/// Whether an agent starts at boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtBoot {
    /// It does.
    Start,
    /// It does not.
    Ignore,
}

/// A handle to an agent's task.
#[derive(Debug, Clone)]
pub struct AgentHandle {
    id: AgentId,
    commands: mpsc::Sender<Command>,
    poke: Arc<Notify>,
    view: watch::Receiver<Option<AgentView>>,
    record: watch::Receiver<Option<AgentRecord>>,
    kept: watch::Receiver<Kept>,
}

/// The other ends, for the task.
#[derive(Debug)]
pub struct Ends {
    commands: mpsc::Receiver<Command>,
    poke: Arc<Notify>,
    view: watch::Sender<Option<AgentView>>,
    record: watch::Sender<Option<AgentRecord>>,
    kept: watch::Sender<Kept>,
}

impl AgentHandle {
    /// A handle and the ends for its task. The record is visible at once, the view after the first look.
    #[must_use]
    pub fn new(id: AgentId, record: Option<AgentRecord>, kept: Kept) -> (Self, Ends) {
        let (commands, commands_end) = mpsc::channel(MAILBOX);
        let (view_end, view) = watch::channel(None);
        let (record_end, record) = watch::channel(record);
        let (kept_end, kept) = watch::channel(kept);
        let poke = Arc::new(Notify::new());
        let ends = Ends {
            commands: commands_end,
            poke: Arc::clone(&poke),
            view: view_end,
            record: record_end,
            kept: kept_end,
        };
        (Self { id, commands, poke, view, record, kept }, ends)
    }

    /// Puts the first command into the empty mailbox, before the task runs.
    pub(crate) fn send_first(&self, command: Command) {
        if self.commands.try_send(command).is_err() {
            tracing::error!(AOS_AGENT = %self.id, "a new mailbox takes no command");
        }
    }

    /// The agent.
    #[must_use]
    pub fn id(&self) -> &AgentId {
        &self.id
    }

    /// Makes the task look at the unit again.
    pub fn poke(&self) {
        self.poke.notify_one();
    }

    /// The agent as it was last published; `None` before the first look, or when there is no record.
    #[must_use]
    pub fn view(&self) -> Option<AgentView> {
        self.view.borrow().clone()
    }

    /// The record as it was last published.
    #[must_use]
    pub fn record(&self) -> Option<AgentRecord> {
        self.record.borrow().clone()
    }

    /// What is kept of it beside the record, as it was last published.
    #[must_use]
    pub fn kept(&self) -> Kept {
        self.kept.borrow().clone()
    }

    /// Waits until the task has looked at its unit once, or has ended.
    pub async fn looked(&self) {
        let mut view = self.view.clone();
        if view.wait_for(Option::is_some).await.is_err() {
            tracing::debug!(AOS_AGENT = %self.id, "ended before its first look");
        }
    }

    /// Whether the task has ended.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.commands.is_closed()
    }

    /// Sends a command made from a reply, and waits for the answer. The task sets the deadlines.
    pub async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        match self.commands.try_send(command(reply)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                return Err(Failure::busy(format!(
                    "agent {} has {MAILBOX} requests waiting; try again",
                    self.id
                )));
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Failure::no_agent(self.id.as_str())),
        }
        // The task drops what it cannot answer when the agent is removed.
        answer.await.unwrap_or_else(|_| Err(Failure::no_agent(self.id.as_str())))
    }
}
