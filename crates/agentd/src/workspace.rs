//! Workspaces as the bus asks for them: operations on one agent's, and forks, which need more than one agent's task.

use std::fs::File;
use std::io::Read as _;

use aos_core::id::AgentId;
use aos_core::workspace::{Answer, Operation};
use aos_sandbox::plan::workspace::SNAPSHOTS_MAX;

use crate::agent::{Answered, Command, db_failure, is_transactional};
use crate::db::{AgentRecord, Target};
use crate::failure::{Failure, chain};
use crate::files;
use crate::forks::{self, Fork};
use crate::packages::Packages;
use crate::service::Service;
use crate::systemd::Systemd;

/// Forks of one call.
pub const FORKS_MAX: u32 = 10_000;
/// Bytes of the answer to a snapshot: a number and a word.
const SNAPSHOT_ANSWER_MAX: u64 = 128;

impl<S: Systemd, P: Packages> Service<S, P> {
    /// Does something with an agent's workspace.
    pub async fn workspace(&self, id: &AgentId, operation: Operation) -> Result<Answered, Failure> {
        self.registry().get(id)?.ask(|reply| Command::Workspace(Box::new(operation), reply)).await
    }

    /// Makes `count` agents `PREFIX-1`, `PREFIX-2`, ... that begin with the files of agent `id` as they are now:
    /// nothing is copied, whatever the size. Returns their ids.
    pub async fn fork(&self, id: &AgentId, count: u32, prefix: &str) -> Result<Vec<AgentId>, Failure> {
        if count == 0 || count > FORKS_MAX {
            return Err(Failure::invalid(format!(
                "{count} forks; from 1 to {FORKS_MAX} can be made at a time"
            )));
        }
        let ids = fork_ids(count, prefix)?;
        let reserved = self.registry().reserve(&ids)?;
        let parent = self.registry().get(id)?.record().ok_or_else(|| Failure::no_agent(id.as_str()))?;
        let package = self.packages().get(&parent.spec.reference, &parent.spec.digest).await?;
        if !is_transactional(&package.config) {
            return Err(Failure::refused(format!(
                "agent {id} has a workspace that is changed in place, which cannot be shared; `run.workspace: transactional` in its Agentfile keeps changes apart"
            )));
        }
        self.refuse_leftovers(&ids).await?;
        let records = match self.store_forks(&parent, &ids).await {
            Ok(records) => records,
            Err(failure) => {
                self.forget(&ids).await;
                return Err(failure);
            }
        };
        // From here to the forks' tasks nothing waits: who takes something from the parent later sees the forks.
        if let Err(failure) = self.refuse_when_changed(&parent) {
            self.unmake(&ids).await;
            return Err(failure);
        }
        self.registry().add(reserved, records);
        tracing::info!(AOS_AGENT = %id, count, prefix, "forked");
        Ok(ids)
    }

    /// Notes the forks, freezes what they share, and stores their records. After an error no record is there.
    async fn store_forks(&self, parent: &AgentRecord, ids: &[AgentId]) -> Result<Vec<AgentRecord>, Failure> {
        // The first note comes before: from then on nobody takes layers of the parent away.
        self.note(ids.get(..1).unwrap_or_default(), &parent.id, u32::MAX).await?;
        let newest = self.freeze(&parent.id).await?;
        self.note(ids, &parent.id, newest).await?;
        self.refuse_when_changed(parent)?;
        let context = self.registry().context();
        let records: Vec<AgentRecord> =
            ids.iter().map(|id| forked(parent, id, context.clock.now_us())).collect();
        context.db.insert_all(&records).await.map_err(|error| match error.is_conflict() {
            true => Failure::refused(
                "an agent whose record is damaged has the id of one of the forks; choose another prefix",
            ),
            false => db_failure(&error),
        })?;
        Ok(records)
    }

    /// Forks are made of what their parent is made of: what was taken from it meanwhile they must not have.
    fn refuse_when_changed(&self, parent: &AgentRecord) -> Result<(), Failure> {
        let now = self.registry().get(&parent.id)?.record();
        if now.is_some_and(|now| now.spec == parent.spec && now.removing.is_none()) {
            return Ok(());
        }
        Err(Failure::busy(format!("agent {} was changed while forks of it were made; try again", parent.id)))
    }

    async fn note(&self, ids: &[AgentId], parent: &AgentId, newest: u32) -> Result<(), Failure> {
        let (places, ids) = (self.registry().context().settings.places.clone(), ids.to_vec());
        let fork = Fork { parent: parent.clone(), newest };
        files::blocking("note the forks", move || forks::write(&places, &ids, &fork))
            .await
            .map_err(|error| Failure::failed(&error))
    }

    /// Forgets forks that are not made. Notes that stay hold the parent's layers until the supervisor starts anew, and
    /// nobody else's agent is made with them.
    async fn forget(&self, ids: &[AgentId]) {
        let (places, ids) = (self.registry().context().settings.places.clone(), ids.to_vec());
        let forget = move || forks::remove_all(&places, &ids);
        if let Err(error) = files::blocking("forget forks", forget).await {
            tracing::error!("notes of forks that were not made cannot be removed: {}", chain(&error));
        }
    }

    /// Takes back forks whose records are stored. Without that they are there after the next start of the supervisor,
    /// and need their notes.
    async fn unmake(&self, ids: &[AgentId]) {
        match self.registry().context().db.delete_all(ids).await {
            Ok(()) => self.forget(ids).await,
            Err(error) => tracing::error!(%error, "records of forks that were not made cannot be removed"),
        }
    }

    async fn refuse_leftovers(&self, ids: &[AgentId]) -> Result<(), Failure> {
        let (places, ids) = (self.registry().context().settings.places.clone(), ids.to_vec());
        files::blocking("look for leftovers", move || Ok(forks::refuse_leftovers(&places, &ids)))
            .await
            .map_err(|error| Failure::failed(&error))?
    }

    /// Freezes the agent's changes, and returns the number of its newest snapshot: the one thing of an answer that
    /// is read here. The agent's user wrote it, and a wrong one could only lead to layers of that user.
    async fn freeze(&self, id: &AgentId) -> Result<u32, Failure> {
        let at_us = self.registry().context().clock.now_us();
        let operation = Operation::Snapshot { name: Some("fork".to_owned()), at_us };
        let answered = self.workspace(id, operation).await?;
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            File::from(answered.file).take(SNAPSHOT_ANSWER_MAX).read_to_end(&mut bytes).map(|_| bytes)
        });
        let bytes = read.await.ok().and_then(Result::ok).unwrap_or_default();
        match serde_json::from_slice(&bytes) {
            Ok(Answer::Snapshot { newest, .. }) if answered.done && newest <= SNAPSHOTS_MAX => Ok(newest),
            _ => Err(Failure::new(
                aos_client::ErrorKind::Failed,
                format!("the changes of agent {id} cannot be frozen"),
            )
            .with_hint(&format!("journalctl -u aos-workspace@{id}.service"))),
        }
    }
}

fn fork_ids(count: u32, prefix: &str) -> Result<Vec<AgentId>, Failure> {
    (1..=count).map(|number| format!("{prefix}-{number}").parse().map_err(Failure::invalid)).collect()
}

/// A fork's record: made of the same, at rest.
fn forked(parent: &AgentRecord, id: &AgentId, now_us: u64) -> AgentRecord {
    AgentRecord {
        id: id.clone(),
        target: Target::Rest,
        failures: 0,
        retry_at_us: None,
        error: None,
        removing: None,
        created_at_us: now_us,
        in_force: None,
        plan_stale: true,
        run: None,
        ..parent.clone()
    }
}
