//! Running a command in the sandbox of an agent that runs, as it travels.

use serde::{Deserialize, Serialize};
use zbus::Type;
use zbus::as_variant::optional;

/// Options of `Exec`. Unknown keys are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
#[zbus(signature = "dict")]
#[serde(deny_unknown_fields)]
pub struct ExecOptions {
    /// Variables beside the agent's, each `NAME=VALUE`.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub env: Option<Vec<String>>,
    /// The working directory, inside; the agent's without it.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub workdir: Option<String>,
    /// The command may do only this, each part of what the agent may.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub capabilities: Option<Vec<String>>,
    /// Most memory of the command's processes together, `64M`.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub memory: Option<String>,
    /// Most processes and threads of the command.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub tasks: Option<u64>,
    /// After this it is ended, `30s`.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub timeout: Option<String>,
}
