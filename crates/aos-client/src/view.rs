//! What travels over the bus as `a{sv}`: one agent, one package, the options of calls.
//!
//! A key that has no value is absent from the dictionary. Unknown keys are ignored by readers, so that a
//! newer supervisor works with an older client.

use serde::{Deserialize, Serialize};
use zbus::Type;
use zbus::as_variant::{self, optional};

/// One agent as the supervisor sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
#[zbus(signature = "dict")]
pub struct AgentView {
    /// Agent id, `[a-z0-9-]`, at most 27 characters.
    #[serde(with = "as_variant")]
    pub id: String,
    /// `name:version` of the package it runs.
    #[serde(with = "as_variant")]
    pub reference: String,
    /// Digest of the package's manifest, `sha256:<hex>`.
    #[serde(with = "as_variant")]
    pub digest: String,
    /// Observed state, a word of `aos_core::state::AgentState`.
    #[serde(with = "as_variant")]
    pub state: String,
    /// Whether the agent starts at boot, by `aos enable` or by `systemctl enable` of its unit.
    #[serde(with = "as_variant")]
    pub enabled: bool,
    /// Desired state: `running` or `stopped`.
    #[serde(with = "as_variant")]
    pub desired: String,
    /// `oneshot` or `persistent`.
    #[serde(with = "as_variant")]
    pub lifecycle: String,
    /// Main process of the unit; absent when there is none.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub main_pid: Option<u32>,
    /// systemd's invocation id of the current or last run, 32 hex digits; absent before the first run.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub invocation_id: Option<String>,
    /// systemd's `Result` of the last finished run: `success`, `exit-code`, `signal`, `timeout`, ...
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub result: Option<String>,
    /// Exit status, or signal number when `result` is `signal` or `core-dump`.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub exit_status: Option<i32>,
    /// Start of the current or last run, microseconds since the epoch.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub started_at_us: Option<u64>,
    /// End of the last finished run, microseconds since the epoch.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub exited_at_us: Option<u64>,
    /// Memory charged to the unit, bytes; absent when the controller is missing or nothing runs.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub memory_current: Option<u64>,
    /// Bytes on the disk that the agent may use at most; absent without a limit, and in lists and signals.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub disk_limit: Option<u64>,
    /// Bytes on the disk that it uses, as its limit counts them; absent where that cannot be told.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub disk_used: Option<u64>,
    /// The systemd unit, `aos-agent@ID.service`.
    #[serde(with = "as_variant")]
    pub unit: String,
    /// Numeric uid; absent before the first start.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub uid: Option<u32>,
    /// Unix user, `aos-ID`.
    #[serde(with = "as_variant")]
    pub user: String,
    /// Capabilities in canonical form.
    #[serde(with = "as_variant")]
    pub capabilities: Vec<String>,
    /// What the run that goes on was given, when `capabilities` was changed since and is not in force yet.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub in_force: Option<Vec<String>>,
    /// `persistent` or `transactional`; absent in lists and signals, and when the package cannot be read.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub workspace: Option<String>,
    /// What went wrong last, with a hint; absent when nothing did.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// One package in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
#[zbus(signature = "dict")]
pub struct PackageView {
    /// `name:version`.
    #[serde(with = "as_variant")]
    pub reference: String,
    /// Package name.
    #[serde(with = "as_variant")]
    pub name: String,
    /// Version, semver.
    #[serde(with = "as_variant")]
    pub version: String,
    /// Digest of the manifest.
    #[serde(with = "as_variant")]
    pub digest: String,
    /// Description from the Agentfile, may be empty.
    #[serde(with = "as_variant")]
    pub description: String,
    /// `oneshot` or `persistent`.
    #[serde(with = "as_variant")]
    pub lifecycle: String,
    /// Capabilities in canonical form.
    #[serde(with = "as_variant")]
    pub capabilities: Vec<String>,
    /// Bytes of the blobs in the store.
    #[serde(with = "as_variant")]
    pub size: u64,
    /// Ids of the agents that use it.
    #[serde(with = "as_variant")]
    pub agents: Vec<String>,
}

/// Options of `Run`. Absent limits are taken from the package.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
#[zbus(signature = "dict")]
#[serde(deny_unknown_fields)]
pub struct RunOptions {
    /// Restrict the agent to these capabilities, a subset of the package's.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub capabilities: Option<Vec<String>>,
    /// Memory limit in the Agentfile's notation, `256M`.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub memory: Option<String>,
    /// CPU limit, `50%`.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub cpu: Option<String>,
    /// Most tasks.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub tasks: Option<u64>,
    /// Longest run time, `10m`.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub runtime: Option<String>,
}

/// What `Collect` removed, or would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
#[zbus(signature = "dict")]
pub struct CollectedView {
    /// Packages, each `name@digest`.
    #[serde(with = "as_variant")]
    pub packages: Vec<String>,
    /// Bytes of blobs.
    #[serde(with = "as_variant")]
    pub bytes: u64,
}

/// Options of `Install`. Unknown keys are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
#[zbus(signature = "dict")]
#[serde(deny_unknown_fields)]
pub struct InstallOptions {
    /// The caller vouches for the package as built on this machine: it needs no signature, and polkit is asked for
    /// [`crate::names::ACTION_INSTALL_LOCAL`].
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub local: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use zbus::OwnedVariant;
    use zbus::wire::{LE, serialized::Context, to_bytes};

    pub(crate) fn sample() -> AgentView {
        AgentView {
            id: "hello".into(),
            reference: "hello:1.0.0".into(),
            digest: format!("sha256:{}", "0".repeat(64)),
            state: "exited".into(),
            enabled: false,
            desired: "stopped".into(),
            lifecycle: "oneshot".into(),
            main_pid: None,
            invocation_id: Some("0".repeat(32)),
            result: Some("success".into()),
            exit_status: Some(0),
            started_at_us: Some(1),
            exited_at_us: Some(2),
            memory_current: None,
            disk_limit: None,
            disk_used: None,
            unit: "aos-agent@hello.service".into(),
            uid: Some(1_879_113_728),
            user: "aos-hello".into(),
            capabilities: vec!["file_read: /data/**".into()],
            in_force: None,
            workspace: None,
            error: None,
        }
    }

    #[test]
    fn agent_round_trips_and_leaves_out_what_is_absent() {
        let context = Context::new(LE, 0);
        let bytes = to_bytes(context, &sample()).unwrap();
        let map: BTreeMap<String, OwnedVariant> = bytes.deserialize().unwrap().0;
        assert!(!map.contains_key("main_pid") && map.contains_key("uid"));
        let back: AgentView = bytes.deserialize().unwrap().0;
        assert_eq!(back, sample());
    }

    #[test]
    fn unknown_keys_of_an_agent_are_ignored() {
        let context = Context::new(LE, 0);
        let bytes = to_bytes(context, &sample()).unwrap();
        let mut map: BTreeMap<String, OwnedVariant> = bytes.deserialize().unwrap().0;
        map.insert("from_the_future".into(), OwnedVariant::try_from(zbus::Variant::from(1u32)).unwrap());
        let bytes = to_bytes(context, &map).unwrap();
        let back: AgentView = bytes.deserialize().unwrap().0;
        assert_eq!(back, sample());
    }

    #[test]
    fn unknown_options_are_refused() {
        let context = Context::new(LE, 0);
        let mut map: BTreeMap<String, OwnedVariant> = BTreeMap::new();
        let bytes = to_bytes(context, &map).unwrap();
        assert_eq!(bytes.deserialize::<RunOptions>().unwrap().0, RunOptions::default());
        map.insert("memroy".into(), OwnedVariant::try_from(zbus::Variant::from("1M")).unwrap());
        let bytes = to_bytes(context, &map).unwrap();
        assert!(bytes.deserialize::<RunOptions>().is_err());
        assert!(bytes.deserialize::<InstallOptions>().is_err());
    }
}
