//! Operations on a transactional workspace, as they travel: the operation's name with options, and an answer that
//! the supervisor has not read.

use std::os::fd::OwnedFd;

use aos_core::workspace::Operation;
use serde::{Deserialize, Serialize};
use zbus::Type;
use zbus::as_variant::optional;

/// Options of `Workspace`. Each belongs to one operation. Unknown keys are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
#[zbus(signature = "dict")]
#[serde(deny_unknown_fields)]
pub struct WorkspaceOptions {
    /// `diff`: with the text of files.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub patch: Option<bool>,
    /// `commit`: only these, below the workspace; all without it.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub paths: Option<Vec<String>>,
    /// `discard`: back to this snapshot; without it all changes go.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub to: Option<u32>,
    /// `snapshot`: a name for people.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
}

/// What came of an operation on a workspace.
#[derive(Debug)]
pub struct WorkspaceAnswer {
    /// Whether it was done.
    pub done: bool,
    /// A file with `aos_core::workspace::Answer` in JSON. It was written as the agent's user and read by nobody yet:
    /// bounded by `ANSWER_MAX_BYTES`, and with names that an agent chose.
    pub file: OwnedFd,
}

/// The name on the bus, and the options, of an operation.
#[must_use]
pub fn spelled(operation: &Operation) -> (&'static str, WorkspaceOptions) {
    let mut options = WorkspaceOptions::default();
    let name = match operation {
        Operation::Diff { patch } => {
            options.patch = Some(*patch);
            "diff"
        }
        Operation::Commit { paths } => {
            options.paths = Some(paths.clone());
            "commit"
        }
        Operation::Discard { to } => {
            options.to = *to;
            "discard"
        }
        Operation::Snapshot { name, .. } => {
            options.name.clone_from(name);
            "snapshot"
        }
        Operation::Snapshots => "snapshots",
        // The supervisor's own: it refuses the name.
        Operation::Checkpoint(_) => "checkpoint",
    };
    (name, options)
}
