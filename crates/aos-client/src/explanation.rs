//! The JSON that `Explain` answers: for each layer of confinement what was asked and what is in force.

use serde::{Deserialize, Serialize};

/// The whole answer. Readers ignore fields that they do not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Agent id.
    pub agent: String,
    /// `name:version` of its package.
    pub reference: String,
    /// Its state, a word of `aos_core::state::AgentState`.
    pub state: String,
    /// The run that is explained: the current one, or the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<String>,
    /// The agent's own process; absent when nothing runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The kernel's release, from the launcher's report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// What Landlock offers and gave, from the launcher's report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landlock: Option<Landlock>,
    /// What it may do: what the next start gives it, and what the run that goes on was given.
    #[serde(default)]
    pub capabilities: Vec<CapabilityRow>,
    /// What the plan grants, one row for each capability and each thing that the package brings.
    pub grants: Vec<Grant>,
    /// The layers.
    pub layers: Vec<LayerRow>,
    /// Remarks, such as a report that is missing.
    pub notes: Vec<String>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRow {
    /// Its name, such as `seccomp`.
    pub layer: String,
    /// What was asked.
    pub asked: String,
    /// What is in force, in the words of `source`; empty when nothing runs.
    pub in_force: String,
    /// Whether that is what was asked; `None` when it was not checked because nothing runs.
    pub ok: Option<bool>,
    /// Why it was asked: `base` for what every agent has, else a limit or a capability.
    pub cause: String,
    /// Who says what is in force.
    pub source: Source,
}

/// Who says what is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Nobody: this is what the plan asks.
    Plan,
    /// The launcher, when the run began; its report is written under the agent's user.
    Launcher,
    /// The kernel, read now by the supervisor in `/proc`.
    Proc,
    /// The kernel, read now by the supervisor in the unit's control group.
    Cgroup,
    /// systemd's description of the unit.
    Systemd,
    /// The kernel, asked now by the supervisor about the file system.
    Filesystem,
}

/// What Landlock offers and gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landlock {
    /// The ABI of the kernel.
    pub kernel_abi: u32,
    /// The ABI whose rights are in force.
    pub effective_abi: u32,
    /// Rights of newer ABIs that this kernel does not have.
    pub missing: Vec<String>,
}

/// One capability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityRow {
    /// In canonical form.
    pub capability: String,
    /// Who holds the agent to it: `kernel: ...`, or `broker`.
    pub enforced_by: String,
    /// Whether the next start gives it.
    pub declared: bool,
    /// Whether the run that goes on has it; absent when none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<bool>,
}

/// One thing that is granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// `mount`, `landlock`, `execute`, `listen`.
    pub layer: String,
    /// What is granted, such as `/data read`.
    pub what: String,
    /// Why: a capability in canonical form, `package`, or `entrypoint`.
    pub cause: String,
}
