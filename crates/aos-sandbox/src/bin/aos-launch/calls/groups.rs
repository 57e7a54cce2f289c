//! Control groups for calls, below the unit's own, which systemd hands over to the agent's user (`Delegate=`):
//!
//! | group | holds |
//! |---|---|
//! | `agent` | the init and the agent, from the start |
//! | `launcher` | the launcher, from the first call on |
//! | `call-N` | one call |
//!
//! The kernel enables a controller below a group only when no process is in that group itself, so the launcher moves
//! at the first call: moving waits for the whole machine, which an agent that is never called does not pay. The init and
//! the calls are made in their groups, which does not wait. The unit's limits hold for all of them together.
//!
//! The cgroup namespace begins at the unit's group: the kernel lets the init start a process only in a group that
//! its namespace shows. No control group is in the agent's tree.
//! Formats: the kernel's admin-guide/cgroup-v2.rst.

use std::os::fd::{AsFd, OwnedFd};

use aos_sandbox::call::CallRequest;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, mkdirat, openat, unlinkat};
use rustix::io::{Errno, read, write};

use crate::cgroup;
use crate::error::LaunchError;

const AGENT: &str = "agent";
const LAUNCHER: &str = "launcher";
/// Bytes of a file of a control group that is read here: a few lines.
const FILE_BYTES: usize = 4096;

/// The unit's group.
#[derive(Debug)]
pub(crate) struct Groups {
    unit: OwnedFd,
    agent: OwnedFd,
    /// The controllers that calls have, once there was a call.
    controllers: Option<Controllers>,
}

/// The controllers of calls.
#[derive(Clone, Copy, Debug)]
struct Controllers {
    memory: bool,
    pids: bool,
}

/// The group of one call.
#[derive(Debug)]
pub(super) struct Group {
    name: String,
    directory: OwnedFd,
}

impl Groups {
    /// The group of this process, if it is the agent's user's to divide; otherwise why not.
    pub(crate) fn find() -> Result<Self, String> {
        let path = cgroup::own_group().map_err(|error: LaunchError| error.to_string())?;
        let failed = |what: &str, error: Errno| format!("{}{what}: {error}", path.display());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let unit = openat(CWD, &path, flags, Mode::empty()).map_err(|error| failed("", error))?;
        let owner = fstat(&unit).map_err(|error| failed("", error))?.st_uid;
        if owner != rustix::process::geteuid().as_raw() {
            return Err("the control group is not delegated to the agent's user".to_owned());
        }
        let agent = directory(&unit, AGENT).map_err(|error| failed("/agent", error))?;
        Ok(Self { unit, agent, controllers: None })
    }

    /// The group that the init is made in.
    pub(crate) const fn agent(&self) -> &OwnedFd {
        &self.agent
    }

    /// Whether a process of the agent was killed for lack of memory. Before the first call the agent's memory is
    /// accounted for in the unit's own group.
    pub(super) fn was_agent_out_of_memory(&self) -> bool {
        [(&self.agent, "memory.events"), (&self.unit, "memory.events.local")]
            .into_iter()
            .any(|(group, file)| get(group, file).is_ok_and(|text| has_kills(&text)))
    }

    /// Makes the group of a call, with its limits.
    pub(super) fn make(&mut self, number: u32, request: &CallRequest) -> Result<Group, String> {
        let controllers = self.controllers()?;
        let name = format!("call-{number}");
        mkdirat(&self.unit, &name, Mode::from_bits_retain(0o755))
            .map_err(|error| format!("cannot make a control group: {error}"))?;
        let made = self.limited(&name, controllers, request);
        if made.is_err() && unlinkat(&self.unit, &name, AtFlags::REMOVEDIR).is_err() {
            // It is empty and goes with the unit.
        }
        made
    }

    fn limited(&self, name: &str, has: Controllers, request: &CallRequest) -> Result<Group, String> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(&self.unit, name, flags, Mode::empty())
            .map_err(|error| format!("cannot open a control group: {error}"))?;
        if has.memory {
            // All of the call ends when one of its processes is killed for lack of memory.
            set(&directory, "memory.oom.group", 1)?;
        }
        for (file, controller, is_there, limit) in [
            ("memory.max", "memory", has.memory, request.memory_max_bytes),
            ("pids.max", "pids", has.pids, request.tasks_max),
        ] {
            match limit {
                Some(limit) if is_there => set(&directory, file, limit)?,
                Some(_) => {
                    return Err(format!(
                        "this machine's control groups do not have the controller {controller}"
                    ));
                }
                None => {}
            }
        }
        Ok(Group { name: name.to_owned(), directory })
    }

    /// Removes the group of a call when nothing is in it any more; whether it is gone.
    pub(super) fn remove(&self, group: &Group) -> bool {
        !matches!(unlinkat(&self.unit, &group.name, AtFlags::REMOVEDIR), Err(Errno::BUSY))
    }

    /// Enables what calls are limited by; at the first call.
    fn controllers(&mut self) -> Result<Controllers, String> {
        if let Some(controllers) = self.controllers {
            return Ok(controllers);
        }
        let failed = |what: &str, error: Errno| format!("{what}: {error}");
        let launcher = directory(&self.unit, LAUNCHER)
            .map_err(|error| failed("cannot make the launcher's control group", error))?;
        put(&launcher, "cgroup.procs", "0")
            .map_err(|error| failed("cannot move the launcher into its control group", error))?;
        let offered =
            get(&self.unit, "cgroup.controllers").map_err(|error| failed("cgroup.controllers", error))?;
        let enable = |name: &str| {
            offered.split_ascii_whitespace().any(|one| one == name)
                && put(&self.unit, "cgroup.subtree_control", &format!("+{name}")).is_ok()
        };
        let controllers = Controllers { memory: enable("memory"), pids: enable("pids") };
        self.controllers = Some(controllers);
        Ok(controllers)
    }
}

impl Group {
    /// The directory, for making a process in it.
    pub(super) const fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Ends all processes of the group, those that are being made among them.
    pub(super) fn kill(&self) -> Result<(), Errno> {
        put(&self.directory, "cgroup.kill", "1")
    }

    /// The most memory that it had.
    pub(super) fn memory_peak_bytes(&self) -> Option<u64> {
        get(&self.directory, "memory.peak").ok()?.trim_end().parse().ok()
    }

    /// Whether a process of it was killed for lack of memory.
    pub(super) fn was_out_of_memory(&self) -> bool {
        get(&self.directory, "memory.events").is_ok_and(|text| has_kills(&text))
    }
}

fn has_kills(events: &str) -> bool {
    events.lines().any(|line| {
        let count = line.strip_prefix("oom_kill ").or_else(|| line.strip_prefix("oom_group_kill "));
        count.is_some_and(|count| count != "0")
    })
}

/// Makes a group, unless it is there, and opens it.
fn directory(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    match mkdirat(parent, name, Mode::from_bits_retain(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    openat(parent, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Sets a limit and asks the kernel for it: it rounds down to whole pages, never up.
fn set(group: &OwnedFd, file: &str, limit: u64) -> Result<(), String> {
    put(group, file, &limit.to_string()).map_err(|error| format!("cannot set {file}: {error}"))?;
    let found = get(group, file).map_err(|error| format!("cannot read {file}: {error}"))?;
    match found.trim_end().parse::<u64>() {
        Ok(found) if found <= limit => Ok(()),
        _ => Err(format!("{file} is `{}`, {limit} was asked", found.trim_end())),
    }
}

fn put(group: &OwnedFd, file: &str, text: &str) -> Result<(), Errno> {
    let file = openat(group.as_fd(), file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    write(&file, text.as_bytes()).map(drop)
}

fn get(group: &OwnedFd, file: &str) -> Result<String, Errno> {
    let file = openat(group.as_fd(), file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = vec![0; FILE_BYTES];
    let length = read(&file, &mut bytes)?;
    bytes.truncate(length);
    String::from_utf8(bytes).map_err(|_| Errno::ILSEQ)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_and_nothing_else() {
        assert!(has_kills("low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n"));
        assert!(has_kills("oom_kill 0\noom_group_kill 1\n"));
        assert!(!has_kills("max 9\noom 2\noom_kill 0\noom_group_kill 0\n") && !has_kills(""));
    }
}
