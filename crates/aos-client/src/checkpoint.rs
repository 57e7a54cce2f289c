//! Checkpoints as they travel.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use zbus::Type;
use zbus::as_variant::{self, optional};

/// One checkpoint of an agent: what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
#[zbus(signature = "dict")]
pub struct CheckpointView {
    /// Agent id.
    #[serde(with = "as_variant")]
    pub agent: String,
    /// From 1, unique for each agent.
    #[serde(with = "as_variant")]
    pub number: u32,
    /// The name that it was given, unique for each agent.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// When it was made, microseconds since the epoch.
    #[serde(with = "as_variant")]
    pub at_us: u64,
    /// `asked`, or `replaced` for what a restore replaced.
    #[serde(with = "as_variant")]
    pub cause: String,
    /// `name:version` of the package.
    #[serde(with = "as_variant")]
    pub reference: String,
    /// Digest of the package's manifest. The package stays as long as the checkpoint.
    #[serde(with = "as_variant")]
    pub digest: String,
    /// What was wanted of the agent: `running` or `stopped`.
    #[serde(with = "as_variant")]
    pub desired: String,
    /// Its capabilities.
    #[serde(with = "as_variant")]
    pub capabilities: Vec<String>,
    /// What its run had been given, when that was something else.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub in_force: Option<Vec<String>>,
}

/// Options of `Checkpoint`. Unknown keys are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
#[zbus(signature = "dict")]
#[serde(deny_unknown_fields)]
pub struct CheckpointOptions {
    /// A name: letters, digits, `.`, `_` and `-`, beginning with a letter, at most 64.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// The processes, too.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub processes: Option<bool>,
}

/// What came of a request.
#[derive(Debug)]
pub struct CheckpointAnswer {
    /// Whether it was done.
    pub done: bool,
    /// The checkpoint that was made; of a restore, that which has what was replaced.
    pub number: u32,
    /// A file with `aos_core::workspace::Answer` in JSON, as [`crate::WorkspaceAnswer::file`].
    pub file: OwnedFd,
}
