//! The part of the OCI runtime specification (1.0.2, `config.md` and `config-linux.md`) that is used.

use serde::Serialize;

use super::seccomp::Seccomp;

/// `config.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    pub(super) oci_version: &'static str,
    pub(super) process: Process,
    pub(super) root: Root,
    pub(super) hostname: String,
    pub(super) mounts: Vec<Mount>,
    pub(super) linux: Linux,
}

impl Config {
    /// The bytes of the file.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Process {
    pub(super) terminal: bool,
    pub(super) user: User,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) cwd: String,
    pub(super) capabilities: Capabilities,
    pub(super) no_new_privileges: bool,
    pub(super) rlimits: Vec<Rlimit>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The capabilities of the first process. An agent has none in any set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Capabilities {
    pub(super) bounding: Vec<&'static str>,
    pub(super) effective: Vec<&'static str>,
    pub(super) inheritable: Vec<&'static str>,
    pub(super) permitted: Vec<&'static str>,
    pub(super) ambient: Vec<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Rlimit {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) hard: u64,
    pub(super) soft: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Root {
    pub(super) path: String,
    pub(super) readonly: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Mount {
    pub(super) destination: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) source: String,
    pub(super) options: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Linux {
    pub(super) namespaces: Vec<Namespace>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) uid_mappings: Vec<IdMapping>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) gid_mappings: Vec<IdMapping>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seccomp: Option<Seccomp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) masked_paths: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) readonly_paths: Vec<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Namespace {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// An existing one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct IdMapping {
    #[serde(rename = "containerID")]
    pub(super) container_id: u32,
    #[serde(rename = "hostID")]
    pub(super) host_id: u32,
    pub(super) size: u32,
}
