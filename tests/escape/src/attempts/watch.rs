//! Attempts 15 and 24: what an agent could leave on the host's mounts, and what it could learn from
//! watching them. The neighbour outside executes programs of `/usr/bin` all the time.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{CWD, Mode, OFlags, chmodat, mknodat, openat};

use super::{Params, Refusal, Step, all_refused, c, part};
use crate::raw::{call3, text};

/// Longer than the neighbour waits between two programs, many times over.
const WATCHED: Duration = Duration::from_millis(600);
/// `F_NOTIFY` of linux/fcntl.h, and `DN_ACCESS | DN_MULTISHOT`.
const F_NOTIFY: usize = 1026;
const DN_ACCESS: usize = 0x8000_0001;

pub(crate) fn set_ids(params: &Params) -> Step {
    let mut parts = Vec::new();
    for directory in ["/workspace", "/tmp", params.writable.as_str()] {
        let path = Path::new(directory).join("set-id");
        let file = File::create(&path)?;
        for bits in [0o4755, 0o2755, 0o6755] {
            let mode = Mode::from_bits_retain(bits);
            parts.push(part(format!("fchmod {bits:o}"), rustix::fs::fchmod(&file, mode)));
            parts.push(part(format!("chmod {bits:o}"), rustix::fs::chmod(&path, mode)));
            parts.push(part(
                format!("fchmodat {bits:o}"),
                chmodat(CWD, &path, mode, rustix::fs::AtFlags::empty()),
            ));
            let other = path.with_extension("new");
            let create = OFlags::CREATE | OFlags::WRONLY;
            parts.push(part(format!("openat {bits:o}"), openat(CWD, &other, create, mode).map(drop)));
            let name = c(&other.display().to_string())?;
            let raw = usize::try_from(bits).unwrap_or_default();
            parts
                .push(part(format!("creat {bits:o}"), call3(libc::SYS_creat, text(&name), raw, 0).map(drop)));
            let regular = rustix::fs::FileType::RegularFile;
            parts.push(part(format!("mknodat {bits:o}"), mknodat(CWD, &other, regular, mode, 0)));
        }
    }
    all_refused(parts)
}

pub(crate) fn executable_mode(_: &Params) -> Step {
    fs::write("/workspace/mode", b"")?;
    Ok(rustix::fs::chmod("/workspace/mode", Mode::from_bits_retain(0o755))?)
}

/// A watch of the host's programs may be accepted; it must not tell anything.
pub(crate) fn watch_host(_: &Params) -> Step {
    let mut parts = Vec::new();
    for directory in ["/usr/bin", "/usr/lib/x86_64-linux-gnu", "/etc/ssl/certs"] {
        let watched =
            events(directory, WatchFlags::OPEN | WatchFlags::ACCESS | WatchFlags::CLOSE_NOWRITE, || Ok(()));
        parts.push(part(format!("inotify on {directory}"), watched));
    }
    let directory = openat(CWD, "/usr", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    let fd = usize::try_from(directory.as_raw_fd()).unwrap_or_default();
    parts.push(part("F_NOTIFY", call3(libc::SYS_fcntl, fd, F_NOTIFY, DN_ACCESS).map(drop)));
    all_refused(parts)
}

pub(crate) fn watch_own(_: &Params) -> Step {
    events("/workspace", WatchFlags::CREATE, || Ok(File::create("/workspace/watched").map(drop)?))
}

/// Succeeds when an event comes; fails with `EAGAIN` when none does.
fn events(directory: &str, flags: WatchFlags, act: impl FnOnce() -> Step) -> Step {
    let queue: OwnedFd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    inotify::add_watch(&queue, directory, flags)?;
    act()?;
    let mut queue = File::from(queue);
    let mut buffer = [0; 4096];
    let end = Instant::now() + WATCHED;
    loop {
        match queue.read(&mut buffer) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(Refusal::from(error)),
        }
    }
}
