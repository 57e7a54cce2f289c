//! Checkpoints as the bus asks for them: which one is meant, how they are shown, and why processes are not kept.

use std::sync::Arc;

use aos_client::{CheckpointView, ErrorKind};
use aos_core::capability::CapabilitySet;
use aos_core::config::Isolation;
use aos_core::id::AgentId;

use crate::agent::{Checkpointed, Command};
use crate::db::{AgentRecord, Cause, Checkpoint, Kept};
use crate::failure::Failure;
use crate::packages::Packages;
use crate::service::Service;
use crate::systemd::Systemd;

/// Which checkpoint is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The newest that somebody asked for.
    Newest,
    /// By its number.
    Number(u32),
    /// By its name.
    Name(String),
}

/// What of an agent is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Its files and what it is made of.
    Files,
    /// Its processes too.
    Processes,
}

/// The checkpoint that is meant.
pub(crate) fn find<'a>(kept: &'a Kept, which: &Which, id: &AgentId) -> Result<&'a Checkpoint, Failure> {
    let all = &kept.checkpoints;
    let (found, what) = match which {
        Which::Newest => (all.iter().rev().find(|one| one.cause == Cause::Asked), String::new()),
        Which::Number(number) => (all.iter().find(|one| one.number == *number), format!(" {number}")),
        Which::Name(name) => (all.iter().find(|one| one.name.as_ref() == Some(name)), format!(" {name}")),
    };
    found.ok_or_else(|| {
        let text = format!("agent {id} has no checkpoint{what}");
        Failure::new(ErrorKind::NotFound, text).with_hint(&format!("aos checkpoints {id}"))
    })
}

/// Whether bringing a checkpoint back gives the agent more than it has, and more than a new run of the same package
/// would.
pub(crate) async fn is_wider<P: Packages>(
    packages: &Arc<P>,
    record: &AgentRecord,
    checkpoint: &Checkpoint,
) -> Result<bool, Failure> {
    let spec = &checkpoint.spec;
    let declared = packages.get(&spec.reference, &spec.digest).await?.config.capabilities;
    let has = &record.spec.capabilities;
    Ok(!spec.capabilities.iter().all(|one| declared.covers(one) || has.covers(one)))
}

/// Why the processes of an agent cannot be kept.
fn no_processes(id: &AgentId, isolation: Isolation) -> Failure {
    let why = match isolation {
        Isolation::Native => {
            "CRIU does not save Landlock domains, so that processes which are brought back would not be confined by them"
        }
        Isolation::Oci | Isolation::OciCrun | Isolation::OciRunc => {
            "crun and runc leave that to CRIU, which does not save the Landlock domain that the launcher makes inside"
        }
        // Tried with Debian 13's runsc 0.0~20240729: `checkpoint` works; `restore` says "Rootless mode not supported",
        // and without that mode "no host FD available" for what came by -pass-fd.
        Isolation::Gvisor => {
            "runsc saves them, but its restore refuses the rootless mode in which agents run, and the descriptors that were passed in"
        }
        Isolation::Vm => "the virtual machine's memory is not kept in this version",
    };
    Failure::refused(format!("the processes of agent {id} cannot be kept: {why}"))
        .with_hint("without --processes its files and what it is made of are kept")
}

impl<S: Systemd, P: Packages> Service<S, P> {
    /// Keeps what an agent is.
    pub async fn checkpoint(
        &self,
        id: &AgentId,
        name: Option<String>,
        extent: Extent,
    ) -> Result<Checkpointed, Failure> {
        let handle = self.registry().get(id)?;
        if extent == Extent::Processes {
            let record = handle.record().ok_or_else(|| Failure::no_agent(id.as_str()))?;
            let package = self.packages().get(&record.spec.reference, &record.spec.digest).await?;
            let run = package.config.run().map_err(|error| Failure::invalid(error.to_string()))?;
            return Err(no_processes(id, run.isolation));
        }
        handle.ask(|reply| Command::Checkpoint(name, reply)).await
    }

    /// Brings a checkpoint back; `may_grant` when the caller may give capabilities that the agent does not have.
    pub async fn restore(
        &self,
        id: &AgentId,
        which: Which,
        may_grant: bool,
    ) -> Result<Checkpointed, Failure> {
        self.registry().get(id)?.ask(|reply| Command::Restore(which, may_grant, reply)).await
    }

    /// Whether [`Service::restore`] needs the right to grant.
    pub async fn restore_grants(&self, id: &AgentId, which: &Which) -> Result<bool, Failure> {
        let handle = self.registry().get(id)?;
        let record = handle.record().ok_or_else(|| Failure::no_agent(id.as_str()))?;
        let kept = handle.kept();
        is_wider(self.packages(), &record, find(&kept, which, id)?).await
    }

    /// Removes checkpoints.
    pub async fn remove_checkpoints(&self, id: &AgentId, which: Vec<Which>) -> Result<(), Failure> {
        self.registry().get(id)?.ask(|reply| Command::RemoveCheckpoints(which, reply)).await?;
        // A package may have been kept for one of them alone.
        self.tidy().await;
        Ok(())
    }

    /// The checkpoints of one agent, or of all; oldest first.
    pub fn checkpoints(&self, id: Option<&AgentId>) -> Result<Vec<CheckpointView>, Failure> {
        let handles = match id {
            Some(id) => vec![self.registry().get(id)?],
            None => self.registry().all(),
        };
        let views = |handle: &crate::agent::AgentHandle| -> Vec<CheckpointView> {
            handle.kept().checkpoints.iter().map(|one| view(handle.id(), one)).collect()
        };
        Ok(handles.iter().flat_map(views).collect())
    }
}

fn view(id: &AgentId, one: &Checkpoint) -> CheckpointView {
    CheckpointView {
        agent: id.to_string(),
        number: one.number,
        name: one.name.clone(),
        at_us: one.at_us,
        cause: one.cause.as_str().to_owned(),
        reference: one.spec.reference.to_string(),
        digest: one.spec.digest.to_string(),
        desired: one.target.shown().to_owned(),
        capabilities: one.spec.capabilities.to_lines(),
        in_force: one.in_force.as_ref().map(CapabilitySet::to_lines),
    }
}
