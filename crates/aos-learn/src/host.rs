//! Looking at the host's files, as far as naming what an agent asks for takes it: whether something
//! is at a path, what kind, and where a link leads. Nothing that an agent names is opened for its
//! content; of programs that a plan grants, the first line is read.
//!
//! A look mounts nothing: a name below an automount that nothing is mounted on is not looked up. The
//! last name of a path that is opened with `O_PATH` alone mounts nothing either (open(2)).

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{
    CWD, Dir, FileType, FsWord, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat, openat2, readlinkat,
};
use rustix::io::Errno;

/// The kernel reads this much for a `#!` line (`BINPRM_BUF_SIZE`).
const HEAD_BYTES: u64 = 256;

/// The file system of automounts (linux/magic.h).
const AUTOFS: FsWord = 0x0187;
const LOOK_FLAGS: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const LOOK_RESOLVE: ResolveFlags = ResolveFlags::NO_SYMLINKS.union(ResolveFlags::NO_MAGICLINKS);
/// Links that are followed to say where a path leads: as many as the kernel follows.
const LINKS_MAX: usize = 40;
/// Names that are looked at to say where a path leads.
const NAMES_MAX: usize = 4096;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing.
    Missing,
    /// This user may not know.
    Closed,
    /// A directory.
    Directory,
    /// A regular file, with what tells it from others.
    File(Identity),
    /// A socket, pipe or device.
    Special,
    /// A symbolic link with its text.
    Link(PathBuf),
    /// A symbolic link is on the way.
    Behind,
    /// An automount is on the way, and to look further would mount it.
    Unmounted,
}

/// A file, whatever its name: device and inode.
pub(crate) type Identity = (u64, u64);

/// A file system, of this machine or of a test.
pub(crate) trait Files {
    /// Looks at a path without following any symbolic link.
    fn look(&self, path: &Path) -> Look;
    /// Where a path leads when links are followed; `None` when it leads nowhere.
    fn leads_to(&self, path: &Path) -> Option<PathBuf>;
    /// The first bytes of a program that a plan names; none when it cannot be read.
    fn head(&self, path: &Path) -> Vec<u8>;
}

/// This machine's files.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Where automounts are; `None` when that is not known, and every directory may be one.
    automounts: Option<Vec<PathBuf>>,
    /// The file system of automounts.
    kind: FsWord,
}

impl Host {
    /// The files as they are mounted now. An automount that comes later is not known: who makes one
    /// is root, and not the agent.
    pub(crate) fn new() -> Self {
        let table = fs::read("/proc/self/mountinfo").ok();
        Self { automounts: table.map(|table| automounts(&table)), kind: AUTOFS }
    }

    /// Opens a path to look at it, and mounts nothing.
    fn open(&self, path: &Path) -> Result<OwnedFd, Look> {
        let open = |at: &dyn std::os::fd::AsFd, path: &Path| {
            openat2(at, path, LOOK_FLAGS, Mode::empty(), LOOK_RESOLVE).map_err(|error| match error {
                Errno::LOOP => Look::Behind,
                Errno::ACCESS | Errno::PERM => Look::Closed,
                _ => Look::Missing,
            })
        };
        let is_below = |mount: &PathBuf| path != mount && path.starts_with(mount);
        if self.automounts.as_ref().is_some_and(|mounts| !mounts.iter().any(is_below)) {
            return open(&CWD, path);
        }
        let mut file = open(&CWD, Path::new("/"))?;
        for part in path.components() {
            match part {
                Component::Normal(name) if !self.is_automount(&file) => {
                    file = open(&file, Path::new(name)).map_err(|why| match why {
                        // Nothing is below a link that is not followed.
                        Look::Missing if is_link(&file) => Look::Behind,
                        why => why,
                    })?;
                }
                Component::RootDir => {}
                // Paths here go only down.
                _ => return Err(Look::Unmounted),
            }
        }
        Ok(file)
    }

    /// Whether a directory is one that mounts something when a name in it is looked up.
    fn is_automount(&self, file: &OwnedFd) -> bool {
        fstatfs(file).is_ok_and(|found| found.f_type == self.kind)
    }

    /// How many files are below a directory, [`COUNTED_MAX`] when there are more or it takes longer.
    /// Links are not followed, automounts stay as they are, and what cannot be listed is not counted.
    fn count(&self, directory: &Path, deadline: Instant) -> usize {
        let (mut count, mut seen) = (0, 0);
        let mut waiting = vec![directory.to_owned()];
        while let Some(directory) = waiting.pop() {
            let Ok(file) = self.open(&directory) else { continue };
            if self.is_automount(&file) {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let Ok(entries) = openat(&file, ".", flags, Mode::empty()).and_then(Dir::new) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name().to_bytes();
                if matches!(name, b"." | b"..") {
                    continue;
                }
                seen += 1;
                if seen > COUNTED_MAX || Instant::now() >= deadline {
                    return COUNTED_MAX;
                }
                if entry.file_type() == FileType::Directory {
                    waiting.push(directory.join(OsStr::from_bytes(name)));
                } else {
                    count += 1;
                }
            }
        }
        count
    }
}

fn is_link(file: &OwnedFd) -> bool {
    fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// The mount points of automounts in a table of mounts (proc_pid_mountinfo(5)).
fn automounts(table: &[u8]) -> Vec<PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    let mounts = lines.filter_map(|line| {
        let mut words = line.split(|byte| *byte == b' ');
        let point = words.nth(4)?;
        words.find(|word| *word == b"-")?;
        (words.next()? == b"autofs").then(|| unescaped(point))
    });
    mounts.collect()
}

/// A mount point whose blanks are written as `\040`.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\').and_then(|code| std::str::from_utf8(code).ok());
        let (byte, after) = match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => (byte, after.get(3..).unwrap_or_default()),
            None => (*first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    OsString::from_vec(bytes).into()
}

impl Files for Host {
    fn look(&self, path: &Path) -> Look {
        let file = match self.open(path) {
            Ok(file) => file,
            Err(why) => return why,
        };
        let Ok(stat) = fstat(&file) else { return Look::Missing };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Look::Directory,
            FileType::RegularFile => Look::File((stat.st_dev, stat.st_ino)),
            FileType::Symlink => readlinkat(&file, "", Vec::new())
                .map_or(Look::Missing, |text| Look::Link(OsStr::from_bytes(text.to_bytes()).into())),
            _ => Look::Special,
        }
    }

    fn leads_to(&self, path: &Path) -> Option<PathBuf> {
        let mut real = PathBuf::from("/");
        let mut waiting: Vec<OsString> = names(path);
        let mut links = 0;
        for _ in 0..NAMES_MAX {
            let Some(name) = waiting.pop() else { return Some(real) };
            if name == ".." {
                real.pop();
                continue;
            }
            let next = real.join(&name);
            // Links there are of processes, and not what their text says.
            if next.starts_with("/proc") {
                return None;
            }
            match self.look(&next) {
                Look::Link(to) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return None;
                    }
                    if to.is_absolute() {
                        real = PathBuf::from("/");
                    }
                    waiting.extend(names(&to));
                }
                Look::Directory | Look::File(_) | Look::Special => real = next,
                Look::Missing | Look::Closed | Look::Behind | Look::Unmounted => return None,
            }
        }
        None
    }

    fn head(&self, path: &Path) -> Vec<u8> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let mut head = Vec::new();
        if let Ok(file) = openat2(CWD, path, flags, Mode::empty(), resolve) {
            // What cannot be read has no line that is known.
            fs::File::from(file).take(HEAD_BYTES).read_to_end(&mut head).unwrap_or_default();
        }
        head
    }
}

/// The names of a path, the last first.
fn names(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    });
    let mut names: Vec<OsString> = names.collect();
    names.reverse();
    names
}

/// Entries below a directory that are counted; beyond it is "more", and so is what takes too long.
pub const COUNTED_MAX: usize = 10_000;
/// How long the files below one directory are counted.
const COUNT_TIME: Duration = Duration::from_secs(2);

/// How many files are below a directory, [`COUNTED_MAX`] at most. The agent named the directory: a
/// file system there may never answer, and nobody waits for it.
pub(crate) fn count_files(directory: &Path) -> usize {
    let (directory, deadline) = (directory.to_owned(), Instant::now() + COUNT_TIME);
    in_time(COUNT_TIME, move || Host::new().count(&directory, deadline)).unwrap_or(COUNTED_MAX)
}

/// What work on a thread of its own comes to; `None` when it is not done in time, and goes on unheard.
fn in_time<T: Send + 'static>(time: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (send, done) = sync_channel(1);
    // Nobody is left to hear it when it was given up.
    let work = move || send.send(work()).unwrap_or_default();
    thread::Builder::new().name("counter".to_owned()).spawn(work).ok()?;
    done.recv_timeout(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_is_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::write(root.join("d/e/f"), "x").unwrap();
        symlink("d", root.join("l")).unwrap();
        symlink("nowhere", root.join("n")).unwrap();
        let host = Host::new();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("s")).unwrap();
        assert_eq!(host.look(&root.join("d")), Look::Directory);
        assert!(matches!(host.look(&root.join("d/e/f")), Look::File(_)));
        assert_eq!(host.look(&root.join("l")), Look::Link("d".into()));
        assert_eq!(host.look(&root.join("l/e/f")), Look::Behind);
        assert_eq!(host.look(&root.join("s")), Look::Special);
        assert_eq!(host.look(&root.join("absent")), Look::Missing);
        assert_eq!(host.look(&root.join("d/e/f/g")), Look::Missing);
        assert_eq!(host.leads_to(&root.join("l/e/f")), Some(root.join("d/e/f")));
        assert_eq!(host.leads_to(&root.join("n")), None);
        assert_eq!(host.leads_to(Path::new("/proc/self/root/etc")), None);
        assert_eq!(count_files(&root), 4);
    }

    #[test]
    fn nothing_below_an_automount_is_looked_at() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("auto/d")).unwrap();
        fs::write(root.join("auto/f"), "x").unwrap();
        fs::write(root.join("f"), "x").unwrap();
        symlink("auto/f", root.join("l")).unwrap();
        let kind = fstatfs(fs::File::open(&root).unwrap()).unwrap().f_type;
        let late = Instant::now() + Duration::from_secs(60);
        let host = |kind| Host { automounts: Some(vec![root.join("auto")]), kind };
        let plain = Host::new();
        assert!(matches!(plain.look(&root.join("auto/f")), Look::File(_)));
        assert_eq!(plain.count(&root, late), 3);
        // Here the directory is on a file system of the kind that mounts.
        let auto = host(kind);
        assert_eq!(auto.look(&root.join("auto")), Look::Directory);
        assert!(matches!(auto.look(&root.join("f")), Look::File(_)));
        for below in ["auto/f", "auto/d", "auto/absent", "auto/d/x"] {
            assert_eq!(auto.look(&root.join(below)), Look::Unmounted, "{below}");
        }
        assert_eq!((auto.leads_to(&root.join("l")), auto.count(&root.join("auto"), late)), (None, 0));
        // Something is mounted on it: it is of another kind.
        let mounted = host(AUTOFS);
        assert!(matches!(mounted.look(&root.join("auto/f")), Look::File(_)));
        symlink("d", root.join("auto/l")).unwrap();
        assert_eq!(mounted.look(&root.join("auto/l")), Look::Link("d".into()));
        assert_eq!(mounted.look(&root.join("auto/l/x")), Look::Behind);
        assert_eq!(mounted.look(&root.join("auto/absent")), Look::Missing);
        assert_eq!(Host { automounts: None, kind: AUTOFS }.look(&root), Look::Directory);
    }

    #[test]
    fn automounts_are_found_in_the_table() {
        let table = b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            22 21 0:35 / /proc/x rw,relatime shared:9 master:1 - autofs systemd-1 rw,fd=29\n\
            23 21 0:36 / /mnt/a\\040b\\134c rw - autofs x rw\n24 21 0:37 / /autofs rw - nfs autofs rw\n";
        assert_eq!(automounts(table), [PathBuf::from("/proc/x"), PathBuf::from("/mnt/a b\\c")]);
    }

    #[test]
    fn counting_ends() {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("f"), "x").unwrap();
        assert_eq!(Host::new().count(scratch.path(), Instant::now()), COUNTED_MAX);
        let started = Instant::now();
        let slow = in_time(Duration::from_millis(50), || thread::sleep(Duration::from_secs(30)));
        assert!(slow.is_none() && started.elapsed() < Duration::from_secs(20));
        assert_eq!(in_time(Duration::from_secs(30), || 7), Some(7));
    }
}
