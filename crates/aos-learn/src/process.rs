//! Reading of a process of the agent that waits for the recorder: its memory, its working directory,
//! its open files' names. By `/proc`, which asks the kernel whether this process may; nothing of the
//! agent's is opened but by the file that the kernel made of its memory.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;

use rustix::net::{SocketType, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::ask::Caller;

/// Bytes of a path with its closing zero: the kernel's `PATH_MAX`.
const PATH_BYTES: usize = 4096;
const PAGE_BYTES: u64 = 4096;
/// Bytes of `/proc/PID/status` that are read: its lines come to some 1,500.
const STATUS_BYTES: u64 = 16 << 10;
/// Characters of a program's name that are kept. The kernel has 15 bytes.
const NAME_CHARS: usize = 15;

/// A thread that waits.
pub(crate) struct Process {
    thread: u32,
    memory: Option<File>,
}

impl Process {
    /// The thread of a number. That it cannot be read shows when it is.
    pub(crate) fn new(thread: u32) -> Self {
        Self { thread, memory: File::open(format!("/proc/{thread}/mem")).ok() }
    }

    /// The name of the program: text that the agent chose, without characters that steer a terminal.
    pub(crate) fn name(&self) -> String {
        let text = fs::read(format!("/proc/{}/comm", self.thread)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let shown: String =
            text.trim_end_matches('\n').chars().filter(|c| !c.is_control()).take(NAME_CHARS).collect();
        if shown.is_empty() { "?".to_owned() } else { shown }
    }

    fn link(&self, what: &str) -> Option<Vec<u8>> {
        let path = fs::read_link(format!("/proc/{}/{what}", self.thread)).ok()?;
        Some(path.into_os_string().into_vec()).filter(|path| path.first() == Some(&b'/'))
    }

    /// The process that the thread belongs to.
    fn group(&self) -> Option<Pid> {
        let mut text = String::new();
        let file = File::open(format!("/proc/{}/status", self.thread)).ok()?;
        file.take(STATUS_BYTES).read_to_string(&mut text).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
        Pid::from_raw(line.trim().parse().ok()?)
    }
}

impl Caller for Process {
    fn text(&self, address: u64) -> Option<Vec<u8>> {
        let memory = self.memory.as_ref()?;
        let mut text = Vec::new();
        while text.len() < PATH_BYTES {
            let at = address.checked_add(u64::try_from(text.len()).ok()?)?;
            // To the end of a page: what is behind it may not be there.
            let room = usize::try_from(PAGE_BYTES - at % PAGE_BYTES).ok()?.min(PATH_BYTES - text.len());
            let mut part = vec![0; room];
            let count = memory.read_at(&mut part, at).ok().filter(|count| *count > 0)?;
            part.truncate(count);
            if let Some(end) = part.iter().position(|byte| *byte == 0) {
                part.truncate(end);
                text.extend(part);
                return Some(text);
            }
            text.extend(part);
        }
        // The kernel refuses a longer one.
        None
    }

    fn bytes(&self, address: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.memory.as_ref()?.read_exact_at(&mut bytes, address).ok()?;
        Some(bytes)
    }

    fn directory(&self) -> Option<Vec<u8>> {
        self.link("cwd")
    }

    fn descriptor(&self, number: i32) -> Option<Vec<u8>> {
        self.link(&format!("fd/{number}"))
    }

    fn is_stream(&self, number: i32) -> bool {
        let Some(process) = self.group().and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
            return false;
        };
        let socket = pidfd_getfd(&process, number, PidfdGetfdFlags::empty());
        socket.is_ok_and(|socket| sockopt::socket_type(&socket).is_ok_and(|kind| kind == SocketType::STREAM))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_process_is_read_by_its_number() {
        let own = Process::new(std::process::id());
        let text = std::ffi::CString::new("/srv/\u{e9}").unwrap();
        assert_eq!(own.text(text.as_ptr() as u64), Some(text.to_bytes().to_vec()));
        assert_eq!(own.bytes(text.as_ptr() as u64, 4), Some(b"/srv".to_vec()));
        let long = vec![b'x'; 3 * PATH_BYTES];
        assert_eq!(own.text(long.as_ptr() as u64), None);
        for nowhere in [0, 1, u64::MAX, u64::MAX - 4, 1 << 63] {
            assert_eq!((own.text(nowhere), own.bytes(nowhere, 8)), (None, None), "{nowhere:#x}");
        }
        assert_eq!(own.directory(), Some(std::env::current_dir().unwrap().into_os_string().into_vec()));
        let file = File::open("/usr").unwrap();
        assert_eq!(own.descriptor(file.as_raw_fd()), Some(b"/usr".to_vec()));
        assert_eq!(own.descriptor(-1), None);
        let stream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let datagram = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(own.is_stream(stream.as_raw_fd()) && !own.is_stream(datagram.as_raw_fd()));
        assert!(!own.is_stream(file.as_raw_fd()) && !own.name().is_empty());
        assert_eq!(Process::new(0).text(text.as_ptr() as u64), None);
    }
}
