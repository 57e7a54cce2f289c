//! Namespaces: making them, mapping one user into them, naming them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::thread::UnshareFlags;

/// The kinds of namespace that a process can leave, in the order in which `/proc` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Control groups: the root of what `/proc/self/cgroup` shows.
    Cgroup,
    /// System V and POSIX message queues, shared memory.
    Ipc,
    /// The mount tree.
    Mount,
    /// Interfaces, addresses, abstract sockets.
    Net,
    /// Process ids; for the children to come.
    Pid,
    /// User ids and capabilities.
    User,
    /// The host's name.
    Uts,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Cgroup, Self::Ipc, Self::Mount, Self::Net, Self::Pid, Self::User, Self::Uts];

    /// The name in `/proc/<pid>/ns/`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Ipc => "ipc",
            Self::Mount => "mnt",
            Self::Net => "net",
            Self::Pid => "pid",
            Self::User => "user",
            Self::Uts => "uts",
        }
    }

    const fn flag(self) -> UnshareFlags {
        match self {
            Self::Cgroup => UnshareFlags::NEWCGROUP,
            Self::Ipc => UnshareFlags::NEWIPC,
            Self::Mount => UnshareFlags::NEWNS,
            Self::Net => UnshareFlags::NEWNET,
            Self::Pid => UnshareFlags::NEWPID,
            Self::User => UnshareFlags::NEWUSER,
            Self::Uts => UnshareFlags::NEWUTS,
        }
    }
}

/// Leaves the namespaces of the given kinds for new ones, in one call: the user namespace among
/// them, if any, owns the others. All or nothing.
pub fn unshare(kinds: &[Kind]) -> io::Result<()> {
    let flags = kinds.iter().fold(UnshareFlags::empty(), |flags, kind| flags | kind.flag());
    // SAFETY: the danger of unshare is CLONE_FILES, which no kind maps to.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    Ok(())
}

/// What the one mapped user is inside a user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    /// The same number as outside.
    Same,
    /// Number 0.
    Zero,
}

/// Maps one user and one group of the parent namespace into this one, and nothing else. The calling
/// process is in a new user namespace, dumpable, and has these very ids outside.
pub fn map_user(uid: u32, gid: u32, inside: Inside) -> io::Result<()> {
    let line = |id: u32| match inside {
        Inside::Same => format!("{id} {id} 1"),
        Inside::Zero => format!("0 {id} 1"),
    };
    fs::write("/proc/self/uid_map", line(uid))?;
    // A group map written without privilege demands that setgroups(2) is off.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", line(gid))
}

/// The number by which `/proc` identifies a namespace of the calling process.
pub fn identifier(kind: Kind) -> io::Result<u64> {
    fs::metadata(format!("/proc/self/ns/{}", kind.name())).map(|metadata| metadata.ino())
}
