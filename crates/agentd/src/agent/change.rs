//! Changing what an agent may do: the record at once, the plan on the disk right after it.
//!
//! A start that nobody here makes (`systemctl start`, a boot) reads the plan file, so the file must never give more
//! than the record for longer than a crash takes to be noticed. Order:
//!
//! 1. the plan of a run that may be going is kept beside the plan file, for `Explain`. Unless the agent gets more,
//!    that takes the plan away, so that a boot after a crash between here and step 3 starts nothing;
//! 2. the record: the new set, `plan_stale`, and as `in_force` what a run that may be going was given;
//! 3. the plan file, replaced, or removed when the new set has no plan (a start then fails);
//! 4. the unit is looked at: when no run began since step 1, `plan_stale` is cleared, and `in_force` too when the
//!    unit rests. Otherwise the run is recorded first, with `in_force` as it is, since it may have read either file,
//!    and [`AgentTask::renew_plan`] does steps 3 and 4 again.
//!
//! A run that is not recorded when a change comes is recorded before step 1: it was given what the plan said.
//!
//! A crash after step 2 leaves `plan_stale`, and the next supervisor goes on with step 3; after a crash before it, the
//! registry has the missing plan of what starts at boot made anew. When step 2 fails, the record as it was is stored
//! again with its plan, by the same steps 3 and 4, until that succeeds: what was given up may come late.

use aos_core::capability::CapabilitySet;

use super::launch::{file_failure, plan_in_force_path, plan_of, plan_path, write_plan};
use super::task::{AgentTask, db_failure};
use crate::change::{Change, Effect, is_in_force};
use crate::db::{AgentRecord, InvocationId, Origin, Origins, Provenance, Spec};
use crate::failure::{Failure, chain};
use crate::files::{self, FileError};
use crate::packages::Packages;
use crate::systemd::Systemd;

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// How it took effect.
    pub effect: Effect,
    /// What the agent may do from the next start on.
    pub capabilities: CapabilitySet,
    /// What the run that goes on was given, when that is something else.
    pub in_force: Option<CapabilitySet>,
    /// Something that somebody who changed it has to know.
    pub note: Option<String>,
}

/// What became of the plan file.
struct Replaced {
    /// Why there is none now.
    note: Option<String>,
    /// It is as it has to be; else it is tried again.
    is_final: bool,
}

/// Which run there is, if any: two looks that see the same saw no start in between.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sight {
    invocation: Option<InvocationId>,
    is_at_rest: bool,
}

impl<S: Systemd, P: Packages> AgentTask<S, P> {
    /// Changes what the agent may do. A grant that cannot be enforced changes nothing; what is taken away is taken
    /// away in any case.
    pub(super) async fn change_capabilities(&mut self, change: &Change) -> Result<Changed, Failure> {
        let Some(record) = &self.record else { return Err(Failure::no_agent(self.id.as_str())) };
        if record.removing.is_some() {
            return Err(Failure::refused(format!("agent {} is being removed", self.id)));
        }
        self.refuse_when_restoring("be changed")?;
        let old = record.spec.capabilities.clone();
        let new = change.apply(&old).map_err(|error| Failure::refused(error.to_string()))?;
        if new == old {
            return Ok(self.changed(None));
        }
        let still = change.still_permitted(&new);
        let note = self.put_capabilities(change, old, new).await?;
        let notes: Vec<String> = still.into_iter().chain(note).collect();
        Ok(self.changed((!notes.is_empty()).then(|| notes.join("; "))))
    }

    async fn put_capabilities(
        &mut self,
        change: &Change,
        old: CapabilitySet,
        new: CapabilitySet,
    ) -> Result<Option<String>, Failure> {
        if change.is_grant()
            && let Some(record) = &self.record
        {
            let spec = Spec { capabilities: new.clone(), ..record.spec.clone() };
            plan_of(&self.context, &self.id, &spec).await?;
        }
        self.look().await?;
        if !self.is_recorded() {
            self.settle().await;
        }
        let before = self.sight();
        self.keep_plan(change).await?;
        let (origin, since_us) = (origin(change), self.context.clock.now_us());
        tracing::info!(AOS_AGENT = %self.id, ?change, "what it may do changes");
        let unchanged = self.record.clone();
        let stored = self.change(|record| {
            record.origins.retain(|line, _| new.iter().any(|one| one.to_string() == *line));
            for added in new.iter().filter(|one| !old.contains(one)) {
                record.origins.insert(added.to_string(), Provenance { origin, since_us });
            }
            let given = record.in_force.take().unwrap_or(old);
            record.in_force = (given != new).then_some(given);
            record.spec.capabilities = new;
            record.plan_stale = true;
        });
        if let Err(failure) = stored.await {
            // Who is told that it failed must not see it happen later.
            self.record = unchanged.map(|record| AgentRecord { plan_stale: true, ..record });
            return Err(failure);
        }
        let replaced = self.replace_plan().await.map_err(|failure| {
            let text = format!("the change is recorded, but the plan on the disk is not: {failure}");
            Failure::new(failure.kind(), text).with_hint("it is tried again")
        })?;
        if replaced.is_final
            && let Err(failure) = self.settle_plan(&before).await
        {
            // The change is made; only what is remembered of it is tried again.
            self.trouble(&failure);
        }
        Ok(replaced.note)
    }

    /// Step 1: keeps the plan of the run that may be going, once in its life.
    async fn keep_plan(&self, change: &Change) -> Result<(), Failure> {
        let is_kept = self.record.as_ref().is_none_or(|record| record.in_force.is_some());
        let is_grant = change.is_grant();
        let places = &self.context.settings.places;
        let (plan, kept) = (plan_path(places, &self.id), plan_in_force_path(places, &self.id));
        let keep = move || match (is_kept, is_grant) {
            (true, true) => Ok(()),
            (true, false) => files::remove_durably(&plan),
            (false, true) => copy(&plan, &kept),
            (false, false) => set_aside(&plan, &kept),
        };
        files::blocking("keep the plan in force", keep).await.map_err(file_failure)
    }

    /// Writes the plan of the record, or removes the one that there is; then it says why.
    async fn replace_plan(&self) -> Result<Replaced, Failure> {
        let Some(record) = &self.record else { return Ok(Replaced { note: None, is_final: true }) };
        let path = plan_path(&self.context.settings.places, &self.id);
        let (why, is_final) = match plan_of(&self.context, &self.id, &record.spec).await {
            Ok(plan) => {
                let path = path.clone();
                match files::blocking("write the plan", move || write_plan(&path, &plan)).await {
                    Ok(()) => return Ok(Replaced { note: None, is_final: true }),
                    Err(error) => (file_failure(error), false),
                }
            }
            Err(failure) => (failure, true),
        };
        files::blocking("remove the plan", move || files::remove_durably(&path))
            .await
            .map_err(file_failure)?;
        Ok(Replaced { note: Some(format!("agent {} cannot start as it is now: {why}", self.id)), is_final })
    }

    /// Step 4: forgets that there was another plan, when nobody can have read it since `before`.
    async fn settle_plan(&mut self, before: &Sight) -> Result<(), Failure> {
        self.look().await?;
        let now = self.sight();
        if now != *before || !self.is_recorded() {
            return Ok(());
        }
        let stored = self.change(|record| {
            record.plan_stale = false;
            if now.is_at_rest {
                record.in_force = None;
            }
        });
        let stored = stored.await;
        if stored.is_err()
            && let Some(record) = &mut self.record
        {
            // What the database holds is not known, so this is done again.
            record.plan_stale = true;
        }
        stored
    }

    /// Whether the run that is seen, if any, is the one in the record.
    fn is_recorded(&self) -> bool {
        let known = self.record.as_ref().and_then(|record| record.run.as_ref()).map(|run| &run.invocation);
        self.seen.invocation.is_none() || self.seen.invocation.as_ref() == known
    }

    /// After a change that was cut short: the plan again.
    pub(super) async fn renew_plan(&mut self) -> Result<(), Failure> {
        let is_stale = self.record.as_ref().is_some_and(|record| record.plan_stale);
        // A start of ours writes the plan; a run that is not recorded is recorded first.
        if !is_stale
            || self.restoring.is_some()
            || self.start_asked
            || self.starting.is_some()
            || !self.is_recorded()
        {
            return Ok(());
        }
        // As with every change, the record before the plan: after a change that was given up the database may hold
        // another one.
        self.store().await.map_err(|error| db_failure(&error))?;
        if self.is_at_rest() {
            // With the plan, others can start it.
            self.end_cut_short().await?;
        }
        let before = self.sight();
        let Replaced { note, is_final } = self.replace_plan().await?;
        if let Some(note) = note {
            tracing::warn!(AOS_AGENT = %self.id, "{note}");
        }
        if is_final { self.settle_plan(&before).await } else { Ok(()) }
    }

    /// A start of ours has put the record's plan on the disk. Nothing ran `before`; somebody may have been faster.
    pub(super) async fn plan_is_written(&mut self, before: &Sight) -> Result<(), Failure> {
        if self.record.as_ref().is_none_or(|record| !record.plan_stale && record.in_force.is_none()) {
            return Ok(());
        }
        self.settle_plan(before).await
    }

    /// Where the capabilities of a new record come from.
    pub(super) async fn origins_of_new(&self, spec: &Spec) -> Result<Origins, Failure> {
        let declared = self.context.packages.get(&spec.reference, &spec.digest).await?.config.capabilities;
        let since_us = self.context.clock.now_us();
        let provenance = |one| {
            let origin = if declared.contains(one) { Origin::Package } else { Origin::Narrowed };
            Provenance { origin, since_us }
        };
        Ok(spec.capabilities.iter().map(|one| (one.to_string(), provenance(one))).collect())
    }

    /// Which run was seen last.
    pub(super) fn sight(&self) -> Sight {
        Sight { invocation: self.seen.invocation.clone(), is_at_rest: self.is_at_rest() }
    }

    fn changed(&self, note: Option<String>) -> Changed {
        let record = self.record.as_ref();
        let capabilities = record.map(|record| record.spec.capabilities.clone()).unwrap_or_default();
        let in_force = record.and_then(|record| record.in_force.clone()).filter(|_| !self.is_at_rest());
        let effect = match &in_force {
            _ if self.is_at_rest() => Effect::NextStart,
            Some(given) if !is_in_force(given, &capabilities) => Effect::NextStart,
            _ => Effect::Now,
        };
        Changed { effect, capabilities, in_force, note }
    }
}

const fn origin(change: &Change) -> Origin {
    match change {
        Change::Grant(_) => Origin::Granted,
        Change::Narrow(_) | Change::Revoke(_) => Origin::Narrowed,
    }
}

/// Copies a plan that there may be none of.
fn copy(plan: &std::path::Path, kept: &std::path::Path) -> Result<(), FileError> {
    match files::read_bounded(plan, aos_sandbox::plan::PLAN_MAX_BYTES) {
        Ok(bytes) => files::write_atomic(kept, &bytes, super::launch::PLAN_MODE),
        Err(error) if error.is_missing() => files::remove_durably(kept),
        Err(error) => Err(error),
    }
}

/// Makes the plan the kept one, which a full disk does not prevent. Whatever else does, the plan goes: what is taken
/// away does not wait for what is only shown.
fn set_aside(plan: &std::path::Path, kept: &std::path::Path) -> Result<(), FileError> {
    let Err(error) = files::rename_durably(plan, kept) else { return Ok(()) };
    if !error.is_missing() {
        tracing::warn!("the plan in force is not kept: {}", chain(&error));
    }
    // An older one must not be taken for it.
    if let Err(error) = files::remove_durably(kept) {
        tracing::warn!("{}", chain(&error));
    }
    files::remove_durably(plan)
}
