//! Copying a tree as it is: contents with their holes, names of any bytes, links, hard links among themselves,
//! pipes, sockets, overlayfs's whiteouts and marks, attributes, permissions and times.
//!
//! What cannot be copied as it is ends the copy: a copy is whole or there is none. Three things are not kept, on
//! purpose: set-user-id and set-group-id bits; owners, since all becomes the agent's; and the mark by which overlayfs
//! remembers the file that another was made from, which is another one after a restore.
//!
//! The tree was made by an agent and may have any depth and any number of names. So it goes down one name at a time
//! and up by `..`, which has to lead to where it came from: two descriptors, and the names of directories that wait,
//! are all that is held. Files with several names are found again by a directory of links beside the copy.

use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use aos_core::workspace::NodeKind;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, chmodat, fchmod, fstat, linkat, mkdirat,
    mknodat, openat, openat2, readlinkat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::beneath;
use crate::content::{self, Marks};
use crate::error::WorkspaceError;
use crate::trash;

/// Bytes of names of directories whose turn comes. A tree with more is not copied.
const WAITING_MAX_BYTES: usize = 256 << 20;
/// Bytes of a path in a message; the end is what tells.
const SHOWN_MAX_BYTES: usize = 1024;
/// Where files with several names have one more while the copy is made.
const LINKS: &str = "links";

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Copied {
    /// Files, directories, links and so on.
    pub(crate) entries: u64,
    /// Bytes that the files take on the disk.
    pub(crate) bytes: u64,
}

/// Which directory it is.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(directory: &OwnedFd) -> Result<Self, Errno> {
        let stat = fstat(directory)?;
        Ok(Self { device: stat.st_dev, inode: stat.st_ino })
    }
}

/// A directory that was entered.
struct Level {
    name: CString,
    /// What it was when it was entered: reading changes its times.
    stat: Stat,
    from: Identity,
    to: Identity,
    /// Directories in it that wait.
    waiting: Vec<CString>,
}

/// A copy that is being made.
struct Copy<'a> {
    links: &'a OwnedFd,
    from: OwnedFd,
    to: OwnedFd,
    levels: Vec<Level>,
    waiting_bytes: usize,
    copied: Copied,
    /// Not taken along, in the root.
    hidden: Option<&'a CStr>,
}

/// Copies the directory `from` to the new name `name` in `place`; `hidden` is left out of its root.
pub(crate) fn copy(
    from: OwnedFd,
    place: &OwnedFd,
    name: &str,
    hidden: Option<&CStr>,
) -> Result<Copied, WorkspaceError> {
    let failed = || WorkspaceError::io("make a copy in", name);
    mkdirat(place, LINKS, Mode::RWXU).map_err(failed())?;
    let links = beneath::open_directory(place, Path::new(LINKS)).map_err(failed())?;
    mkdirat(place, name, Mode::RWXU).map_err(failed())?;
    let to = beneath::open_directory(place, Path::new(name)).map_err(failed())?;
    let mut copy = Copy {
        links: &links,
        from,
        to,
        levels: Vec::new(),
        waiting_bytes: 0,
        copied: Copied::default(),
        hidden,
    };
    copy.all(name)?;
    let copied = copy.copied;
    trash::empty(&links).map_err(failed())?;
    unlinkat(place, LINKS, AtFlags::REMOVEDIR).map_err(failed())?;
    Ok(copied)
}

impl Copy<'_> {
    fn all(&mut self, root: &str) -> Result<(), WorkspaceError> {
        let root = CString::new(root).unwrap_or_default();
        self.begin(root).map_err(|error| self.failed(None, error))?;
        self.hidden = None;
        while let Some(level) = self.levels.last_mut() {
            let next = level.waiting.pop();
            match next {
                Some(name) => {
                    self.waiting_bytes = self.waiting_bytes.saturating_sub(cost(&name));
                    self.enter(&name).map_err(|error| self.failed(Some(&name), error))?;
                    self.begin(name).map_err(|error| self.failed(None, error))?;
                }
                None => self.leave().map_err(|error| self.failed(None, error))?,
            }
        }
        Ok(())
    }

    /// Goes down into a directory of both trees.
    fn enter(&mut self, name: &CStr) -> Result<(), Errno> {
        let from = beneath::open_directory(&self.from, beneath::part(name))?;
        // Another user's could not be taken away when this copy is put in its place.
        if fstat(&from)?.st_uid != rustix::process::geteuid().as_raw() {
            return Err(Errno::PERM);
        }
        mkdirat(&self.to, name, Mode::RWXU)?;
        self.to = beneath::open_directory(&self.to, beneath::part(name))?;
        self.from = from;
        self.copied.entries += 1;
        Ok(())
    }

    /// Copies all that is in the directory but directories, which wait.
    fn begin(&mut self, name: CString) -> Result<(), Errno> {
        self.levels.push(Level {
            name,
            stat: fstat(&self.from)?,
            from: Identity::of(&self.from)?,
            to: Identity::of(&self.to)?,
            waiting: Vec::new(),
        });
        let mut waiting = Vec::new();
        for entry in Dir::read_from(&self.from)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") || self.hidden == Some(name) {
                continue;
            }
            let Some(stat) = beneath::look(&self.from, name)? else { continue };
            if beneath::kind(&stat) == NodeKind::Directory {
                self.waiting_bytes += cost(name);
                if self.waiting_bytes > WAITING_MAX_BYTES {
                    return Err(Errno::TOOBIG);
                }
                waiting.push(name.to_owned());
            } else {
                self.leaf(name, &stat).inspect_err(|_| self.blame(name))?;
            }
        }
        if let Some(level) = self.levels.last_mut() {
            level.waiting = waiting;
        }
        Ok(())
    }

    /// Ends a directory, and goes up.
    fn leave(&mut self) -> Result<(), Errno> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        content::copy_attributes(&self.from, &self.to, Marks::Kept)?;
        fchmod(&self.to, Mode::from_raw_mode(beneath::permissions(&level.stat)))?;
        content::set_times(&self.to, &level.stat)?;
        if let Some(above) = self.levels.iter().rev().nth(1) {
            let (from, to) = (up(&self.from)?, up(&self.to)?);
            if Identity::of(&from)? != above.from || Identity::of(&to)? != above.to {
                return Err(Errno::STALE);
            }
            (self.from, self.to) = (from, to);
        }
        self.levels.pop();
        Ok(())
    }

    /// Copies what is no directory.
    fn leaf(&mut self, name: &CStr, stat: &Stat) -> Result<(), Errno> {
        self.copied.entries += 1;
        let link = CString::new(format!("{:x}-{:x}", stat.st_dev, stat.st_ino)).unwrap_or_default();
        let is_shared = stat.st_nlink > 1;
        if is_shared && linkat(self.links, &link, &self.to, name, AtFlags::empty()).is_ok() {
            return Ok(());
        }
        match beneath::kind(stat) {
            NodeKind::File => self.file(name, stat)?,
            NodeKind::Symlink => {
                symlinkat(readlinkat(&self.from, name, Vec::new())?, &self.to, name)?;
                utimensat(&self.to, name, &content::times(stat), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            NodeKind::Fifo => self.node(name, stat, FileType::Fifo)?,
            NodeKind::Socket => self.node(name, stat, FileType::Socket)?,
            // Anybody may make it, and nothing can be reached by it.
            NodeKind::Device if beneath::is_whiteout(stat) => {
                self.node(name, stat, FileType::CharacterDevice)?;
            }
            NodeKind::Device | NodeKind::Directory => return Err(Errno::PERM),
        }
        if is_shared {
            match linkat(&self.to, name, self.links, &link, AtFlags::empty()) {
                // The name that stands there has as many names as it can: from now on, this one is meant.
                Err(Errno::EXIST) => {
                    unlinkat(self.links, &link, AtFlags::empty())?;
                    linkat(&self.to, name, self.links, &link, AtFlags::empty())?;
                }
                result => result?,
            }
        }
        Ok(())
    }

    fn file(&mut self, name: &CStr, stat: &Stat) -> Result<(), Errno> {
        let from = beneath::open_file(&self.from, name)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = File::from(openat(&self.to, name, flags, Mode::RUSR | Mode::WUSR)?);
        content::copy(&from, stat, &to, Marks::Kept)?;
        fchmod(&to, Mode::from_raw_mode(beneath::permissions(stat)))?;
        let blocks = u64::try_from(fstat(&to)?.st_blocks).unwrap_or(0);
        self.copied.bytes = self.copied.bytes.saturating_add(blocks.saturating_mul(512));
        Ok(())
    }

    fn node(&self, name: &CStr, stat: &Stat, kind: FileType) -> Result<(), Errno> {
        mknodat(&self.to, name, kind, Mode::RUSR | Mode::WUSR, 0)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.to, name, flags, Mode::empty())?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        chmodat(CWD, path, Mode::from_raw_mode(beneath::permissions(stat)), AtFlags::empty())?;
        utimensat(&self.to, name, &content::times(stat), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Notes a name as the end of the path of a failure.
    fn blame(&mut self, name: &CStr) {
        if let Some(level) = self.levels.last_mut() {
            level.waiting = vec![name.to_owned()];
        }
    }

    /// A failure at a name, or at what was blamed last.
    fn failed(&self, name: Option<&CStr>, why: Errno) -> WorkspaceError {
        let blamed = || self.levels.last().and_then(|level| level.waiting.last()).map(CString::as_c_str);
        let last = name.or_else(blamed);
        let parts = self.levels.iter().skip(1).map(|level| level.name.as_c_str()).chain(last);
        let mut path = Vec::new();
        for part in parts {
            path.push(b'/');
            path.extend_from_slice(part.to_bytes());
        }
        let cut = path.len().saturating_sub(SHOWN_MAX_BYTES);
        let path = OsString::from_vec(path.split_off(cut));
        WorkspaceError::Copy { path: crate::walk::shown(Path::new(&path)), why: explain(why) }
    }
}

fn cost(name: &CStr) -> usize {
    size_of::<CString>() + name.to_bytes_with_nul().len()
}

/// The directory above.
fn up(directory: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(directory, c"..", flags, Mode::empty(), ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS)
}

/// Why it cannot be copied, with what can be done.
fn explain(why: Errno) -> String {
    match why {
        Errno::PERM => "a device, or a directory of another user: it could not be put back".to_owned(),
        Errno::ACCESS => "it is closed to the agent's user".to_owned(),
        Errno::XDEV => "something is mounted there".to_owned(),
        Errno::NOSPC | Errno::DQUOT => {
            format!("{why}; free some space, or remove checkpoints (aos checkpoint --remove)")
        }
        why => beneath::reason(why),
    }
}
