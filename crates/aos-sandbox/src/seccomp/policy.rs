//! The vocabulary of a filter, and the named policies.

use aos_sys::seccomp::Instruction;
use serde::{Deserialize, Serialize};

use super::build::BUILD;
use super::call::{CALLER, LAUNCHER, NARROWED};
use super::generate::Program;
use super::table::TABLE;

/// What happens to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It runs.
    Allow,
    /// `EPERM`.
    Deny,
    /// `ENOSYS`, as from a kernel that lacks it: the caller falls back to what it used before.
    Absent,
    /// It does nothing and answers 0.
    Pretend,
    /// It depends on the arguments.
    Check(Check),
}

impl Verdict {
    /// Whether two verdicts are the same: `==` for the compiler.
    pub(super) const fn is(self, other: Self) -> bool {
        let ((kind, detail), (other_kind, other_detail)) = (self.code(), other.code());
        kind == other_kind && detail == other_detail
    }

    /// A number for the verdict, and what it carries.
    const fn code(self) -> (u32, u32) {
        match self {
            Self::Allow => (0, 0),
            Self::Deny => (1, 0),
            Self::Absent => (2, 0),
            Self::Pretend => (3, 0),
            Self::Check(check) => match check {
                Check::CloneFlags => (4, 0),
                Check::UnshareFlags => (5, 0),
                Check::SocketKind => (6, 0),
                Check::SocketFamily => (7, 0),
                Check::IoctlRequest => (8, 0),
                Check::MemfdFlags => (9, 0),
                Check::FileMode(mode) => (10, mode),
                Check::CreationMode(flags) => (11, flags),
                Check::DeviceMode(mode) => (12, mode),
                Check::FcntlCommand => (13, 0),
                Check::PrctlOption => (14, 0),
                Check::PrlimitTarget => (15, 0),
                Check::SetrlimitResource => (16, 0),
                Check::SocketStream => (17, 0),
                Check::PairStream => (18, 0),
                Check::SendFlags(flags) => (19, flags),
            },
        }
    }
}

/// A decision by argument values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// clone(2): `EPERM` with any namespace flag.
    CloneFlags,
    /// unshare(2): `EPERM` with any namespace flag.
    UnshareFlags,
    /// socket(2), socketpair(2): families UNIX, INET, INET6; types stream, datagram, seqpacket;
    /// protocols default, TCP, UDP. Else `EPERM`. Among what that leaves out is MPTCP (262), which
    /// passes Landlock's TCP rules.
    SocketKind,
    /// As `SocketKind`, but another family is `EAFNOSUPPORT`, as from a kernel that lacks it: useradd
    /// and its kin go on without an audit log then, and give up otherwise.
    SocketFamily,
    /// socket(2): families INET, INET6; streams; protocols default, TCP. Else `EPERM`.
    SocketStream,
    /// socketpair(2): family UNIX; types stream, seqpacket; the default protocol. Else `EPERM`. A datagram socket of a
    /// pair may send to, and be connected with, any other.
    PairStream,
    /// sendto(2) and its kin: `EPERM` for `MSG_FASTOPEN` in the flags, the argument of this index. It connects, and
    /// Landlock's TCP rules do not see it.
    SendFlags(u32),
    /// ioctl(2): `EPERM` for TIOCSTI and TIOCLINUX, which type into a terminal, and for TIOCSETD,
    /// which loads line disciplines.
    IoctlRequest,
    /// `memfd_create(2)`: `EACCES` unless the file is sealed against execution. The same as
    /// `vm.memfd_noexec=2`, which only root could set; Landlock does not see these files.
    MemfdFlags,
    /// chmod(2), creat(2) and their kin: `EPERM` for a set-user-id or set-group-id bit in the mode,
    /// which is the argument of this index. A file below a grant lies on the host's own mount, where
    /// such a program would give its caller the agent's user.
    FileMode(u32),
    /// open(2) and its kin: as `FileMode` when the flags, at this index, create a file; the mode is
    /// the next argument.
    CreationMode(u32),
    /// mknod(2) and its kin: a device is not made and the answer is 0; what else there is, is made.
    /// The mode is the argument of this index.
    DeviceMode(u32),
    /// fcntl(2): `EPERM` for `F_NOTIFY`, which watches a directory by a signal.
    FcntlCommand,
    /// prctl(2): `EPERM` for `PR_SET_MM`, `PR_SET_PTRACER`, `PR_SCHED_CORE`.
    PrctlOption,
    /// prlimit64(2): `EPERM` for another process (init has the same uid). Setting `RLIMIT_CORE`
    /// does nothing and succeeds: the limit is 1 byte, which also keeps a core handler from being
    /// started, as 0 would not; programs that switch dumps off expect success.
    PrlimitTarget,
    /// setrlimit(2): `RLIMIT_CORE` as above.
    SetrlimitResource,
}

/// One line of a policy table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The system call's number on x86_64.
    pub number: u32,
    /// Its name.
    pub name: &'static str,
    /// What happens.
    pub verdict: Verdict,
}

/// The named policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// The allow-list of an agent: [`TABLE`], anything else `ENOSYS`.
    #[serde(rename = "agent-v1")]
    Agent,
    /// That of a step of a build, anything else `ENOSYS`.
    #[serde(rename = "build-v1")]
    Build,
    /// What the reaping init needs after it has started the agent, anything else `EPERM`.
    #[serde(rename = "init-v1")]
    Init,
    /// That of a call with fewer capabilities than its agent: [`crate::call`].
    #[serde(rename = "narrowed-v1")]
    Narrowed,
    /// What the init needs that serves calls, anything else `ENOSYS`.
    #[serde(rename = "caller-v1")]
    Caller,
    /// What the launcher needs that serves calls, anything else `EPERM`.
    #[serde(rename = "launcher-v1")]
    Launcher,
}

impl Policy {
    /// The policy's table, in the order of the numbers.
    pub fn rows(self) -> &'static [Row] {
        match self {
            Self::Agent => TABLE,
            Self::Build => &BUILD,
            Self::Init => INIT,
            Self::Narrowed => &NARROWED,
            Self::Caller => &CALLER,
            Self::Launcher => LAUNCHER,
        }
    }

    /// The verdict for a number that the table lacks.
    pub const fn otherwise(self) -> Verdict {
        match self {
            Self::Agent | Self::Build | Self::Narrowed | Self::Caller => Verdict::Absent,
            Self::Init | Self::Launcher => Verdict::Deny,
        }
    }

    /// The filter, ready to be installed.
    pub const fn compile(self) -> &'static [Instruction] {
        match self {
            Self::Agent => AGENT_FILTER.as_slice(),
            Self::Build => BUILD_FILTER.as_slice(),
            Self::Init => INIT_FILTER.as_slice(),
            Self::Narrowed => NARROWED_FILTER.as_slice(),
            Self::Caller => CALLER_FILTER.as_slice(),
            Self::Launcher => LAUNCHER_FILTER.as_slice(),
        }
    }
}

/// Instructions that a filter may have.
const LENGTH_MAX: usize = 512;
static AGENT_FILTER: Program<LENGTH_MAX> = Program::compile(TABLE, Policy::Agent.otherwise());
static BUILD_FILTER: Program<LENGTH_MAX> = Program::compile(&BUILD, Policy::Build.otherwise());
static INIT_FILTER: Program<LENGTH_MAX> = Program::compile(INIT, Policy::Init.otherwise());
static NARROWED_FILTER: Program<LENGTH_MAX> = Program::compile(&NARROWED, Policy::Narrowed.otherwise());
static CALLER_FILTER: Program<LENGTH_MAX> = Program::compile(&CALLER, Policy::Caller.otherwise());
static LAUNCHER_FILTER: Program<LENGTH_MAX> = Program::compile(LAUNCHER, Policy::Launcher.otherwise());

pub(super) const fn allowed(number: u32, name: &'static str) -> Row {
    Row { number, name, verdict: Verdict::Allow }
}

/// The init waits for signals and children, passes signals on, ends what is left, tells the status,
/// frees memory and exits; the launcher also writes the report, the readiness message and errors.
static INIT: &[Row] = &[
    allowed(0, "read"),
    allowed(1, "write"),
    allowed(3, "close"),
    allowed(9, "mmap"),
    allowed(11, "munmap"),
    allowed(12, "brk"),
    allowed(13, "rt_sigaction"),
    allowed(14, "rt_sigprocmask"),
    allowed(15, "rt_sigreturn"),
    allowed(28, "madvise"),
    allowed(39, "getpid"),
    allowed(44, "sendto"),
    allowed(60, "exit"),
    allowed(61, "wait4"),
    allowed(62, "kill"),
    allowed(128, "rt_sigtimedwait"),
    allowed(131, "sigaltstack"),
    allowed(202, "futex"),
    allowed(219, "restart_syscall"),
    allowed(231, "exit_group"),
];
