//! What the database keeps of an agent, and its rows.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use aos_core::capability::CapabilitySet;
use aos_core::config::{Lifecycle, Limits};
use aos_core::id::{AgentId, Digest, PackageRef};
use aos_core::state::ExitResult;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};

use super::DbError;

/// Runs kept per agent; older ones are in the journal.
const RUNS_KEPT: u32 = 10;

/// What the supervisor wants of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// It runs, or is started again when its lifecycle says so.
    Run,
    /// It does not run.
    Rest,
}

impl Target {
    /// The word stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Rest => "rest",
        }
    }

    /// The word that a caller sees.
    #[must_use]
    pub const fn shown(self) -> &'static str {
        match self {
            Self::Run => "running",
            Self::Rest => "stopped",
        }
    }
}

/// What happens to the workspace of an agent that is being removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The workspace stays.
    KeepWorkspace,
    /// The workspace is deleted.
    DeleteWorkspace,
}

impl Removal {
    const fn as_str(self) -> &'static str {
        match self {
            Self::KeepWorkspace => "keep",
            Self::DeleteWorkspace => "delete",
        }
    }
}

/// systemd's invocation id of one run of a unit: 32 hex digits, never all zero.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InvocationId(String);

impl InvocationId {
    /// From the bytes of the D-Bus property; `None` when there is none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != 16 || bytes.iter().all(|&byte| byte == 0) {
            return None;
        }
        Some(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for InvocationId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hex = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_hex { Ok(Self(text.to_owned())) } else { Err("an invocation id is 32 hex digits") }
    }
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Which.
    pub invocation: InvocationId,
    /// In which boot.
    pub boot: String,
    /// When it started.
    pub started_at_us: u64,
    /// How it ended; `None` while it runs.
    pub end: Option<End>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// When; `None` when nobody saw it.
    pub at_us: Option<u64>,
    /// systemd's result.
    pub result: ExitResult,
    /// Exit status, or the signal's number.
    pub status: i32,
}

/// What an agent is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Its package, `name:version`.
    pub reference: PackageRef,
    /// The package's manifest: what runs is this, whatever the name points to later.
    pub digest: Digest,
    /// From the package.
    pub lifecycle: Lifecycle,
    /// Arguments after those of the package.
    pub arguments: Vec<String>,
    /// What it may do: the package's capabilities or a subset.
    pub capabilities: CapabilitySet,
    /// Its limits.
    pub limits: Limits,
}

/// Where a capability of an agent comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The package declares it.
    Package,
    /// Somebody granted it to this agent.
    Granted,
    /// It is what somebody left of something wider.
    Narrowed,
}

impl Origin {
    /// The word shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Package => "package",
            Self::Granted => "granted",
            Self::Narrowed => "narrowed",
        }
    }
}

/// Where from and since when an agent has a capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Where from.
    pub origin: Origin,
    /// Since when.
    pub since_us: u64,
}

/// Of each capability, by its line. One that is not here is the package's, since the agent was made.
pub type Origins = BTreeMap<String, Provenance>;

/// An agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRecord {
    /// Its id.
    pub id: AgentId,
    /// What it is made of.
    pub spec: Spec,
    /// What is wanted.
    pub target: Target,
    /// Failures in a row, for the back-off.
    pub failures: u32,
    /// When the next start is due, in back-off.
    pub retry_at_us: Option<u64>,
    /// What went wrong last.
    pub error: Option<String>,
    /// Set while it is being removed.
    pub removing: Option<Removal>,
    /// When it was made.
    pub created_at_us: u64,
    /// Where its capabilities come from.
    pub origins: Origins,
    /// What a run that may be going was given, when that is not what is in `spec`; see `agent::change`.
    pub in_force: Option<CapabilitySet>,
    /// The plan on the disk may be older than `spec`.
    pub plan_stale: bool,
    /// Its last run.
    pub run: Option<Run>,
}

macro_rules! insert {
    () => {
        "INSERT INTO agents (id, reference, digest, lifecycle, arguments, capabilities, limits, target, failures,
                             retry_at_us, error, removing, created_at_us, origins, in_force, plan_stale)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)"
    };
}

/// A row that must not be there.
const INSERT: &str = insert!();
/// A row that may be there.
pub(super) const UPSERT: &str = concat!(
    insert!(),
    " ON CONFLICT (id) DO UPDATE SET
            reference = ?2, digest = ?3, lifecycle = ?4, arguments = ?5, capabilities = ?6, limits = ?7,
            target = ?8, failures = ?9, retry_at_us = ?10, error = ?11, removing = ?12, created_at_us = ?13,
            origins = ?14, in_force = ?15, plan_stale = ?16"
);

/// All agents with their last run, sorted by id.
pub(super) fn all(connection: &mut Connection) -> Result<Vec<Result<AgentRecord, DbError>>, DbError> {
    let mut statement = connection.prepare("SELECT * FROM agents ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut agents = Vec::new();
    while let Some(row) = rows.next()? {
        agents.push(read(connection, row));
    }
    Ok(agents)
}

/// Inserts or updates the record and its last run, in one transaction.
pub(super) fn put(connection: &mut Connection, record: &AgentRecord) -> Result<(), DbError> {
    let transaction = connection.transaction()?;
    write(&transaction, record, UPSERT)?;
    Ok(transaction.commit()?)
}

/// Inserts many, in one transaction, unless it may not be committed when all else is done.
pub(super) fn insert_all(
    connection: &mut Connection,
    records: &[AgentRecord],
    may_commit: impl FnOnce() -> bool,
) -> Result<(), DbError> {
    let transaction = connection.transaction()?;
    for record in records {
        write(&transaction, record, INSERT)?;
    }
    if !may_commit() {
        return Err(DbError::Deadline);
    }
    Ok(transaction.commit()?)
}

/// One row, written with [`INSERT`] or [`UPSERT`].
pub(super) fn write(connection: &Connection, record: &AgentRecord, statement: &str) -> Result<(), DbError> {
    let damaged =
        |what: serde_json::Error| DbError::Damaged { agent: record.id.to_string(), what: what.to_string() };
    let spec = &record.spec;
    let arguments = serde_json::to_string(&spec.arguments).map_err(damaged)?;
    let capabilities = serde_json::to_string(&spec.capabilities.to_lines()).map_err(damaged)?;
    let limits = serde_json::to_string(&spec.limits).map_err(damaged)?;
    let origins = serde_json::to_string(&record.origins).map_err(damaged)?;
    let in_force = record.in_force.as_ref().map(serde_json::to_string).transpose().map_err(damaged)?;
    connection.prepare_cached(statement)?.execute(params![
        record.id.as_str(),
        spec.reference.to_string(),
        spec.digest.to_string(),
        spec.lifecycle.as_str(),
        arguments,
        capabilities,
        limits,
        record.target.as_str(),
        record.failures,
        record.retry_at_us.map(to_sql),
        record.error,
        record.removing.map(Removal::as_str),
        to_sql(record.created_at_us),
        origins,
        in_force,
        record.plan_stale,
    ])?;
    if let Some(run) = &record.run {
        put_run(connection, &record.id, run)?;
    }
    Ok(())
}

fn put_run(connection: &Connection, id: &AgentId, run: &Run) -> Result<(), DbError> {
    let end = run.end.as_ref();
    connection.execute(
        "INSERT INTO runs (agent, invocation, boot, started_at_us, ended_at_us, result, status)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (agent, invocation) DO UPDATE SET ended_at_us = ?5, result = ?6, status = ?7",
        params![
            id.as_str(),
            run.invocation.as_str(),
            run.boot,
            to_sql(run.started_at_us),
            end.and_then(|end| end.at_us).map(to_sql),
            end.map(|end| end.result.as_str()),
            end.map(|end| end.status),
        ],
    )?;
    connection.execute(
        "DELETE FROM runs WHERE agent = ?1 AND invocation NOT IN
            (SELECT invocation FROM runs WHERE agent = ?1 ORDER BY started_at_us DESC, rowid DESC LIMIT ?2)",
        params![id.as_str(), RUNS_KEPT],
    )?;
    Ok(())
}

/// Deletes the record; the runs go with it.
pub(super) fn delete(connection: &mut Connection, id: &AgentId) -> Result<(), DbError> {
    connection.execute("DELETE FROM agents WHERE id = ?1", [id.as_str()])?;
    Ok(())
}

/// The same for many, in one transaction.
pub(super) fn delete_all(connection: &mut Connection, ids: &[AgentId]) -> Result<(), DbError> {
    let transaction = connection.transaction()?;
    for id in ids {
        transaction.prepare_cached("DELETE FROM agents WHERE id = ?1")?.execute([id.as_str()])?;
    }
    Ok(transaction.commit()?)
}

fn read(connection: &Connection, row: &Row<'_>) -> Result<AgentRecord, DbError> {
    let agent: String = row.get("id")?;
    let damaged = |what: &dyn fmt::Display| DbError::Damaged { agent: agent.clone(), what: what.to_string() };
    let id: AgentId = agent.parse().map_err(|error| damaged(&error))?;
    let text = |column: &str| -> Result<String, DbError> { Ok(row.get(column)?) };
    let lines: Vec<String> = serde_json::from_str(&text("capabilities")?).map_err(|e| damaged(&e))?;
    Ok(AgentRecord {
        run: last_run(connection, &id)?,
        spec: Spec {
            reference: text("reference")?.parse().map_err(|error| damaged(&error))?,
            digest: text("digest")?.parse().map_err(|error| damaged(&error))?,
            lifecycle: text("lifecycle")?.parse().map_err(|error| damaged(&error))?,
            arguments: serde_json::from_str(&text("arguments")?).map_err(|error| damaged(&error))?,
            capabilities: CapabilitySet::parse(lines.iter().map(String::as_str)).map_err(|e| damaged(&e))?,
            limits: serde_json::from_str(&text("limits")?).map_err(|error| damaged(&error))?,
        },
        target: match text("target")?.as_str() {
            "run" => Target::Run,
            "rest" => Target::Rest,
            other => return Err(damaged(&format_args!("the target `{other}`"))),
        },
        failures: row.get("failures")?,
        retry_at_us: row.get::<_, Option<i64>>("retry_at_us")?.map(from_sql),
        error: row.get("error")?,
        removing: match row.get::<_, Option<String>>("removing")?.as_deref() {
            None => None,
            Some("keep") => Some(Removal::KeepWorkspace),
            Some("delete") => Some(Removal::DeleteWorkspace),
            Some(other) => return Err(damaged(&format_args!("the removal `{other}`"))),
        },
        created_at_us: from_sql(row.get("created_at_us")?),
        origins: serde_json::from_str(&text("origins")?).map_err(|error| damaged(&error))?,
        in_force: row
            .get::<_, Option<String>>("in_force")?
            .map(|json| serde_json::from_str(&json).map_err(|error| damaged(&error)))
            .transpose()?,
        plan_stale: row.get("plan_stale")?,
        id,
    })
}

fn last_run(connection: &Connection, id: &AgentId) -> Result<Option<Run>, DbError> {
    let mut statement = connection.prepare_cached(
        "SELECT invocation, boot, started_at_us, ended_at_us, result, status FROM runs
         WHERE agent = ?1 ORDER BY started_at_us DESC, rowid DESC LIMIT 1",
    )?;
    let row = statement
        .query_row([id.as_str()], |row| {
            let columns: (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let end: (Option<i64>, Option<String>, Option<i32>) = (row.get(3)?, row.get(4)?, row.get(5)?);
            Ok((columns, end))
        })
        .optional()?;
    let Some(((invocation, boot, started), (ended, result, status))) = row else { return Ok(None) };
    let damaged =
        |what: &dyn fmt::Display| DbError::Damaged { agent: id.to_string(), what: what.to_string() };
    let end = match (result, status, ended) {
        (None, None, None) => None,
        (Some(word), Some(status), at_us) => Some(End {
            at_us: at_us.map(from_sql),
            result: word.parse().map_err(|error| damaged(&error))?,
            status,
        }),
        _ => return Err(damaged(&format_args!("the run {invocation} has an end without result or status"))),
    };
    let invocation = invocation.parse().map_err(|error| damaged(&error))?;
    Ok(Some(Run { invocation, boot, started_at_us: from_sql(started), end }))
}

/// SQLite's integers are signed; microseconds since the epoch fit for 292,000 years.
pub(super) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
