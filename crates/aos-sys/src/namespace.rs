//! Namespaces: making them, mapping one user into them, naming them.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open, readlinkat_raw};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Bytes of the longest link below `/proc/self/ns`: a kind's name and 20 digits, with room.
const LINK_BYTES: usize = 64;

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
    /// Other numbers than outside: of the user, and of the group.
    Other(u32, u32),
}

/// Maps one user and one group of the parent namespace into this one, and nothing else. The calling
/// process is in a new user namespace, dumpable, and has these very ids outside.
pub fn map_user(uid: u32, gid: u32, inside: Inside) -> io::Result<()> {
    let (inside_uid, inside_gid) = match inside {
        Inside::Same => (uid, gid),
        Inside::Zero => (0, 0),
        Inside::Other(inside_uid, inside_gid) => (inside_uid, inside_gid),
    };
    fs::write("/proc/self/uid_map", format!("{inside_uid} {uid} 1"))?;
    // A group map written without privilege demands that setgroups(2) is off.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", format!("{inside_gid} {gid} 1"))
}

/// The numbers by which `/proc` identifies the namespaces of the calling process, one for each of
/// [`Kind::ALL`].
pub fn identifiers() -> io::Result<[u64; Kind::ALL.len()]> {
    let directory = open("/proc/self/ns", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut numbers = [0; Kind::ALL.len()];
    for (number, kind) in numbers.iter_mut().zip(Kind::ALL) {
        // Of the form `net:[4026531840]`: reading the link needs no inode, unlike looking behind it.
        let mut space = [MaybeUninit::uninit(); LINK_BYTES];
        let (text, _) = readlinkat_raw(&directory, kind.name(), &mut space)?;
        *number = number_of(text).ok_or_else(|| io::Error::other("a namespace's link has no number"))?;
    }
    Ok(numbers)
}

/// Opens the calling process's namespace of a kind, so that another process can [`enter`] it.
pub fn own(kind: Kind) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/ns/{}", kind.name());
    Ok(open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Leaves the calling thread's network namespace for an open one.
pub fn enter_network(namespace: impl AsFd) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// The number in the text of a link below `/proc/self/ns`.
fn number_of(link: &[u8]) -> Option<u64> {
    let text = str::from_utf8(link).ok()?;
    text.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_numbers_are_those_of_the_namespaces_files() {
        for (kind, number) in Kind::ALL.into_iter().zip(identifiers().unwrap()) {
            let behind = fs::metadata(format!("/proc/self/ns/{}", kind.name())).unwrap();
            assert_eq!(number, behind.ino(), "{kind:?}");
        }
        for bad in ["", "net", "net:[", "net:[x]", "net:[1"] {
            assert_eq!(number_of(bad.as_bytes()), None, "{bad}");
        }
    }
}
