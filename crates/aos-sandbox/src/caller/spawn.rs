//! Starting `aos-launch` with its descriptors.

#![expect(clippy::disallowed_methods, reason = "this module starts aos-launch, and nothing else")]

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use aos_core::report::REPORT_MAX_BYTES;
use command_fds::{CommandFdExt, FdMapping};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::launch::options::User;

/// The number of the first descriptor that the launcher is given.
const FIRST: i32 = 3;

/// What the launcher takes by a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// The plan: a file.
    Plan,
    /// Where the report goes: a file.
    Report,
    /// The contents of a step's secrets: a file.
    Secrets,
    /// Where the listeners go: a Unix socket.
    Listeners,
    /// Where the record's listener goes: a Unix socket.
    Record,
}

impl Given {
    const fn option(self) -> &'static str {
        match self {
            Self::Plan => "--plan-fd",
            Self::Report => "--report-fd",
            Self::Secrets => "--secrets-fd",
            Self::Listeners => "--listener-socket",
            Self::Record => "--record-socket",
        }
    }
}

/// Starts the launcher in a process group of its own, without input, its output piped. `user` is for a caller
/// who is root. The descriptors are this process's own until the child has them.
pub fn spawn(launcher: &Path, user: Option<User>, given: Vec<(Given, OwnedFd)>) -> io::Result<Child> {
    let mut command = Command::new(launcher);
    command.env_clear().current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(User { uid, gid }) = user {
        command.args(["--uid", &uid.to_string(), "--gid", &gid.to_string()]);
    }
    let mut mappings = Vec::new();
    for ((what, parent_fd), child_fd) in given.into_iter().zip(FIRST..) {
        command.args([what.option(), &child_fd.to_string()]);
        mappings.push(FdMapping { parent_fd, child_fd });
    }
    command.fd_mappings(mappings).map_err(io::Error::other)?;
    command.spawn()
}

/// A file in memory, which nobody executes.
pub fn in_memory(name: &str, content: &[u8]) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL;
    let mut file = File::from(memfd_create(name, flags)?);
    file.write_all(content)?;
    Ok(file)
}

/// A file in memory with this content, for ever.
pub fn sealed_in_memory(name: &str, content: &[u8]) -> io::Result<File> {
    let file = in_memory(name, content)?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file)
}

/// Whether the launcher wrote its report: it does when every layer is in force and the program runs.
pub fn has_report(report: &mut File) -> io::Result<bool> {
    report.rewind()?;
    let mut bytes = Vec::new();
    let max = u64::try_from(REPORT_MAX_BYTES).unwrap_or(u64::MAX);
    report.take(max).read_to_end(&mut bytes)?;
    Ok(!bytes.is_empty())
}

/// The exit status; 128 and the signal's number for one that a signal ended, as in a shell and as of the
/// launcher itself.
#[must_use]
pub fn exit_status(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_file_stays_as_it_is() {
        let mut file = sealed_in_memory("test", b"plan").unwrap();
        assert!(file.write_all(b"x").is_err() && file.set_len(0).is_err());
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "plan");
        let mut open = in_memory("test", b"").unwrap();
        assert!(!has_report(&mut open).unwrap());
        open.write_all(b"{}").unwrap();
        assert!(has_report(&mut open).unwrap());
    }

    #[test]
    fn each_descriptor_has_its_option_and_its_number() {
        let plan = sealed_in_memory("test", b"the plan").unwrap();
        let report = in_memory("test", b"").unwrap();
        let given = vec![(Given::Record, report.into()), (Given::Plan, plan.into())];
        let user = User { uid: 7, gid: 8 };
        let child = spawn(Path::new("/bin/echo"), Some(user), given).unwrap();
        let said = child.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8(said.stdout).unwrap(),
            "--uid 7 --gid 8 --record-socket 3 --plan-fd 4\n"
        );
        assert!(spawn(Path::new("/nonexistent/aos-launch"), None, Vec::new()).is_err());
    }
}
