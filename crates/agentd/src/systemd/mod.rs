//! What the supervisor asks of systemd, as a trait, and the types of its answers.
//!
//! [`Systemd`] is what the agents' tasks use; [`bus::SystemBus`] speaks to the real one, tests bring their own.
//! Every call has a deadline in the implementation.

pub mod bus;
pub mod jobs;
pub mod unit;
pub mod watch;

use std::future::Future;
use std::time::Duration;

use aos_core::id::AgentId;
use aos_sandbox::plan::UnitLimits;
use tokio::sync::oneshot;

pub use unit::{Freezer, Phase, UnitState};

/// Longest wait for systemd's answer to one call; jobs have their own deadlines.
pub const CALL_DEADLINE: Duration = Duration::from_secs(25);

/// Why systemd did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SystemdError {
    /// The call failed; systemd's own words.
    #[error("systemd refused to {what} {unit}: {message}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Of which unit.
        unit: String,
        /// Why not.
        message: String,
    },
    /// No answer in time.
    #[error("systemd did not answer within {} s when asked to {what} {unit}", CALL_DEADLINE.as_secs())]
    Deadline {
        /// What was asked.
        what: &'static str,
        /// Of which unit.
        unit: String,
    },
    /// The unit's properties do not have the shape that systemd documents.
    #[error("systemd's description of {unit} lacks {property}")]
    Shape {
        /// The unit.
        unit: String,
        /// The property.
        property: &'static str,
    },
}

/// How a job ended (systemd's `JobRemoved`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobResult {
    /// As asked.
    Done,
    /// Replaced or cancelled by another.
    Canceled,
    /// Not in time.
    Timeout,
    /// It failed.
    Failed,
    /// Something the unit requires failed.
    Dependency,
    /// The unit is frozen, and systemd neither starts nor stops such a unit.
    Frozen,
    /// A word this program does not know, or skipped.
    Other,
}

impl JobResult {
    /// From systemd's word.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        match word {
            "done" => Self::Done,
            "canceled" => Self::Canceled,
            "timeout" => Self::Timeout,
            "failed" => Self::Failed,
            "dependency" => Self::Dependency,
            "frozen" => Self::Frozen,
            _ => Self::Other,
        }
    }
}

/// A job that systemd has queued. Its end arrives on the receiver; a closed receiver means that systemd or the
/// bus went away.
#[derive(Debug)]
pub struct Job {
    /// Its end.
    pub end: oneshot::Receiver<JobResult>,
}

/// Parts of a unit's data that `CleanUnit` removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// `StateDirectory=`.
    State,
    /// `RuntimeDirectory=`.
    Runtime,
}

/// The unit of one agent, and the units of its account.
pub trait Systemd: Send + Sync + 'static {
    /// Loads the agent's unit and keeps it loaded while this process lives, so that the result of a run can be
    /// read after it ended.
    fn hold(&self, id: &AgentId) -> impl Future<Output = Result<(), SystemdError>> + Send;
    /// Undoes [`Systemd::hold`].
    fn release(&self, id: &AgentId) -> impl Future<Output = Result<(), SystemdError>> + Send;
    /// Reads the unit.
    fn read(&self, id: &AgentId) -> impl Future<Output = Result<UnitState, SystemdError>> + Send;
    /// Sets all limits, absent ones to infinity; `had` are those that were read.
    fn limit(
        &self,
        id: &AgentId,
        limits: &UnitLimits,
        had: &UnitLimits,
    ) -> impl Future<Output = Result<(), SystemdError>> + Send;
    /// Queues a start; fails when a contrary job is queued.
    fn start(&self, id: &AgentId) -> impl Future<Output = Result<Job, SystemdError>> + Send;
    /// Queues a stop, which replaces a queued start.
    fn stop(&self, id: &AgentId) -> impl Future<Output = Result<Job, SystemdError>> + Send;
    /// Freezes every process of the running unit, and returns when all are.
    fn freeze(&self, id: &AgentId) -> impl Future<Output = Result<(), SystemdError>> + Send;
    /// Undoes [`Systemd::freeze`].
    fn thaw(&self, id: &AgentId) -> impl Future<Output = Result<(), SystemdError>> + Send;
    /// Forgets that the unit failed.
    fn reset_failed(&self, id: &AgentId) -> impl Future<Output = Result<(), SystemdError>> + Send;
    /// Starts removing data of the stopped unit; it is done when the unit is inactive again.
    fn clean(&self, id: &AgentId, data: &[Data]) -> impl Future<Output = Result<(), SystemdError>> + Send;
    /// Queues what the agent's request says about its workspace.
    fn work_on_workspace(&self, id: &AgentId) -> impl Future<Output = Result<Job, SystemdError>> + Send;
    /// Queues the removal of the agent's Unix user.
    fn remove_account(&self, id: &AgentId) -> impl Future<Output = Result<Job, SystemdError>> + Send;
}
