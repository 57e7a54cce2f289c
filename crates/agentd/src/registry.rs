//! All agents: which tasks there are, how they come to be, and the rounds that keep them honest.
//!
//! The [`Registry`] is a table of handles behind a lock that is held for look-ups only. Tasks are spawned here,
//! from the records at the start and for new agents later; a task that ended leaves a dead handle, which is
//! replaced or skipped. Ids of agents that are being made in several steps are reserved ([`Reserved`]). [`Registry::rounds`] is the reconciler's heart: it pokes every agent now and then, so
//! that a lost signal costs seconds and not for ever, checks that the database answers, and beats.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aos_client::ErrorKind;
use aos_core::config::Lifecycle;
use aos_core::id::{AgentId, Digest};
use aos_core::state::ExitResult;
use sd_notify::NotifyState;

use crate::agent::{AgentHandle, AgentTask, Command, Context, db_failure, plan_path};
use crate::db::{AgentRecord, DbError, End, InvocationId, Kept, Spec, Target};
use crate::enabled;
use crate::failure::{Failure, chain};
use crate::files;
use crate::forks;
use crate::notify::{self, Heart};
use crate::packages::Packages;
use crate::systemd::Systemd;
use crate::systemd::watch::Pokes;

/// Between two rounds. Signals carry the news; this only bounds how long a lost one goes unnoticed.
const ROUND: Duration = Duration::from_secs(15);

/// The agents.
#[derive(Debug)]
pub struct Registry<S, P> {
    context: Arc<Context<S, P>>,
    agents: Arc<Mutex<Table>>,
    /// Agents whose records cannot be read; `None` is one of which not even the id is known.
    unread: Mutex<BTreeSet<Option<AgentId>>>,
}

#[derive(Debug, Default)]
struct Table {
    handles: BTreeMap<AgentId, AgentHandle>,
    /// Nobody else makes agents of these.
    reserved: BTreeSet<AgentId>,
}

impl Table {
    /// Forgets tasks that ended, and counts the others.
    fn live(&mut self) -> usize {
        self.handles.retain(|_, handle| !handle.is_gone());
        self.handles.len()
    }

    fn is_live(&self, id: &AgentId) -> bool {
        self.handles.get(id).is_some_and(|handle| !handle.is_gone())
    }
}

/// Ids that are kept for agents to come, and count as agents, while it lives.
#[derive(Debug)]
pub struct Reserved {
    table: Arc<Mutex<Table>>,
    ids: Vec<AgentId>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut table = locked(&self.table);
        for id in &self.ids {
            table.reserved.remove(id);
        }
    }
}

fn locked(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    // Nothing in the critical sections can panic half-way; the table is sound even if one did.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Systemd, P: Packages> Registry<S, P> {
    /// No agents yet.
    #[must_use]
    pub fn new(context: Arc<Context<S, P>>) -> Arc<Self> {
        Arc::new(Self { context, agents: Arc::default(), unread: Mutex::default() })
    }

    /// What the tasks share.
    #[must_use]
    pub fn context(&self) -> &Arc<Context<S, P>> {
        &self.context
    }

    /// Spawns a task for every record. A damaged record is logged and left on the disk; the rest goes on.
    pub async fn load(&self) -> Result<(), DbError> {
        let enabled = self.enabled().await;
        let mut kept = self.context.db.kept().await?;
        for record in self.context.db.agents().await? {
            match record {
                Ok(mut record) => {
                    let is_enabled = enabled.contains(&record.id);
                    self.after_boot(&mut record, is_enabled);
                    record.plan_stale |= is_enabled && !self.has_plan(&record.id).await;
                    let kept = kept.remove(&record.id).unwrap_or_default();
                    self.spawn(&mut self.table(), record.id.clone(), Some((record, kept)), None);
                }
                Err(error) => {
                    tracing::error!(%error, "an agent is left out");
                    let id = match error {
                        DbError::Damaged { agent, .. } => agent.parse().ok(),
                        _ => None,
                    };
                    self.unread.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
                }
            }
        }
        self.forget_forks().await;
        Ok(())
    }

    /// The agents whose records could not be read and were not made anew since; `None` is one without an id.
    fn unread(&self) -> Vec<Option<AgentId>> {
        let table = self.table();
        let unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        unread.iter().filter(|id| id.as_ref().is_none_or(|id| !table.is_live(id))).cloned().collect()
    }

    /// Refuses what needs to know every package that is in use, while there is a record that cannot be read.
    pub fn refuse_when_unread(&self) -> Result<(), Failure> {
        let Some(id) = self.unread().into_iter().next() else { return Ok(()) };
        let (id, hint) = match id {
            Some(id) => (id.to_string(), format!("make it anew: aos run PACKAGE --name {id}")),
            None => ("?".to_owned(), "the journal of agentd.service says what is wrong".to_owned()),
        };
        Err(Failure::refused(format!(
            "the record of agent {id} is damaged, so it is not known which packages are in use; none is removed"
        ))
        .with_hint(&hint))
    }

    /// A note of a fork whose agent was never made, or is gone, would hold the parent's layers for ever. One whose
    /// record cannot be read is not gone.
    async fn forget_forks(&self) {
        let places = self.context.settings.places.clone();
        let mut known: BTreeSet<AgentId> = self.table().handles.keys().cloned().collect();
        for unread in self.unread() {
            let Some(id) = unread else {
                tracing::warn!("notes of forks stay: it is not known which agent cannot be read");
                return;
            };
            known.insert(id);
        }
        let forget = move || forks::retain(&places, |id| known.contains(id));
        if let Err(error) = files::blocking("forget forks", forget).await {
            tracing::error!("notes of forks that are gone cannot be removed: {}", chain(&error));
        }
    }

    /// Waits until every task has looked at its unit once, at most this long: who asks right after the start sees
    /// all agents.
    pub async fn first_looks(&self, most: Duration) {
        let looks = async {
            for handle in self.all() {
                handle.looked().await;
            }
        };
        if tokio::time::timeout(most, looks).await.is_err() {
            tracing::warn!("not all agents could be looked at yet; going on");
        }
    }

    /// The agents that start at boot, read on a blocking thread. Without them none is wanted after a boot; systemd
    /// starts what is enabled all the same, and it is adopted.
    async fn enabled(&self) -> BTreeSet<AgentId> {
        let folder = self.context.settings.places.enabled.clone();
        let read = files::blocking("list what starts at boot", move || enabled::all(&folder)).await;
        read.unwrap_or_else(|error| {
            tracing::error!("what starts at boot is not known: {}", chain(&error));
            BTreeSet::new()
        })
    }

    /// Whether there is a plan for whoever starts the unit. A crash while one is replaced leaves none.
    async fn has_plan(&self, id: &AgentId) -> bool {
        let path = plan_path(&self.context.settings.places, id);
        // What cannot be looked at is not missing.
        tokio::fs::try_exists(path).await.unwrap_or(true)
    }

    /// What a new boot does to a record: nothing runs any more, and only what is enabled is wanted.
    fn after_boot(&self, record: &mut AgentRecord, enabled: bool) {
        let Some(run) = &mut record.run else { return };
        if run.boot == self.context.settings.boot_id {
            return;
        }
        if run.end.is_none() {
            run.end = Some(End { at_us: None, result: ExitResult::Success, status: 0 });
        }
        // systemd itself starts what is enabled; a persistent agent is also looked after from then on.
        let is_wanted = enabled && record.spec.lifecycle == Lifecycle::Persistent;
        record.target = if is_wanted { Target::Run } else { Target::Rest };
        if is_wanted {
            // Its last run says nothing about this boot; a run that ended well would count as done.
            record.run = None;
        }
        record.failures = 0;
        record.retry_at_us = None;
        // What the boot started from a plan that is about to be renewed goes on with that.
        if !record.plan_stale {
            record.in_force = None;
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        locked(&self.agents)
    }

    fn spawn(
        &self,
        table: &mut Table,
        id: AgentId,
        known: Option<(AgentRecord, Kept)>,
        first: Option<Command>,
    ) {
        // Two tasks of one agent would undo each other's work.
        if table.is_live(&id) {
            tracing::error!(AOS_AGENT = %id, "an agent that is there is not made again");
            return;
        }
        let (record, kept) = known.map_or((None, Kept::default()), |(record, kept)| (Some(record), kept));
        let (handle, ends) = AgentHandle::new(id.clone(), record.clone(), kept);
        if let Some(command) = first {
            handle.send_first(command);
        }
        let task = AgentTask::new(id.clone(), Arc::clone(&self.context), ends, record);
        table.handles.insert(id, handle);
        tokio::spawn(task.run());
    }

    /// Keeps ids for agents that are being made, all or none: they must be free, and there must be room. Only one
    /// caller at a time has some.
    pub fn reserve(&self, ids: &[AgentId]) -> Result<Reserved, Failure> {
        let most = self.context.settings.limits.max_agents;
        let mut table = self.table();
        if !table.reserved.is_empty() {
            return Err(Failure::busy("other forks are being made; try again when they are there"));
        }
        if let Some(id) = ids.iter().find(|id| table.is_live(id)) {
            return Err(Failure::refused(format!("agent {id} is there already; choose another prefix")));
        }
        let there = table.live();
        if there.saturating_add(ids.len()) > most {
            return Err(Failure::refused(format!(
                "there are {there} agents and at most {most} are allowed (max_agents in /etc/aos/agentd.toml)"
            )));
        }
        table.reserved.extend(ids.iter().cloned());
        Ok(Reserved { table: Arc::clone(&self.agents), ids: ids.to_vec() })
    }

    /// Tasks for agents whose ids were reserved, and whose records were stored just now.
    pub fn add(&self, reserved: Reserved, records: Vec<AgentRecord>) {
        {
            let mut table = self.table();
            for record in records {
                self.spawn(&mut table, record.id.clone(), Some((record, Kept::default())), None);
            }
        }
        drop(reserved);
    }

    /// The handle of an agent that has a record.
    pub fn get(&self, id: &AgentId) -> Result<AgentHandle, Failure> {
        let handle = self.table().handles.get(id).cloned();
        handle.filter(|handle| !handle.is_gone()).ok_or_else(|| Failure::no_agent(id.as_str()))
    }

    /// All live handles, sorted by id.
    #[must_use]
    pub fn all(&self) -> Vec<AgentHandle> {
        let mut table = self.table();
        table.live();
        table.handles.values().cloned().collect()
    }

    /// Makes or replaces agent `id` and starts it.
    pub async fn run(&self, id: &AgentId, spec: Spec) -> Result<InvocationId, Failure> {
        // A task may end between the look-up and the command; then a new one is made.
        for _ in 0..3 {
            if let Ok(handle) = self.get(id) {
                let result = handle.ask(|reply| Command::Run(Box::new(spec.clone()), reply)).await;
                if !(handle.is_gone() && result.as_ref().is_err_and(|f| f.kind() == ErrorKind::NotFound)) {
                    return result;
                }
            } else if let Some(answer) = self.spawn_new(id, &spec)? {
                return answer.await.unwrap_or_else(|_| Err(Failure::no_agent(id.as_str())));
            }
        }
        Err(Failure::busy(format!("agent {id} is being removed; try again")))
    }

    /// A task for an agent without a record, with its first command; `None` when somebody else was faster.
    fn spawn_new(
        &self,
        id: &AgentId,
        spec: &Spec,
    ) -> Result<Option<tokio::sync::oneshot::Receiver<Result<InvocationId, Failure>>>, Failure> {
        let most = self.context.settings.limits.max_agents;
        let mut table = self.table();
        if table.is_live(id) {
            return Ok(None);
        }
        if table.reserved.contains(id) {
            return Err(Failure::busy(format!("agent {id} is being made as a fork; choose another id")));
        }
        if table.live().saturating_add(table.reserved.len()) >= most {
            return Err(Failure::refused(format!(
                "there are {most} agents already (max_agents in /etc/aos/agentd.toml); remove one first"
            )));
        }
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.spawn(&mut table, id.clone(), None, Some(Command::Run(Box::new(spec.clone()), reply)));
        Ok(Some(answer))
    }

    /// Which agents are made of which manifest, or have a checkpoint that is.
    #[must_use]
    pub fn users(&self) -> BTreeMap<Digest, Vec<String>> {
        let mut users: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        for agent in self.all() {
            let of_checkpoints = agent.kept().checkpoints.into_iter().map(|one| one.spec.digest);
            let digests: BTreeSet<Digest> =
                agent.record().map(|record| record.spec.digest).into_iter().chain(of_checkpoints).collect();
            for digest in digests {
                users.entry(digest).or_default().push(agent.id().to_string());
            }
        }
        users
    }

    /// Goes round for ever: pokes, pings the database, beats, and tells systemd how many there are.
    pub async fn rounds(self: Arc<Self>, heart: Heart) {
        loop {
            let agents = self.all();
            for agent in &agents {
                agent.poke();
            }
            match self.context.db.ping().await {
                Ok(()) => heart.beat(),
                Err(error) => {
                    tracing::error!(error = %db_failure(&error), "the state database does not answer")
                }
            }
            let views = agents.iter().filter_map(AgentHandle::view);
            let running = views.filter(|view| view.state == "running").count();
            let status = format!("{} agents, {running} running", agents.len());
            notify::tell(&[NotifyState::Status(&status)]);
            tokio::time::sleep(ROUND).await;
        }
    }
}

impl<S: Systemd, P: Packages> Pokes for Registry<S, P> {
    fn poke(&self, id: &str) {
        if let Some(handle) = id.parse().ok().and_then(|id: AgentId| self.table().handles.get(&id).cloned()) {
            handle.poke();
        }
    }

    fn poke_all(&self) {
        for handle in self.all() {
            handle.poke();
        }
    }
}
