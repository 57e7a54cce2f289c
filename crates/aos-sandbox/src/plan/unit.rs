//! Limits: of the unit, set by the supervisor, and of each process, set by the launcher.

use aos_core::config::{Isolation, Limits};
use serde::{Deserialize, Serialize};

use super::{Resource, Rlimit};

/// The launcher and the init that reaps for the agent are tasks of the unit and of the user too.
const LAUNCHER_TASKS: u64 = 2;
/// Threads of QEMU: its processors, its loop, and those that serve the shared files (64 at most).
const MACHINE_TASKS: u64 = 80;
/// Open files where the Agentfile says nothing: what a server of moderate size needs.
const OPEN_FILES_DEFAULT: u64 = 4096;
/// Processes and threads where the Agentfile says nothing: a compiler run fits, a fork bomb not.
const TASKS_DEFAULT: u64 = 4096;
/// The kernel's own default since 5.16.
const LOCKED_MEMORY_BYTES: u64 = 8 << 20;
/// With 1 byte no core file is written and, unlike with 0, no core handler is started (core(5)).
const CORE_BYTES: u64 = 1;

/// Limits in the units of systemd's D-Bus properties; `None` leaves the template's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitLimits {
    /// `MemoryMax`: bytes.
    pub memory_max_bytes: Option<u64>,
    /// `CPUQuotaPerSecUSec`: microseconds of CPU time in each second.
    pub cpu_quota_per_sec_usec: Option<u64>,
    /// `TasksMax`: processes and threads, the launcher and its init included.
    pub tasks_max: Option<u64>,
    /// `RuntimeMaxUSec`: microseconds.
    pub runtime_max_usec: Option<u64>,
    /// `IOWeight`: 1 to 10000; without a limit every unit has 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_weight: Option<u64>,
}

impl UnitLimits {
    /// The unit's limits of an Agentfile.
    pub fn of(limits: &Limits) -> Self {
        Self {
            memory_max_bytes: limits.memory.map(|size| size.bytes()),
            cpu_quota_per_sec_usec: limits.cpu.map(|quota| quota.usec_per_sec()),
            tasks_max: limits.tasks.map(|count| u64::from(count.get()) + LAUNCHER_TASKS),
            runtime_max_usec: limits.runtime.map(|span| span.usec()),
            io_weight: limits.io_weight.map(|weight| u64::from(weight.get())),
        }
    }

    /// The same with room for what an isolation itself runs. The agent's processes in a virtual machine are no
    /// tasks of the unit: there the limit of each process holds.
    #[must_use]
    pub fn with_room_for(self, isolation: Isolation) -> Self {
        match isolation {
            Isolation::Vm => {
                Self { tasks_max: self.tasks_max.map(|_| LAUNCHER_TASKS + MACHINE_TASKS), ..self }
            }
            _ => self,
        }
    }
}

/// The limits of each process.
pub(super) fn rlimits(limits: &Limits) -> Vec<Rlimit> {
    let open_files = limits.open_files.map_or(OPEN_FILES_DEFAULT, |count| u64::from(count.get()));
    let tasks = limits.tasks.map_or(TASKS_DEFAULT, |count| u64::from(count.get()));
    [
        (Resource::Core, CORE_BYTES),
        (Resource::OpenFiles, open_files),
        (Resource::Tasks, tasks + LAUNCHER_TASKS),
        (Resource::LockedMemory, LOCKED_MEMORY_BYTES),
        (Resource::Nice, 0),
        (Resource::RealTimePriority, 0),
    ]
    .map(|(resource, value)| Rlimit { resource, value })
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_room_for_qemu_and_nothing_else_changes() {
        let limits = Limits { tasks: Some("16".parse().unwrap()), ..Limits::default() };
        let unit = UnitLimits::of(&limits);
        assert_eq!(unit.tasks_max, Some(18));
        assert_eq!(unit.with_room_for(Isolation::Native), unit);
        let machine = unit.with_room_for(Isolation::Vm);
        assert_eq!(machine, UnitLimits { tasks_max: Some(82), ..unit });
        assert_eq!(UnitLimits::default().with_room_for(Isolation::Vm), UnitLimits::default());
    }
}
