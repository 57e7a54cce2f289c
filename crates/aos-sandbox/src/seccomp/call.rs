//! The policies around calls ([`crate::call`]): that of a call with fewer capabilities than its agent, and those of
//! the two processes that serve calls.

use super::policy::Check::{PairStream, SendFlags, SocketStream};
use super::policy::Verdict::{self, Allow, Check};
use super::policy::{Row, allowed};
use super::table::TABLE;

/// The agent's table without Unix sockets and datagrams. A narrower call shares the agent's folders and its loopback,
/// where a process of the agent may listen: over a Unix socket it could hand out what it has open, and Landlock
/// before ABI 10 has no rule for datagrams. A pair of streams that are connected to each other reaches nobody; one of
/// datagrams can send to others.
pub(super) static NARROWED: [Row; TABLE.len()] = differing(&[
    (41, Check(SocketStream)),
    // sendto, sendmsg
    (44, Check(SendFlags(3))),
    (46, Check(SendFlags(2))),
    // socketpair
    (53, Check(PairStream)),
    // sendmmsg
    (307, Check(SendFlags(3))),
]);

/// The init that serves calls: what a call may do, since its filter stays in force for the calls, and what making
/// the sandbox around one takes.
pub(super) static CALLER: [Row; TABLE.len()] = differing(&[
    // setrlimit and prlimit64: the limits of a core file, too
    (160, Allow),
    (302, Allow),
    // clone3: into a control group
    (435, Allow),
    // openat2: the paths of rules
    (437, Allow),
]);

/// What the launcher needs that serves calls: to wait, to pass requests on, to make control groups in the one that
/// it was given, and to remove them.
pub(super) static LAUNCHER: &[Row] = &[
    allowed(0, "read"),
    allowed(1, "write"),
    allowed(3, "close"),
    allowed(5, "fstat"),
    allowed(7, "poll"),
    allowed(9, "mmap"),
    allowed(11, "munmap"),
    allowed(12, "brk"),
    allowed(13, "rt_sigaction"),
    allowed(14, "rt_sigprocmask"),
    allowed(15, "rt_sigreturn"),
    allowed(25, "mremap"),
    allowed(28, "madvise"),
    allowed(39, "getpid"),
    allowed(44, "sendto"),
    allowed(46, "sendmsg"),
    allowed(47, "recvmsg"),
    allowed(55, "getsockopt"),
    allowed(60, "exit"),
    allowed(61, "wait4"),
    allowed(62, "kill"),
    allowed(72, "fcntl"),
    allowed(128, "rt_sigtimedwait"),
    allowed(131, "sigaltstack"),
    allowed(202, "futex"),
    allowed(219, "restart_syscall"),
    allowed(228, "clock_gettime"),
    allowed(231, "exit_group"),
    allowed(257, "openat"),
    allowed(258, "mkdirat"),
    allowed(262, "newfstatat"),
    allowed(263, "unlinkat"),
    allowed(271, "ppoll"),
    allowed(289, "signalfd4"),
    allowed(293, "pipe2"),
];

/// The agent's table with other verdicts for some numbers, made when this program is compiled.
const fn differing(changes: &[(u32, Verdict)]) -> [Row; TABLE.len()] {
    let mut rows = [Row { number: 0, name: "", verdict: Allow }; TABLE.len()];
    let mut index = 0;
    while index < rows.len() {
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which checks it")]
        let row = TABLE[index];
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which checks it")]
        {
            rows[index] = Row {
                number: row.number,
                name: row.name,
                verdict: changed(changes, row.number, row.verdict),
            };
        }
        index += 1;
    }
    rows
}

const fn changed(changes: &[(u32, Verdict)], number: u32, usual: Verdict) -> Verdict {
    let mut index = 0;
    while index < changes.len() {
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which checks it")]
        let (changed, verdict) = changes[index];
        if changed == number {
            return verdict;
        }
        index += 1;
    }
    usual
}
