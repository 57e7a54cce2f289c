//! The JSON that `aos` prints: the fields of the D-Bus views, as plain values. What is absent there is absent
//! here. Fields are added, never renamed or removed.

use aos_client::{AgentView, PackageView};
use serde::Serialize;

/// One agent.
#[derive(Debug, Serialize)]
pub(crate) struct Agent<'a> {
    id: &'a str,
    reference: &'a str,
    digest: &'a str,
    state: &'a str,
    enabled: bool,
    desired: &'a str,
    lifecycle: &'a str,
    unit: &'a str,
    user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    main_pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invocation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_status: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exited_at_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_current: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_used: Option<u64>,
    capabilities: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    in_force: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl<'a> From<&'a AgentView> for Agent<'a> {
    fn from(view: &'a AgentView) -> Self {
        Self {
            id: &view.id,
            reference: &view.reference,
            digest: &view.digest,
            state: &view.state,
            enabled: view.enabled,
            desired: &view.desired,
            lifecycle: &view.lifecycle,
            unit: &view.unit,
            user: &view.user,
            uid: view.uid,
            main_pid: view.main_pid,
            invocation_id: view.invocation_id.as_deref(),
            result: view.result.as_deref(),
            exit_status: view.exit_status,
            started_at_us: view.started_at_us,
            exited_at_us: view.exited_at_us,
            memory_current: view.memory_current,
            disk_limit: view.disk_limit,
            disk_used: view.disk_used,
            workspace: view.workspace.as_deref(),
            capabilities: &view.capabilities,
            in_force: view.in_force.as_deref(),
            error: view.error.as_deref(),
        }
    }
}

/// One package.
#[derive(Debug, Serialize)]
pub(crate) struct Package<'a> {
    reference: &'a str,
    name: &'a str,
    version: &'a str,
    digest: &'a str,
    description: &'a str,
    lifecycle: &'a str,
    capabilities: &'a [String],
    size: u64,
    agents: &'a [String],
}

impl<'a> From<&'a PackageView> for Package<'a> {
    fn from(view: &'a PackageView) -> Self {
        Self {
            reference: &view.reference,
            name: &view.name,
            version: &view.version,
            digest: &view.digest,
            description: &view.description,
            lifecycle: &view.lifecycle,
            capabilities: &view.capabilities,
            size: view.size,
            agents: &view.agents,
        }
    }
}
