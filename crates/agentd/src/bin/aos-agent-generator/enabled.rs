//! Reading `/etc/aos/enabled`: one file per agent, `KEY=NUMBER` lines, all of it untrusted.

use std::io::{self, Read as _};
use std::path::Path;

use aos_core::id::AgentId;
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Most agents started at boot; more is a mistake or an attack on the boot.
pub(crate) const AGENTS_MAX: usize = 4096;
/// Most directory entries looked at.
const ENTRIES_MAX: usize = 4 * AGENTS_MAX;
/// Four lines of numbers need a tenth of this.
const FILE_MAX: u64 = 4096;

/// systemd's greatest weight; it ignores a line with more.
const IO_WEIGHT_MAX: u64 = 10_000;

/// The limits of one agent. `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes.
    pub(crate) memory_max: Option<u64>,
    /// Microseconds of CPU time per second.
    pub(crate) cpu_quota_per_sec_usec: Option<u64>,
    /// Processes and threads.
    pub(crate) tasks_max: Option<u64>,
    /// Seconds.
    pub(crate) runtime_max_sec: Option<u64>,
    /// 1 to 10000 (systemd.resource-control(5)).
    pub(crate) io_weight: Option<u64>,
}

/// One enabled agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Enabled {
    pub(crate) id: AgentId,
    pub(crate) limits: Limits,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnabledError {
    /// The folder cannot be read.
    #[error("cannot read the folder of enabled agents: {0}")]
    Folder(#[source] io::Error),
    /// There are more entries than the bound; the rest is ignored.
    #[error("more than {0} entries in the folder of enabled agents; the rest is ignored")]
    TooMany(usize),
    /// The name is not an agent id. It is not shown: it may hold anything.
    #[error("a file whose name is not an agent id is ignored")]
    Name,
    /// The file cannot be opened or read.
    #[error("agent {id} is not started: cannot read its file: {source}")]
    Io {
        /// The agent.
        id: AgentId,
        /// Why.
        source: io::Error,
    },
    /// The file is not a regular file, or is too large.
    #[error("agent {0} is not started: its file is not a regular file of at most {FILE_MAX} bytes")]
    Kind(AgentId),
    /// A line is not `KEY=NUMBER` with a known key that occurs once.
    #[error("agent {id} is not started: line {line} of its file is not a known KEY=NUMBER, or comes twice")]
    Line {
        /// The agent.
        id: AgentId,
        /// Counted from 1.
        line: usize,
    },
}

/// All enabled agents, sorted by id, with an error for each entry that is not used.
pub(crate) fn read_all(folder: &Path) -> Result<Vec<Result<Enabled, EnabledError>>, EnabledError> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = match rustix::fs::openat(CWD, folder, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(EnabledError::Folder(error.into())),
    };
    let (mut names, mut results) = (Vec::new(), Vec::new());
    for (count, entry) in Dir::read_from(&fd).map_err(|e| EnabledError::Folder(e.into()))?.enumerate() {
        let entry = entry.map_err(|e| EnabledError::Folder(e.into()))?;
        if count >= ENTRIES_MAX || names.len() >= AGENTS_MAX {
            results.push(Err(EnabledError::TooMany(AGENTS_MAX)));
            break;
        }
        match entry.file_name().to_str() {
            // The supervisor's temporary files, and `.` and `..`.
            Ok(name) if name.starts_with('.') => {}
            Ok(name) => match name.parse::<AgentId>() {
                Ok(id) => names.push(id),
                Err(_) => results.push(Err(EnabledError::Name)),
            },
            Err(_) => results.push(Err(EnabledError::Name)),
        }
    }
    names.sort();
    results.extend(names.into_iter().map(|id| read_one(&fd, id)));
    Ok(results)
}

fn read_one(folder: &rustix::fd::OwnedFd, id: AgentId) -> Result<Enabled, EnabledError> {
    // NONBLOCK: a fifo must not hold up the boot.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let io = |source: io::Error| EnabledError::Io { id: id.clone(), source };
    let file: std::fs::File =
        rustix::fs::openat(folder, id.as_str(), flags, Mode::empty()).map_err(|e| io(e.into()))?.into();
    let stat = rustix::fs::fstat(&file).map_err(|e| io(e.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(EnabledError::Kind(id));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(EnabledError::Kind(id));
    }
    match parse(&bytes) {
        Ok(limits) => Ok(Enabled { id, limits }),
        Err(line) => Err(EnabledError::Line { id, line }),
    }
}

/// The limits in a file's bytes, or the number of the first line that is not right. Empty lines and lines that
/// start with `#` are skipped.
pub(crate) fn parse(bytes: &[u8]) -> Result<Limits, usize> {
    let mut limits = Limits::default();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        parse_line(&mut limits, line).ok_or(index + 1)?;
    }
    Ok(limits)
}

fn parse_line(limits: &mut Limits, line: &[u8]) -> Option<()> {
    let (key, value) = str::from_utf8(line).ok()?.split_once('=')?;
    let slot = match key {
        "MemoryMax" => &mut limits.memory_max,
        "CPUQuotaPerSecUSec" => &mut limits.cpu_quota_per_sec_usec,
        "TasksMax" => &mut limits.tasks_max,
        "RuntimeMaxSec" => &mut limits.runtime_max_sec,
        "IOWeight" => &mut limits.io_weight,
        _ => return None,
    };
    // Digits only: `parse` alone would take a sign. Zero would be "no limit" or "never start" to systemd.
    if slot.is_some() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let most = if key == "IOWeight" { IO_WEIGHT_MAX } else { u64::MAX };
    *slot = Some(value.parse().ok().filter(|number| (1..=most).contains(number))?);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines() {
        let good =
            b"# limits\n\nMemoryMax=268435456\nCPUQuotaPerSecUSec=500000\nTasksMax=64\nRuntimeMaxSec=600\n";
        assert_eq!(
            parse(good).unwrap(),
            Limits {
                memory_max: Some(268_435_456),
                cpu_quota_per_sec_usec: Some(500_000),
                tasks_max: Some(64),
                runtime_max_sec: Some(600),
                io_weight: None,
            }
        );
        assert_eq!(parse(b"IOWeight=10000").unwrap().io_weight, Some(10_000));
        assert_eq!(parse(b"").unwrap(), Limits::default());
        for bad in [
            "MemoryMax=0",
            "MemoryMax=+1",
            "MemoryMax=-1",
            "MemoryMax= 1",
            "MemoryMax=1 ",
            "MemoryMax=1\r",
            "MemoryMax=",
            "MemoryMax",
            "memorymax=1",
            "MemoryMax=infinity",
            "IOWeight=10001",
            "IOWeight=0",
            "MemoryMax=99999999999999999999",
            "MemoryMax=1\nMemoryMax=2",
            "[Service]",
            "ExecStart=/bin/sh",
            "MemoryMax=1\u{0}",
            "MemoryMax=١",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert_eq!(parse(b"TasksMax=1\n\xff\n").unwrap_err(), 2);
    }

    #[test]
    fn hostile_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("good"), "TasksMax=1\n").unwrap();
        std::fs::write(path(".good.new"), "x").unwrap();
        std::fs::write(path("UPPER"), "").unwrap();
        std::fs::write(path("a;b"), "").unwrap();
        std::fs::write(path("big"), "#".repeat(5000)).unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        std::os::unix::fs::symlink("good", path("link")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("zero")).unwrap();
        rustix::fs::mknodat(CWD, path("fifo"), FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
        let results = read_all(dir.path()).unwrap();
        let good: Vec<_> = results.iter().flatten().map(|agent| agent.id.to_string()).collect();
        assert_eq!(good, ["good"]);
        assert_eq!(results.iter().filter(|result| result.is_err()).count(), 7);
    }

    #[test]
    fn the_folder_itself_must_not_be_a_link() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        assert!(read_all(&dir.path().join("link")).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(&bytes).map_or_else(|line| assert!(line >= 1), |_| ());
        }
    }
}
