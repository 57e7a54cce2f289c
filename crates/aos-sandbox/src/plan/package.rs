//! What the package brings: its top entries, bound read-only, and what of them may be read.

use std::collections::BTreeSet;

use aos_core::config::RootKind;
use aos_core::path::{AbsolutePath, RelativePath};

use super::base::{OWN_TOP, USR_LINKS, known};
use super::{
    Access, Bind, BindAccess, CAUSE_PACKAGE, Links, Missing, Node, Part, PathRule, PlanError, Shape,
    TreeEntry,
};
use crate::rootfs::{EntryKind, RootfsEntry};

/// Directory names that hold programs, in `/`, `/usr` and `/usr/local`: read only by a right to
/// execute, since the dynamic loader runs what it can read.
const PROGRAM_DIRECTORIES: [&str; 5] = ["bin", "games", "libexec", "sbin", "local"];

/// The package's share of a plan.
pub(super) struct PackageParts {
    /// Its tree entries.
    pub(super) tree: Vec<TreeEntry>,
    /// Its Landlock rules.
    pub(super) rules: Vec<PathRule>,
    /// Names at the top of the agent's root that are the package's or the host's `/usr`.
    pub(super) provided: BTreeSet<String>,
}

/// Places the entries of a package's root.
pub(super) fn place(
    kind: RootKind,
    rootfs: &AbsolutePath,
    entries: &[RootfsEntry],
) -> Result<PackageParts, PlanError> {
    let mut parts = PackageParts { tree: Vec::new(), rules: Vec::new(), provided: BTreeSet::new() };
    if kind == RootKind::Host {
        parts.provided.insert("usr".to_owned());
        parts.provided.extend(USR_LINKS.iter().map(|(path, _)| path.trim_start_matches('/').to_owned()));
    }
    for entry in entries.iter().filter(|entry| entry.path.segments().count() == 1) {
        if !OWN_TOP.contains(&entry.path.as_str()) {
            parts.place_top(kind, rootfs, entry)?;
        }
    }
    for entry in entries {
        if is_readable(kind, entry) {
            parts.rules.push(read_rule(&entry.path)?);
        }
    }
    Ok(parts)
}

impl PackageParts {
    fn place_top(
        &mut self,
        kind: RootKind,
        rootfs: &AbsolutePath,
        entry: &RootfsEntry,
    ) -> Result<(), PlanError> {
        let name = entry.path.as_str();
        let source = rootfs.join(&entry.path).map_err(PlanError::PackageEntry)?;
        let path = inside(&entry.path)?;
        let is_directory = entry.kind == EntryKind::Directory;
        if kind == RootKind::Host && USR_LINKS.iter().any(|(link, _)| *link == path.as_str()) {
            return if is_directory { Err(PlanError::MergedUsr(path.to_string())) } else { Ok(()) };
        }
        let node = match &entry.kind {
            EntryKind::Directory if name == "etc" => union(vec![source], true),
            EntryKind::Directory if name == "usr" && kind == RootKind::Host => {
                union(vec![source, known("/usr")?], false)
            }
            EntryKind::Directory => bind(source, Shape::Directory),
            // Generated files come before a package's `/etc` that is not a directory.
            _ if name == "etc" => return Ok(()),
            EntryKind::File => bind(source, Shape::File),
            EntryKind::Symlink(to) => Node::Symlink { to: to.clone() },
        };
        // A grant below `/etc` means the host's file; the package's own are readable anyhow.
        if name != "etc" {
            self.provided.insert(name.to_owned());
        }
        self.tree.push(TreeEntry { path, node, cause: CAUSE_PACKAGE.to_owned() });
        Ok(())
    }
}

fn union(lower: Vec<AbsolutePath>, on_own: bool) -> Node {
    Node::Overlay { lower, on_own, missing: Missing::Error }
}

fn bind(source: AbsolutePath, shape: Shape) -> Node {
    Node::Bind(Bind { source, access: BindAccess::ReadExecute, shape, missing: Missing::Error })
}

fn inside(path: &RelativePath) -> Result<AbsolutePath, PlanError> {
    AbsolutePath::root().join(path).map_err(PlanError::PackageEntry)
}

fn read_rule(path: &RelativePath) -> Result<PathRule, PlanError> {
    Ok(PathRule {
        path: inside(path)?,
        part: Part::All,
        access: Access::Read,
        links: Links::Follow,
        missing: Missing::Error,
        cause: CAUSE_PACKAGE.to_owned(),
    })
}

/// Whether a rule on this entry lets the agent read it. Of `/usr` and `/usr/local` each entry
/// counts by itself, of `/usr/lib` too where it is laid over the host's; links lead to what has its
/// own rule.
fn is_readable(kind: RootKind, entry: &RootfsEntry) -> bool {
    if matches!(entry.kind, EntryKind::Symlink(_)) {
        return false;
    }
    let segments: Vec<&str> = entry.path.segments().collect();
    let programs = |name: &str| PROGRAM_DIRECTORIES.contains(&name);
    match segments.as_slice() {
        ["etc" | "usr"] => false,
        [top] => !OWN_TOP.contains(top) && !programs(top),
        ["usr", "lib"] => kind == RootKind::Own,
        ["usr", "lib", _] => kind == RootKind::Host,
        ["usr", name] | ["usr", "local", name] => !programs(name),
        _ => false,
    }
}
