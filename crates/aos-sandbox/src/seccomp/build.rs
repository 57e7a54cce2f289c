//! The policy of a step of a build: the agent's table with these differences.
//!
//! - Changes of ownership and of the process's users and groups answer success and do nothing, and
//!   so does making a device: only one user exists inside, and package managers insist. What they
//!   make belongs to uid 0 of the layer anyway. (Charliecloud does the same with seccomp.)
//! - A mode may have a set-user-id bit: dpkg creates each file with mode 0 and sets its mode
//!   afterwards, and a filter cannot take the bit off. The mounts are `nosuid`, the directory is in
//!   nobody's reach, and the bit is taken off before the step's changes are handed on.
//! - A family of sockets that is refused is refused as one that the kernel does not have.
//! - Files in memory may be executed, like all that a step writes.

use super::policy::Check::{DeviceMode, SocketFamily};
use super::policy::Row;
use super::policy::Verdict::{self, Allow, Check, Pretend};
use super::table::TABLE;

/// The table, made from the agent's when this program is compiled.
pub(super) static BUILD: [Row; TABLE.len()] = {
    let mut rows = [Row { number: 0, name: "", verdict: Allow }; TABLE.len()];
    let mut index = 0;
    while index < rows.len() {
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which checks it")]
        let row = TABLE[index];
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which checks it")]
        {
            rows[index] = Row { number: row.number, name: row.name, verdict: verdict(row) };
        }
        index += 1;
    }
    rows
};

const fn verdict(row: Row) -> Verdict {
    match row.number {
        // chown, fchown, lchown, fchownat
        92 | 93 | 94 | 260 => Pretend,
        // setuid, setgid, setreuid, setregid, setgroups, setresuid, setresgid, setfsuid, setfsgid
        105 | 106 | 113 | 114 | 116 | 117 | 119 | 122 | 123 => Pretend,
        // capset
        126 => Pretend,
        // mknod, mknodat
        133 => Check(DeviceMode(1)),
        259 => Check(DeviceMode(2)),
        // open, creat, chmod, fchmod, openat, fchmodat, fchmodat2
        2 | 85 | 90 | 91 | 257 | 268 | 452 => Allow,
        // socket, socketpair
        41 | 53 => Check(SocketFamily),
        // memfd_create
        319 => Allow,
        _ => row.verdict,
    }
}
