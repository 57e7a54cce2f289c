//! What every agent has: `/etc`, `/proc`, `/dev`, `/tmp`, `/workspace`, the host's `/usr` beside a
//! package that builds on it, and the Landlock rules for these.

use aos_core::path::AbsolutePath;

use super::etc::GeneratedFile;
use super::{Access, CAUSE_BASE, Links, Missing, Node, Part, PathRule, PlanError, TreeEntry};

/// The workspace, inside.
pub(crate) const WORKSPACE: &str = "/workspace";

/// The agent's scratch space. It counts as the agent's memory.
const TMP_BYTES: u64 = 64 << 20;
/// Shared memory files.
const SHM_BYTES: u64 = 64 << 20;
/// Files in each of them; the kernel's memory for an inode is about 1 KiB.
const TMPFS_INODES: u64 = 16_384;

/// Top directories that are made for each agent: a package's own version of them is not shown.
pub(super) const OWN_TOP: [&str; 6] = ["dev", "proc", "run", "sys", "tmp", "workspace"];
/// The links into `/usr` of a Debian root.
pub(super) const USR_LINKS: [(&str, &str); 4] =
    [("/bin", "usr/bin"), ("/lib", "usr/lib"), ("/lib64", "usr/lib64"), ("/sbin", "usr/sbin")];

/// Parts of the host's `/usr` that are data and libraries. Everything else there is programs, or
/// directories that hold programs among other things (`/usr/lib/git-core`): a readable program
/// could be run by handing it to the dynamic loader, whatever Landlock says of executing it.
const USR_READABLE: [(&str, Option<&str>); 14] = [
    ("/usr/share", None),
    ("/usr/include", None),
    ("/usr/lib64", None),
    ("/usr/lib/x86_64-linux-gnu", None),
    ("/usr/lib", Some("python3")),
    ("/usr/lib/locale", None),
    ("/usr/lib/os-release", None),
    ("/usr/lib/ssl", None),
    ("/usr/lib/nodejs", None),
    ("/usr/lib/ruby", None),
    ("/usr/lib/tcltk", None),
    ("/usr/local/lib", Some("python3")),
    ("/usr/local/lib/x86_64-linux-gnu", None),
    ("/usr/local/share", None),
];

/// A path that is written in this file.
pub(super) fn known(path: &str) -> Result<AbsolutePath, PlanError> {
    path.parse().map_err(PlanError::PackageEntry)
}

fn entry(path: &str, node: Node) -> Result<TreeEntry, PlanError> {
    Ok(TreeEntry { path: known(path)?, node, cause: CAUSE_BASE.to_owned() })
}

/// The generated files of `/etc`.
pub(super) fn generated() -> Result<Vec<TreeEntry>, PlanError> {
    GeneratedFile::ALL
        .iter()
        .map(|(file, name)| entry(&format!("/etc/{name}"), Node::Generated(*file)))
        .collect()
}

/// The host's `/usr`, unless a union with the package's takes its place, and the links into it.
pub(super) fn host_usr(package_has_usr: bool) -> Result<Vec<TreeEntry>, PlanError> {
    let mut tree = Vec::new();
    if !package_has_usr {
        tree.push(host_directory("/usr", Missing::Error)?);
    }
    for (path, to) in USR_LINKS {
        tree.push(entry(path, Node::Symlink { to: to.to_owned() })?);
    }
    Ok(tree)
}

/// What programs of the host's `/usr` expect in `/etc`.
pub(super) fn host_etc() -> Result<Vec<TreeEntry>, PlanError> {
    let copy = |path: &str| entry(path, Node::Copy { source: known(path)?, missing: Missing::Skip });
    Ok(vec![
        host_directory("/etc/alternatives", Missing::Skip)?,
        copy("/etc/ld.so.cache")?,
        copy("/etc/localtime")?,
        host_directory("/etc/ssl/certs", Missing::Skip)?,
    ])
}

/// A directory of the host, as a union.
fn host_directory(path: &str, missing: Missing) -> Result<TreeEntry, PlanError> {
    entry(path, Node::Overlay { lower: vec![known(path)?], on_own: true, missing })
}

/// Processes, devices, memory and the workspace.
pub(super) fn own(workspace: Node) -> Result<Vec<TreeEntry>, PlanError> {
    Ok(vec![
        entry("/proc", Node::Proc)?,
        entry("/dev", Node::Devices)?,
        entry("/dev/shm", Node::Tmpfs { size_bytes: SHM_BYTES, inodes: TMPFS_INODES })?,
        entry("/tmp", Node::Tmpfs { size_bytes: TMP_BYTES, inodes: TMPFS_INODES })?,
        entry(WORKSPACE, workspace)?,
    ])
}

fn rule(path: &str, part: Part, access: Access, missing: Missing) -> Result<PathRule, PlanError> {
    let cause = CAUSE_BASE.to_owned();
    Ok(PathRule { path: known(path)?, part, access, links: Links::Follow, missing, cause })
}

/// The Landlock rules that every agent has.
pub(super) fn own_rules() -> Result<Vec<PathRule>, PlanError> {
    [
        ("/", Access::List),
        ("/dev", Access::Device),
        ("/dev/shm", Access::WriteOwn),
        ("/etc", Access::Read),
        ("/proc", Access::Read),
        ("/tmp", Access::WriteOwn),
        (WORKSPACE, Access::WriteOwn),
    ]
    .into_iter()
    .map(|(path, access)| rule(path, Part::All, access, Missing::Error))
    .collect()
}

/// The Landlock rules for the host's `/usr`.
pub(super) fn usr_rules() -> Result<Vec<PathRule>, PlanError> {
    USR_READABLE
        .into_iter()
        .map(|(path, prefix)| {
            let part = prefix.map_or(Part::All, |prefix| Part::Prefixed(prefix.to_owned()));
            rule(path, part, Access::Read, Missing::Skip)
        })
        .collect()
}
