//! Pausing: the processes of an agent in the cgroup freezer, by systemd.
//!
//! systemd's word is the state; nothing is recorded, so `systemctl freeze` and a supervisor that died in between
//! make no difference. What systemd 257 does with frozen units, and what follows here:
//!
//! - a stop or start job of one ends with `frozen`, at once: it is thawed before it is stopped;
//! - one whose processes are killed stays frozen, dead as it is, and cannot be thawed ("Unit is not active") or
//!   started: it is let go, so that systemd unloads it, and loaded anew ([`AgentTask::forget_frozen`]);
//! - while it is being stopped (by its time limit, say) it cannot be thawed: after `TimeoutStopSec=` it is killed.

use aos_client::ErrorKind;
use aos_core::state::AgentState;

use super::task::AgentTask;
use crate::failure::Failure;
use crate::packages::Packages;
use crate::systemd::{Freezer, Job, Phase, Systemd, SystemdError};

/// What thaws the slices that hold agents.
const THAW_SLICES: &str = "systemctl thaw aos.slice aos-default.slice";

impl<S: Systemd, P: Packages> AgentTask<S, P> {
    /// Freezes the agent. Frozen already is as good; on failure it goes on.
    pub(super) async fn pause(&mut self) -> Result<(), Failure> {
        self.look_at_running("be paused").await?;
        if self.seen.freezer.is_frozen() {
            return Ok(());
        }
        match self.context.systemd.freeze(&self.id).await {
            Ok(()) => {
                tracing::info!(AOS_AGENT = %self.id, "paused");
                self.look().await
            }
            Err(error) => {
                let failure = Failure::failed(&error);
                // A process that cannot be frozen now must not be frozen later, after this was told to have failed.
                if matches!(error, SystemdError::Deadline { .. })
                    && let Err(thaw) = self.thaw().await
                {
                    return Err(failure.with_hint(thaw.message()));
                }
                Err(failure)
            }
        }
    }

    /// Lets the agent go on. One that is not paused is left as it is.
    pub(super) async fn resume(&mut self) -> Result<(), Failure> {
        self.look_at_running("be resumed").await?;
        if self.seen.freezer == Freezer::Running {
            return Ok(());
        }
        self.thaw().await?;
        tracing::info!(AOS_AGENT = %self.id, "resumed");
        self.look().await
    }

    /// Reads the unit, which must run and not be on its way down.
    async fn look_at_running(&mut self, what: &str) -> Result<(), Failure> {
        let id = &self.id;
        if self.record.is_none() {
            return Err(Failure::no_agent(id.as_str()));
        }
        self.look().await?;
        if self.seen.phase == Phase::Active && self.stopping.is_none() {
            return Ok(());
        }
        let state = self.state().unwrap_or(AgentState::Stopped);
        Err(Failure::refused(format!("agent {} is {state}, so it cannot {what}", self.id)))
    }

    async fn thaw(&self) -> Result<(), Failure> {
        match self.seen.freezer {
            Freezer::FrozenByParent => Err(self.frozen_by_slice()),
            _ => self.context.systemd.thaw(&self.id).await.map_err(|error| Failure::failed(&error)),
        }
    }

    /// Queues the stop of the unit, as it was just seen: a frozen one is thawed first, so that it can end in
    /// order. For a moment between the two it runs.
    pub(super) async fn stop_job(&mut self) -> Result<Job, Failure> {
        match self.seen.phase {
            Phase::Active if self.seen.freezer != Freezer::Running => self.thaw().await?,
            Phase::Inactive | Phase::Failed => self.forget_frozen().await?,
            _ => {}
        }
        self.context.systemd.stop(&self.id).await.map_err(|error| Failure::failed(&error))
    }

    /// Makes systemd forget that the unit at rest was frozen when its processes were killed.
    pub(super) async fn forget_frozen(&mut self) -> Result<(), Failure> {
        if !self.seen.freezer.is_frozen() {
            return Ok(());
        }
        let failed = |error: SystemdError| Failure::failed(&error);
        // A failed unit stays loaded.
        self.context.systemd.reset_failed(&self.id).await.map_err(failed)?;
        if self.held {
            self.context.systemd.release(&self.id).await.map_err(failed)?;
            self.held = false;
        }
        self.look().await?;
        match self.seen.freezer {
            Freezer::Running | Freezer::Changing => Ok(()),
            Freezer::FrozenByParent => Err(self.frozen_by_slice()),
            // What starts at boot is part of the boot's target and stays loaded.
            Freezer::Frozen => Err(self.frozen_at_rest()),
        }
    }

    fn frozen_by_slice(&self) -> Failure {
        let text = format!("agent {} is frozen with a slice that holds it", self.id);
        Failure::refused(text).with_hint(THAW_SLICES)
    }

    fn frozen_at_rest(&self) -> Failure {
        let id = &self.id;
        let text = format!("systemd holds the unit of agent {id} to be frozen, although it is at rest");
        Failure::new(ErrorKind::Failed, text)
            .with_hint(&format!("aos disable {id}; systemctl daemon-reload; aos start {id}"))
    }
}
