//! The file tree of a step of a build: a union of the layers below it, writable, with the step's own
//! file systems mounted in it.
//!
//! The bottom of the union is a file system in memory that holds a place for every mount, and the
//! few files that a root without them gets: so nothing that the launcher makes is ever in the upper
//! directory, hence in a layer. A place that a layer hides from the union (an earlier step removed
//! the directory) cannot be mounted on; the launch then fails and says so.
//!
//! The secrets' descriptor holds, for each secret of the plan and in any order: the length of the
//! name (one byte), the name, the length of the content (four bytes, little endian), the content.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use aos_core::path::AbsolutePath;
use aos_sandbox::launch::mounts::{Content, copy, new_tmpfs, union};
use aos_sandbox::launch::sources::{self, Source, open_host};
use aos_sandbox::plan::{Node, SandboxPlan, TreeEntry};
use aos_sys::mount::{Attributes, Reach, set_attributes};
use rustix::fs::{Mode, OFlags, StatVfsMountFlags, fchmod, fstatvfs, mkdirat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

use super::mounts::{attach, mount_devices, processes};
use super::places::{ignore_existing, make_devices, make_directory, make_parents, relative, write_file};
use super::{ProcSource, Tree, cover, enter, make_ungranted};
use crate::error::{Context, LaunchError, Layer, fail};

/// A place that every step has and nothing is written to.
const EMPTY: &str = "sys";
/// The home of uid 0, for a root that has none.
const HOME: &str = "root";
const HOME_MODE: Mode = Mode::RWXU;
/// `/dev` holds mount points and links only.
const DEVICES_BYTES: u64 = 1 << 20;
/// An empty directory, or one with the secrets of the largest plan.
const SMALL_INODES: u64 = 1024;
/// Bytes of all secrets: 64 of 64 KiB, which is the most that one may have.
const SECRETS_BYTES: u64 = 4 << 20;
/// Options of the union. In a user namespace overlayfs keeps its marks in `user.` attributes; nothing
/// is synchronised to the disk, since what a step wrote counts only when it is in a blob; the rest
/// is off because a layer has no form for it (Documentation/filesystems/overlayfs.rst).
const UNION_FLAGS: [&str; 2] = ["userxattr", "volatile"];
const UNION_OPTIONS: [(&str, &str); 3] = [("index", "off"), ("metacopy", "off"), ("xino", "off")];

/// Builds the tree on `memory`, an empty file system, and makes it this process's root.
pub(super) fn assemble(
    memory: &OwnedFd,
    plan: &SandboxPlan,
    proc_source: ProcSource,
    secrets: Option<File>,
) -> Result<Tree, LaunchError> {
    let secrets = secrets.map_or_else(|| Ok(BTreeMap::new()), read_secrets)?;
    let sources = sources::open_all(&plan.tree)?;
    let Some((first, rest)) = plan.tree.split_first() else {
        return fail(Layer::Plan, "the plan has no root");
    };
    let host = Host::open(first)?;
    let caches = open_caches(rest)?;
    make_places(memory, rest, sources.get(1..).unwrap_or_default())?;
    let ungranted = make_ungranted(memory)?;
    // First below, then the union on top of it: a directory of the union has to be in this mount
    // namespace.
    cover(memory)?;
    let root = host.union(memory)?;
    cover(&root)?;
    let from = From { empty: open_empty(memory)?, caches, secrets, proc_source };
    for (index, (entry, source)) in rest.iter().zip(sources.iter().skip(1)).enumerate() {
        mount(&root, entry, source, index, &from)?;
    }
    enter(&root)?;
    Ok(Tree { ungranted })
}

/// What mounts are made from.
struct From {
    /// An empty directory.
    empty: OwnedFd,
    /// The caches' directories, by the entries' places in the list.
    caches: BTreeMap<usize, OwnedFd>,
    secrets: BTreeMap<String, Vec<u8>>,
    proc_source: ProcSource,
}

/// An empty directory: a union of one directory alone is refused by the kernel.
fn open_empty(memory: &OwnedFd) -> Result<OwnedFd, LaunchError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    ignore_existing(mkdirat(memory, EMPTY, Mode::RWXU)).layer(Layer::Namespace, EMPTY)?;
    openat(memory, EMPTY, flags, Mode::empty()).layer(Layer::Namespace, EMPTY)
}

/// The directories of the host below and behind the root.
struct Host {
    lower: Vec<OwnedFd>,
    upper: OwnedFd,
    work: OwnedFd,
}

impl Host {
    fn open(entry: &TreeEntry) -> Result<Self, LaunchError> {
        let Node::BuildRoot { lower, upper, work } = &entry.node else {
            return fail(Layer::Plan, "the plan's first place is not the root");
        };
        Ok(Self {
            lower: lower.iter().map(open_one).collect::<Result<_, _>>()?,
            upper: open_one(upper)?,
            work: open_one(work)?,
        })
    }

    /// The union, with `bottom` below all.
    fn union(&self, bottom: &OwnedFd) -> Result<OwnedFd, LaunchError> {
        let what = "cannot make the union of the layers (the build's directory has to be on a file system that takes user attributes, such as ext4, xfs, btrfs or tmpfs, and not on another union)";
        self.make(bottom).layer(Layer::Namespace, what)
    }

    fn make(&self, bottom: &OwnedFd) -> Result<OwnedFd, Errno> {
        let path = |directory: &OwnedFd| format!("/proc/self/fd/{}", directory.as_raw_fd());
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for directory in self.lower.iter().chain([bottom]) {
            fsconfig_set_string(context.as_fd(), "lowerdir+", path(directory))?;
        }
        fsconfig_set_string(context.as_fd(), "upperdir", path(&self.upper))?;
        fsconfig_set_string(context.as_fd(), "workdir", path(&self.work))?;
        for flag in UNION_FLAGS {
            fsconfig_set_flag(context.as_fd(), flag)?;
        }
        for (name, value) in UNION_OPTIONS {
            fsconfig_set_string(context.as_fd(), name, value)?;
        }
        fsconfig_create(context.as_fd())?;
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)
    }
}

fn open_one(path: &AbsolutePath) -> Result<OwnedFd, LaunchError> {
    open_host(path).layer(Layer::Namespace, format!("cannot open {path}, without following links"))
}

/// The caches' directories, by the entries' places in the list.
fn open_caches(tree: &[TreeEntry]) -> Result<BTreeMap<usize, OwnedFd>, LaunchError> {
    let mut caches = BTreeMap::new();
    for (index, entry) in tree.iter().enumerate() {
        if let Node::Cache { source } = &entry.node {
            caches.insert(index, open_one(source)?);
        }
    }
    Ok(caches)
}

/// Makes the places in the bottom of the union, but for those in a file system of the step's own.
fn make_places(memory: &OwnedFd, tree: &[TreeEntry], sources: &[Source]) -> Result<(), LaunchError> {
    let what = |path: &str| format!("cannot make the place /{path}");
    ignore_existing(mkdirat(memory, HOME, HOME_MODE)).layer(Layer::Namespace, what(HOME))?;
    for (entry, source) in tree.iter().zip(sources) {
        let path = relative(&entry.path);
        if is_in_memory(&entry.path, tree) || matches!(source, Source::Absent) {
            continue;
        }
        make_parents(memory, path)?;
        match (&entry.node, source) {
            (_, Source::Link(to)) => {
                ignore_existing(symlinkat(to, memory, path)).layer(Layer::Namespace, what(path))?;
            }
            (_, Source::Copied(content)) => write_file(memory, path, content)?,
            (Node::Symlink { to }, _) => {
                ignore_existing(symlinkat(to.as_str(), memory, path)).layer(Layer::Namespace, what(path))?;
            }
            (Node::BuildFile(file), _) => write_file(memory, path, file.content().as_bytes())?,
            _ => make_directory(memory, path)?,
        }
    }
    Ok(())
}

/// Whether a place lies in a file system that is mounted for the step.
fn is_in_memory(path: &AbsolutePath, tree: &[TreeEntry]) -> bool {
    tree.iter().any(|entry| {
        let is_made = matches!(entry.node, Node::Tmpfs { .. } | Node::BuildTmpfs { .. } | Node::Devices);
        is_made && entry.path != *path && path.is_within(&entry.path)
    })
}

fn mount(
    root: &OwnedFd,
    entry: &TreeEntry,
    source: &Source,
    index: usize,
    from: &From,
) -> Result<(), LaunchError> {
    let path = relative(&entry.path);
    let what = || format!("{}: cannot mount {}", entry.cause, entry.path);
    let made = match (&entry.node, source) {
        (Node::Overlay { .. }, Source::Union(lower)) => {
            union(lower.iter().chain([&from.empty])).layer(Layer::Namespace, what())?
        }
        (Node::Tmpfs { size_bytes, inodes }, _) => {
            new_tmpfs(*size_bytes, *inodes, "1777", Content::Data).layer(Layer::Namespace, what())?
        }
        (Node::BuildTmpfs { size_bytes, inodes }, _) => {
            new_tmpfs(*size_bytes, *inodes, "1777", Content::Anything).layer(Layer::Namespace, what())?
        }
        (Node::Empty, _) => sealed(small(DEVICES_BYTES, entry)?, entry)?,
        (Node::Proc, _) => processes(from.proc_source)?,
        (Node::Devices, _) => return mount_new_devices(root, path, entry),
        (Node::Secrets { names }, _) => {
            make_directory(root, path)?;
            sealed(with_secrets(entry, names, &from.secrets)?, entry)?
        }
        (Node::Cache { .. }, _) => cached(entry, from.caches.get(&index))?,
        // In the memory of `/run`; all others are in the bottom of the union already.
        (Node::BuildFile(file), _) if path.starts_with("run/") => {
            make_parents(root, path)?;
            return write_file(root, path, file.content().as_bytes());
        }
        _ => return Ok(()),
    };
    attach(root, path, &made).layer(Layer::Namespace, format!("{} ({})", what(), why_hidden(entry)))
}

/// What can be the reason that a place is not there or not a directory.
fn why_hidden(entry: &TreeEntry) -> &'static str {
    match entry.node {
        Node::Cache { .. } => {
            "the directory is a link, or was removed by an earlier step: make it again there, or name another"
        }
        _ => "the layers have something else than a directory there",
    }
}

fn small(size_bytes: u64, entry: &TreeEntry) -> Result<OwnedFd, LaunchError> {
    new_tmpfs(size_bytes, SMALL_INODES, "0755", Content::Data)
        .layer(Layer::Namespace, format!("{}: cannot make {}", entry.cause, entry.path))
}

/// The mount, read-only from now on.
fn sealed(mount: OwnedFd, entry: &TreeEntry) -> Result<OwnedFd, LaunchError> {
    let attributes = Attributes { read_only: true, no_exec: true, no_dev: true, private: true };
    set_attributes(&mount, attributes, Reach::One)
        .layer(Layer::Namespace, format!("{}: cannot seal {}", entry.cause, entry.path))?;
    Ok(mount)
}

/// Devices on a file system of their own, read-only when they are in place.
fn mount_new_devices(root: &OwnedFd, path: &str, entry: &TreeEntry) -> Result<(), LaunchError> {
    let directory = small(DEVICES_BYTES, entry)?;
    attach(root, path, &directory)
        .layer(Layer::Namespace, format!("cannot mount {} ({})", entry.path, why_hidden(entry)))?;
    make_devices(root, path)?;
    mount_devices(root, path)?;
    sealed(directory, entry).map(drop)
}

/// A cache: writable, for programs too.
fn cached(entry: &TreeEntry, directory: Option<&OwnedFd>) -> Result<OwnedFd, LaunchError> {
    let what = || format!("{}: cannot copy the mount of the cache {}", entry.cause, entry.path);
    let Some(directory) = directory else { return fail(Layer::Namespace, what()) };
    let mount = copy(directory).layer(Layer::Namespace, what())?;
    let attributes = Attributes { no_dev: true, private: true, ..Attributes::default() };
    set_attributes(&mount, attributes, Reach::Tree).layer(Layer::Namespace, what())?;
    let flags = fstatvfs(&mount).layer(Layer::Namespace, what())?.f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) {
        return fail(Layer::Namespace, format!("the cache {} is on a read-only file system", entry.path));
    }
    Ok(mount)
}

/// A file system with a file for each name of the plan.
fn with_secrets(
    entry: &TreeEntry,
    names: &[String],
    secrets: &BTreeMap<String, Vec<u8>>,
) -> Result<OwnedFd, LaunchError> {
    let directory = small(SECRETS_BYTES, entry)?;
    for name in names {
        let Some(content) = secrets.get(name) else {
            return fail(Layer::Plan, format!("the caller gave no secret {name}"));
        };
        let what = || format!("cannot write the secret {name}");
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&directory, name.as_str(), flags, Mode::RUSR).layer(Layer::Namespace, what())?;
        fchmod(&file, Mode::RUSR).layer(Layer::Namespace, what())?;
        File::from(file).write_all(content).layer(Layer::Namespace, what())?;
    }
    Ok(directory)
}

/// Reads the secrets of the caller.
fn read_secrets(mut file: File) -> Result<BTreeMap<String, Vec<u8>>, LaunchError> {
    let what = "the inherited secrets";
    file.rewind().layer(Layer::Plan, what)?;
    let mut bytes = Vec::new();
    file.take(SECRETS_BYTES + 1).read_to_end(&mut bytes).layer(Layer::Plan, what)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > SECRETS_BYTES {
        return fail(Layer::Plan, format!("{what}: over {SECRETS_BYTES} bytes"));
    }
    let mut secrets = BTreeMap::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let Some((name, content, after)) = split_secret(rest) else {
            return fail(Layer::Plan, format!("{what}: cut short"));
        };
        secrets.insert(String::from_utf8_lossy(name).into_owned(), content.to_vec());
        rest = after;
    }
    Ok(secrets)
}

/// The first secret's name and content, and what follows.
fn split_secret(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (content, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    Some((name, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_whole_or_not_at_all() {
        let read = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            read_secrets(file)
        };
        let both = b"\x01a\x03\0\0\0xyz\x02bc\0\0\0\0";
        let secrets = read(both).unwrap();
        assert_eq!(secrets, BTreeMap::from([("a".into(), b"xyz".to_vec()), ("bc".into(), Vec::new())]));
        assert!(read(b"").unwrap().is_empty());
        for length in 1..both.len() {
            if length != 9 {
                assert_eq!(read(&both[..length]).unwrap_err().layer(), Layer::Plan, "{length}");
            }
        }
        assert_eq!(read(&vec![0; 5 << 20]).unwrap_err().layer(), Layer::Plan);
    }
}
