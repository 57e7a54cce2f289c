//! The rows of checkpoints and of restores that have begun.
//!
//! A checkpoint's row says what an agent was made of; its files are `aos-workspace`'s. A row in `restores` is there
//! from the transaction that puts the record of a checkpoint in the place of the agent's until the files are in place,
//! too: the two begin together and the row is what is gone on with after a crash.

use std::collections::BTreeMap;
use std::fmt;

use aos_core::capability::CapabilitySet;
use aos_core::id::AgentId;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::records::{self, UPSERT};
use super::{AgentRecord, DbError, Origins, Spec, Target};
use crate::forks::Fork;

/// Why a checkpoint was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Somebody asked for it.
    Asked,
    /// It is what a restore replaced.
    Replaced,
}

impl Cause {
    /// The word stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Replaced => "replaced",
        }
    }
}

/// What an agent was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// From 1, unique for each agent.
    pub number: u32,
    /// Unique for each agent.
    pub name: Option<String>,
    /// When it was made.
    pub at_us: u64,
    /// Why.
    pub cause: Cause,
    /// What the agent was made of.
    pub spec: Spec,
    /// Where its capabilities came from.
    pub origins: Origins,
    /// What its run was given, when that was something else.
    pub in_force: Option<CapabilitySet>,
    /// What was wanted of it.
    pub target: Target,
    /// Whose fork it was: what is below its files is that agent's.
    pub fork: Option<Fork>,
}

/// What is kept of an agent beside its record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// Oldest first.
    pub checkpoints: Vec<Checkpoint>,
    /// Numbers whose rows cannot be read. Their files stay.
    pub damaged: Vec<u32>,
    /// The checkpoint that is being brought back: the record is that already, the files may not be.
    pub restoring: Option<u32>,
}

impl Kept {
    /// The numbers whose files are to stay.
    #[must_use]
    pub fn numbers(&self) -> Vec<u32> {
        self.checkpoints.iter().map(|one| one.number).chain(self.damaged.iter().copied()).collect()
    }
}

/// What a checkpoint's row holds as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    reference: String,
    digest: String,
    lifecycle: String,
    arguments: Vec<String>,
    capabilities: Vec<String>,
    limits: aos_core::config::Limits,
    origins: Origins,
    in_force: Option<CapabilitySet>,
    target: String,
    fork: Option<(String, u32)>,
}

impl State {
    fn of(checkpoint: &Checkpoint) -> Self {
        let spec = &checkpoint.spec;
        Self {
            reference: spec.reference.to_string(),
            digest: spec.digest.to_string(),
            lifecycle: spec.lifecycle.as_str().to_owned(),
            arguments: spec.arguments.clone(),
            capabilities: spec.capabilities.to_lines(),
            limits: spec.limits.clone(),
            origins: checkpoint.origins.clone(),
            in_force: checkpoint.in_force.clone(),
            target: checkpoint.target.as_str().to_owned(),
            fork: checkpoint.fork.as_ref().map(|fork| (fork.parent.to_string(), fork.newest)),
        }
    }
}

/// What is kept of all agents.
pub(super) fn all(connection: &mut Connection) -> Result<BTreeMap<AgentId, Kept>, DbError> {
    let mut kept: BTreeMap<AgentId, Kept> = BTreeMap::new();
    let mut statement = connection.prepare(
        "SELECT agent, number, name, at_us, cause, state FROM checkpoints ORDER BY agent, at_us, number",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let Ok(agent) = row.get::<_, String>("agent")?.parse::<AgentId>() else { continue };
        let number: u32 = row.get("number")?;
        let state: String = row.get("state")?;
        let read = Checkpoint {
            number,
            name: row.get("name")?,
            at_us: records::from_sql(row.get("at_us")?),
            cause: if row.get::<_, String>("cause")? == "asked" { Cause::Asked } else { Cause::Replaced },
            ..match parse(&state) {
                Ok(checkpoint) => checkpoint,
                Err(what) => {
                    tracing::error!(AOS_AGENT = %agent, number, what, "a checkpoint is left out");
                    kept.entry(agent).or_default().damaged.push(number);
                    continue;
                }
            }
        };
        kept.entry(agent).or_default().checkpoints.push(read);
    }
    let mut statement = connection.prepare("SELECT agent, number FROM restores")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let Ok(agent) = row.get::<_, String>(0)?.parse::<AgentId>() else { continue };
        kept.entry(agent).or_default().restoring = Some(row.get(1)?);
    }
    Ok(kept)
}

/// The part of a checkpoint that is stored as JSON.
fn parse(state: &str) -> Result<Checkpoint, String> {
    let words = |error: &dyn fmt::Display| error.to_string();
    let state: State = serde_json::from_str(state).map_err(|error| words(&error))?;
    let fork = state.fork.map(|(parent, newest)| parent.parse().map(|parent| Fork { parent, newest }));
    Ok(Checkpoint {
        number: 0,
        name: None,
        at_us: 0,
        cause: Cause::Asked,
        spec: Spec {
            reference: state.reference.parse().map_err(|error| words(&error))?,
            digest: state.digest.parse().map_err(|error| words(&error))?,
            lifecycle: state.lifecycle.parse().map_err(|error| words(&error))?,
            arguments: state.arguments,
            capabilities: CapabilitySet::parse(state.capabilities.iter().map(String::as_str))
                .map_err(|error| words(&error))?,
            limits: state.limits,
        },
        origins: state.origins,
        in_force: state.in_force,
        target: if state.target == Target::Run.as_str() { Target::Run } else { Target::Rest },
        fork: fork.transpose().map_err(|error| words(&error))?,
    })
}

/// Adds a checkpoint.
pub(super) fn add(connection: &mut Connection, agent: &AgentId, one: &Checkpoint) -> Result<(), DbError> {
    let state = serde_json::to_string(&State::of(one))
        .map_err(|error| DbError::Damaged { agent: agent.to_string(), what: error.to_string() })?;
    connection.execute(
        "INSERT INTO checkpoints (agent, number, name, at_us, cause, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![agent.as_str(), one.number, one.name, records::to_sql(one.at_us), one.cause.as_str(), state],
    )?;
    Ok(())
}

/// Deletes checkpoints, in one transaction. One that is not there is no error.
pub(super) fn remove(connection: &mut Connection, agent: &AgentId, numbers: &[u32]) -> Result<(), DbError> {
    let transaction = connection.transaction()?;
    for number in numbers {
        transaction.execute(
            "DELETE FROM checkpoints WHERE agent = ?1 AND number = ?2",
            params![agent.as_str(), number],
        )?;
    }
    Ok(transaction.commit()?)
}

/// Puts the record of a checkpoint, and notes that its files are to follow, in one transaction.
pub(super) fn begin_restore(
    connection: &mut Connection,
    record: &AgentRecord,
    number: u32,
) -> Result<(), DbError> {
    let transaction = connection.transaction()?;
    records::write(&transaction, record, UPSERT)?;
    transaction.execute(
        "INSERT INTO restores (agent, number) VALUES (?1, ?2) ON CONFLICT (agent) DO UPDATE SET number = ?2",
        params![record.id.as_str(), number],
    )?;
    Ok(transaction.commit()?)
}

/// Puts a record, and notes that no files are to follow.
pub(super) fn end_restore(connection: &mut Connection, record: &AgentRecord) -> Result<(), DbError> {
    let transaction = connection.transaction()?;
    records::write(&transaction, record, UPSERT)?;
    transaction.execute("DELETE FROM restores WHERE agent = ?1", [record.id.as_str()])?;
    Ok(transaction.commit()?)
}
