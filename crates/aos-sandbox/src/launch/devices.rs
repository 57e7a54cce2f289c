//! What an agent has in `/dev`: the devices that have no effect outside the process that uses them, and the
//! links that programs expect.

/// A device that has no effect outside the process that uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name in `/dev`.
    pub name: &'static str,
    /// Its major number, which is 1 (memory) or 5 (terminal), and its minor number.
    pub number: (u32, u32),
}

/// The devices of an agent. Numbers from the kernel's admin-guide/devices.txt.
pub const DEVICES: [Device; 6] = [
    Device { name: "null", number: (1, 3) },
    Device { name: "zero", number: (1, 5) },
    Device { name: "full", number: (1, 7) },
    Device { name: "random", number: (1, 8) },
    Device { name: "urandom", number: (1, 9) },
    Device { name: "tty", number: (5, 0) },
];

/// The links of `/dev` that programs expect, each with its target.
pub const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// The directories of `/dev` that get mounts.
pub const DEVICE_DIRECTORIES: [&str; 2] = ["pts", "shm"];
