//! The agent's workspace in a plan: a directory of the host, or a transaction over directories that stay as they
//! are. Also the layout of a folder of changes, which the launcher mounts and `aos-workspace` works on.
//!
//! # A folder of changes
//!
//! | name | what |
//! |---|---|
//! | `upper/` | what the agent changed since the newest snapshot, as overlayfs keeps it |
//! | `work/` | overlayfs's own |
//! | `snapshots/0001/`, `0002/`, ... | earlier `upper/`s, frozen; a greater number is nearer to the top |
//! | `snapshots/0001.json` | the snapshot's name and time |
//! | `intent.json` | an operation that was begun; while it is there, nothing is mounted |
//! | `trash/` | what is being deleted |
//! | `room` | some blocks that the launcher keeps for the kernel, where the disk is limited |
//!
//! Marks of overlayfs are in `user.overlay.` attributes (`userxattr`, Documentation/filesystems/overlayfs.rst): the
//! union is mounted in the agent's own user namespace, where `trusted.` ones cannot be written.

use aos_core::path::AbsolutePath;

use super::{Bind, BindAccess, Missing, Node, Shape};

/// The changes since the newest snapshot.
pub const UPPER: &str = "upper";
/// overlayfs's own directory, on the same file system.
pub const WORK: &str = "work";
/// The frozen layers.
pub const SNAPSHOTS: &str = "snapshots";
/// The operation that was begun.
pub const INTENT: &str = "intent.json";
/// A file that has nothing but a size.
pub const ROOM: &str = "room";
/// What is being deleted.
pub const TRASH: &str = "trash";
/// Most snapshots of one agent. With those that a fork shares, the kernel's limit of 500 layers
/// (`OVL_MAX_STACK`) is far.
pub const SNAPSHOTS_MAX: u32 = 100;
/// Most directories below the changes: a chain of forks shares the layers of all of its parents.
pub const LOWER_MAX: usize = 300;

/// The name of a snapshot's directory.
pub fn snapshot_name(number: u32) -> String {
    format!("{number:04}")
}

/// The number of a snapshot, if a name in [`SNAPSHOTS`] is one's directory.
pub fn snapshot_number(name: &str) -> Option<u32> {
    let number = name.parse().ok().filter(|number| (1..=9999).contains(number))?;
    (snapshot_name(number) == name).then_some(number)
}

/// A workspace whose changes are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction<'a> {
    /// Directories of the host that stay as they are, the topmost first: at least one.
    pub lower: &'a [AbsolutePath],
    /// The folder of changes.
    pub changes: &'a AbsolutePath,
}

impl Transaction<'_> {
    pub(super) fn node(&self) -> Node {
        Node::Transaction { lower: self.lower.to_vec(), changes: self.changes.clone() }
    }
}

/// The workspace as it is on the host, changed in place.
pub(super) fn direct(workspace: &AbsolutePath) -> Node {
    Node::Bind(Bind {
        source: workspace.clone(),
        access: BindAccess::Write,
        shape: Shape::Directory,
        missing: Missing::Error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{PlanError, PlanInput, ReadError, SandboxPlan, derive, derive_transaction};
    use crate::rootfs::{EntryKind, RootfsEntry};

    fn planned(lower: &[AbsolutePath], capability: &str) -> Result<SandboxPlan, PlanError> {
        let agent = serde_json::json!({
            "capabilities": [capability], "limits": {}, "name": "web", "version": "1.2.0", "root": "host",
            "run": {
                "entrypoint": ["/app/x"], "lifecycle": "oneshot", "workdir": "/workspace",
                "workspace": "transactional",
            },
        });
        let entry = RootfsEntry { path: "app".parse().unwrap(), kind: EntryKind::Directory };
        let input = PlanInput {
            agent: &aos_core::config::ResolvedAgent::from_json(agent.to_string().as_bytes()).unwrap(),
            id: &"web-1".parse().unwrap(),
            arguments: &[],
            rootfs: &"/r".parse().unwrap(),
            entries: &[entry],
            workspace: &"/w/web-1".parse().unwrap(),
        };
        // What keeps changes apart is never left out.
        assert!(derive(&input).is_err());
        derive_transaction(&input, &Transaction { lower, changes: &"/c/web-1".parse().unwrap() })
    }

    fn layers(count: usize) -> Vec<AbsolutePath> {
        (0..count).map(|number| format!("/l/{number}").parse().unwrap()).collect()
    }

    #[test]
    fn a_plan_has_one_writable_union_and_no_bind_of_the_workspace() {
        let plan = planned(&layers(3), "file_read: /srv/x").unwrap();
        let nodes: Vec<_> = plan
            .tree
            .iter()
            .filter(|entry| entry.path.as_str() == "/workspace")
            .map(|entry| &entry.node)
            .collect();
        assert_eq!(nodes, [&Node::Transaction { lower: layers(3), changes: "/c/web-1".parse().unwrap() }]);
        assert_eq!(SandboxPlan::parse(&plan.to_json().unwrap()).unwrap(), plan);
    }

    #[test]
    fn layers_are_bounded() {
        assert_eq!(
            planned(&layers(LOWER_MAX + 1), "file_read: /srv/x"),
            Err(PlanError::Layers(LOWER_MAX + 1))
        );
        let plan = planned(&[], "file_read: /srv/x").unwrap();
        assert!(matches!(plan.to_json(), Err(ReadError::Layers)));
    }

    #[test]
    fn no_grant_reaches_a_layer() {
        for capability in
            ["file_write: /c/web-1/upper/**", "file_read: /l/**", "file_read: /l/1/x", "exec: /w/web-1/x"]
        {
            assert!(planned(&layers(2), capability).is_err(), "{capability}");
        }
        assert!(planned(&layers(2), "file_read: /other/**").is_ok());
    }

    #[test]
    fn names_of_snapshots() {
        for number in [1, 12, 9999] {
            assert_eq!(snapshot_number(&snapshot_name(number)), Some(number));
        }
        for other in ["", "0", "0000", "1", "00001", "10000", "+001", "0001.json", "abcd", ".."] {
            assert_eq!(snapshot_number(other), None, "{other}");
        }
    }
}
