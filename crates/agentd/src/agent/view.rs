//! How an agent is shown: state, error, and the rest of the view.

use std::io;
use std::path::Path;

use aos_client::AgentView;
use aos_core::capability::CapabilitySet;
use aos_core::id::AgentId;
use aos_core::state::AgentState;

use super::decide::{Outcome, backoff_us};
use crate::db::AgentRecord;
use crate::enabled;
use crate::failure::chain;
use crate::files::{self, FileError};
use crate::settings::Places;
use crate::systemd::{Phase, UnitState};

/// The user record is far smaller.
const RECORD_MAX: usize = 16 * 1024;

/// What the task knows beside the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Activity {
    /// A start job is queued.
    pub(super) starting: bool,
    /// A stop job is queued.
    pub(super) stopping: bool,
    /// The last start was given up before there was a run.
    pub(super) start_failed: bool,
}

/// The state in one word.
pub(super) fn state(record: &AgentRecord, seen: &UnitState, activity: Activity) -> AgentState {
    if record.removing.is_some() {
        return AgentState::Removing;
    }
    match seen.phase {
        Phase::Activating => AgentState::Starting,
        Phase::Active if activity.stopping => AgentState::Stopping,
        Phase::Active if seen.freezer.is_frozen() => AgentState::Paused,
        Phase::Active => AgentState::Running,
        Phase::Deactivating => AgentState::Stopping,
        Phase::Inactive | Phase::Failed | Phase::Maintenance if activity.starting => AgentState::Starting,
        Phase::Inactive | Phase::Failed | Phase::Maintenance => {
            match (activity.start_failed, outcome(record)) {
                (true, _) | (false, Some(Outcome::Failure)) => AgentState::Failed,
                (false, Some(Outcome::Success)) => AgentState::Stopped,
                (false, None) => AgentState::Created,
            }
        }
    }
}

/// How the last run ended.
pub(super) fn outcome(record: &AgentRecord) -> Option<Outcome> {
    let end = record.run.as_ref()?.end.as_ref()?;
    Some(if end.result.is_success() { Outcome::Success } else { Outcome::Failure })
}

/// The whole view.
pub(super) fn view(record: &AgentRecord, seen: &UnitState, activity: Activity, disk: &OnDisk) -> AgentView {
    let state = state(record, seen, activity);
    let run = record.run.as_ref();
    let end = run.and_then(|run| run.end.as_ref());
    AgentView {
        id: record.id.to_string(),
        reference: record.spec.reference.to_string(),
        digest: record.spec.digest.to_string(),
        state: state.to_string(),
        enabled: disk.enabled || seen.unit_file_enabled,
        desired: record.target.shown().to_owned(),
        lifecycle: record.spec.lifecycle.to_string(),
        main_pid: (seen.main_pid != 0 && state.is_active()).then_some(seen.main_pid),
        invocation_id: run.map(|run| run.invocation.to_string()),
        result: end.map(|end| end.result.to_string()),
        exit_status: end.map(|end| end.status),
        started_at_us: run.map(|run| run.started_at_us),
        exited_at_us: end.and_then(|end| end.at_us),
        memory_current: if state.is_active() { seen.memory_bytes } else { None },
        disk_limit: None,
        disk_used: None,
        unit: record.id.unit_name(),
        uid: disk.uid,
        user: record.id.user_name(),
        capabilities: record.spec.capabilities.to_lines(),
        in_force: record.in_force.as_ref().filter(|_| state.is_active()).map(CapabilitySet::to_lines),
        workspace: None,
        error: error(record, disk),
    }
}

/// What went wrong last, and when it is tried again.
fn error(record: &AgentRecord, disk: &OnDisk) -> Option<String> {
    let troubles: Vec<&str> = record.error.iter().chain(&disk.trouble).map(String::as_str).collect();
    let error = (!troubles.is_empty()).then(|| troubles.join("; "));
    if record.retry_at_us.is_none() {
        return error;
    }
    let wait_s = backoff_us(record.failures) / 1_000_000;
    let retry = format!("failure {} in a row, started again {wait_s} s after it", record.failures);
    Some(error.map_or(retry.clone(), |error| format!("{error}; {retry}")))
}

/// What the disk says about the agent, beside its record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OnDisk {
    /// Its file is among those that start at boot.
    pub(super) enabled: bool,
    /// From its user record; `None` before its first start, and when the record is damaged.
    pub(super) uid: Option<u32>,
    /// Why the user record says nothing, although it is there.
    pub(super) trouble: Option<String>,
}

/// Reads what the disk says. Blocking.
pub(super) fn on_disk(places: &Places, id: &AgentId) -> OnDisk {
    let (uid, trouble) = match uid(&places.userdb, id) {
        Ok(uid) => (uid, None),
        Err(error) => (None, Some(chain(&error))),
    };
    OnDisk { enabled: enabled::is_enabled(&places.enabled, id), uid, trouble }
}

/// The agent's uid from its user record; `None` without a record, which is so before its first start.
fn uid(userdb: &Path, id: &AgentId) -> Result<Option<u32>, FileError> {
    #[derive(serde::Deserialize)]
    struct User {
        uid: u32,
    }
    let path = userdb.join(format!("{}.user", id.user_name()));
    let bytes = match files::read_bounded(&path, RECORD_MAX) {
        Err(error) if error.is_missing() => return Ok(None),
        read => read?,
    };
    let user: User = serde_json::from_slice(&bytes).map_err(|error| {
        FileError::new("understand", &path, io::Error::new(io::ErrorKind::InvalidData, error))
    })?;
    Ok(Some(user.uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_user_record_is_not_an_absent_one() {
        let dir = tempfile::tempdir().unwrap();
        let id: AgentId = "web".parse().unwrap();
        let write = |text: &str| std::fs::write(dir.path().join("aos-web.user"), text).unwrap();
        assert_eq!(uid(dir.path(), &id).unwrap(), None);
        write(r#"{"userName":"aos-web","uid":1879113728}"#);
        assert_eq!(uid(dir.path(), &id).unwrap(), Some(1_879_113_728));
        for damaged in ["", "{}", "{\"uid\":-1}", "{\"uid\":1"] {
            write(damaged);
            let error = chain(&uid(dir.path(), &id).unwrap_err());
            assert!(error.contains("aos-web.user"), "{error}");
        }
        std::fs::remove_file(dir.path().join("aos-web.user")).unwrap();
        std::fs::create_dir(dir.path().join("aos-web.user")).unwrap();
        assert!(uid(dir.path(), &id).is_err());
    }
}
