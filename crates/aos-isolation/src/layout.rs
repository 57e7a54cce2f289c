//! From a plan, and what was found of its sources, to the root file system that a runtime is given: what is
//! made in an empty directory, and what is mounted over it. Pure.
//!
//! Each place of the plan has a number, its index in the plan's tree; what the host contributes to it is
//! prepared under that number before the runtime starts, with the flags of the plan on every mount.

use std::path::PathBuf;

use aos_sandbox::plan::{BindAccess, Identity, Node, SandboxPlan, TreeEntry};
use thiserror::Error;

/// What was found of the source of one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Nothing of the host is needed.
    Inside,
    /// The host lacks it, which the plan allows.
    Absent,
    /// A file.
    File,
    /// A directory, or a union of some.
    Directory,
    /// A symbolic link, repeated inside.
    Link(PathBuf),
    /// A small file's content, copied.
    Content(Vec<u8>),
}

/// Something in the root's own directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Below the root, without a leading `/`. Its parents are made with it.
    pub path: String,
    /// What it is.
    pub what: What,
}

/// What a place is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A directory.
    Directory,
    /// A file with this content.
    File(Vec<u8>),
    /// A symbolic link.
    Link(PathBuf),
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The place's number.
    pub index: usize,
    /// Where it is, inside.
    pub path: String,
    /// What is mounted.
    pub what: MountKind,
    /// The part of what was prepared that is shown; empty for all of it.
    pub part: String,
    /// The number of the place that it lies in; `None` if that is the root.
    pub inside: Option<usize>,
}

/// What is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// What was prepared of the host under the place's number.
    Host(BindAccess),
    /// A mount below one that was prepared, with the flags that it has: not every runtime brings such mounts
    /// along with the one above.
    Below {
        /// Nothing can be changed.
        read_only: bool,
        /// Devices do nothing.
        no_dev: bool,
        /// Nothing can be executed.
        no_exec: bool,
    },
    /// An empty file system in memory, never executable.
    Tmpfs {
        /// Bytes.
        size_bytes: u64,
        /// Files.
        inodes: u64,
    },
    /// Processes.
    Proc,
    /// Devices, prepared under the place's number, and terminals.
    Devices,
}

/// The root file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// In order: parents first.
    pub places: Vec<Place>,
    /// In order: what is below comes first.
    pub mounts: Vec<Mount>,
}

/// A plan with places that have no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// As many facts as places are needed.
    #[error("{0} places and another number of sources")]
    Facts(usize),
    /// A mount in a file system of the agent's own.
    #[error("{0} lies in a place where nothing can be mounted")]
    Unreachable(String),
}

impl Layout {
    /// Lays the plan out.
    pub fn new(plan: &SandboxPlan, facts: &[Fact], identity: &Identity) -> Result<Self, LayoutError> {
        if facts.len() != plan.tree.len() {
            return Err(LayoutError::Facts(plan.tree.len()));
        }
        let mut layout = Self::default();
        for (index, (entry, fact)) in plan.tree.iter().zip(facts).enumerate() {
            if *fact != Fact::Absent {
                layout.add(&plan.tree, index, entry, fact, identity)?;
            }
        }
        Ok(layout)
    }

    fn add(
        &mut self,
        tree: &[TreeEntry],
        index: usize,
        entry: &TreeEntry,
        fact: &Fact,
        identity: &Identity,
    ) -> Result<(), LayoutError> {
        let path = entry.path.as_str().trim_start_matches('/').to_owned();
        let above = self.mount_above(tree, entry);
        // A place in the root's own directory is also one in a union that has that directory on top.
        let is_own = match above.and_then(|above| tree.get(above)).map(|above| &above.node) {
            None | Some(Node::Devices) => true,
            Some(Node::Overlay { on_own, .. }) => *on_own,
            Some(_) => false,
        };
        if is_own {
            let what = match (&entry.node, fact) {
                (_, Fact::Link(to)) => What::Link(to.clone()),
                (Node::Symlink { to }, _) => What::Link(to.into()),
                (Node::Generated(file), _) => What::File(file.content(identity).into_bytes()),
                (_, Fact::Content(content)) => What::File(content.clone()),
                (_, Fact::File) => What::File(Vec::new()),
                _ => What::Directory,
            };
            self.places.push(Place { path: path.clone(), what });
        }
        let Some(what) = kind(entry, fact) else { return Ok(()) };
        // The devices' directory is made by us, so what lies in it is mounted like what lies in the root.
        let inside =
            above.filter(|above| !matches!(tree.get(*above).map(|one| &one.node), Some(Node::Devices)));
        let hides_all = |above: usize| {
            matches!(tree.get(above).map(|one| &one.node), Some(Node::Tmpfs { .. } | Node::Proc))
        };
        if inside.is_some_and(hides_all) {
            return Err(LayoutError::Unreachable(entry.path.to_string()));
        }
        self.mounts.push(Mount { index, path, what, part: String::new(), inside });
        Ok(())
    }

    /// The number of the nearest mount around a place, among those before it.
    fn mount_above(&self, tree: &[TreeEntry], entry: &TreeEntry) -> Option<usize> {
        let mounts = self.mounts.iter().filter_map(|mount| Some((mount.index, tree.get(mount.index)?)));
        mounts
            .filter(|(_, above)| above.path != entry.path && entry.path.is_within(&above.path))
            .max_by_key(|(_, above)| above.path.as_str().len())
            .map(|(index, _)| index)
    }
}

/// What of a place is a mount.
fn kind(entry: &TreeEntry, fact: &Fact) -> Option<MountKind> {
    match (&entry.node, fact) {
        (_, Fact::Link(_) | Fact::Content(_) | Fact::Absent) => None,
        (Node::Bind(bind), _) => Some(MountKind::Host(bind.access)),
        (Node::Overlay { .. }, _) => Some(MountKind::Host(BindAccess::ReadExecute)),
        (Node::Tmpfs { size_bytes, inodes }, _) => {
            Some(MountKind::Tmpfs { size_bytes: *size_bytes, inodes: *inodes })
        }
        (Node::Proc, _) => Some(MountKind::Proc),
        (Node::Devices, _) => Some(MountKind::Devices),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::tests::{facts, identity, plan};

    #[test]
    fn a_mount_in_a_mount_of_the_host_is_put_there() {
        let plan = plan();
        let layout = Layout::new(&plan, &facts(&plan), &identity()).unwrap();
        let find = |path: &str| layout.mounts.iter().find(|mount| mount.path == path).unwrap();
        assert_eq!(find("srv/data/out").inside, Some(find("srv/data").index));
        assert_eq!(find("dev/shm").inside, None);
        assert_eq!(find("usr").inside, None);
        let is_place = |path: &str| layout.places.iter().any(|place| place.path == path);
        assert!(is_place("srv/data") && !is_place("srv/data/out") && is_place("dev/shm"));
    }

    #[test]
    fn what_the_host_lacks_has_no_place() {
        let plan = plan();
        let mut facts = facts(&plan);
        let index = plan.tree.iter().position(|entry| entry.path.as_str() == "/srv/data").unwrap();
        facts[index] = Fact::Absent;
        let layout = Layout::new(&plan, &facts, &identity()).unwrap();
        assert!(layout.places.iter().all(|place| place.path != "srv/data"));
        assert_eq!(Layout::new(&plan, &[], &identity()), Err(LayoutError::Facts(plan.tree.len())));
    }
}
