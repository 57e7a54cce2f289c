//! A kernel that lacks something, for the processes below the calling thread: system calls that fail
//! as an older or a restricted kernel lets them fail.
//!
//! Two filters of seccomp(2). One answers with an error. The other asks a thread of this process,
//! which stays outside and answers for Landlock's version number: seccomp itself can return errors
//! only.

use std::io;
use std::str::FromStr;

use crate::raw;

/// BPF: load the word at the operand's offset (linux/bpf_common.h).
const LOAD: u16 = 0x20;
/// BPF: jump when equal.
const JUMP_EQUAL: u16 = 0x15;
/// BPF: end with the operand.
const RETURN: u16 = 0x06;
/// `SECCOMP_RET_ERRNO`, with the error in the low half (linux/seccomp.h).
const ERRNO: u32 = 0x0005_0000;
/// `SECCOMP_RET_USER_NOTIF`.
const ASK: u32 = 0x7fc0_0000;
/// `SECCOMP_RET_ALLOW`.
const ALLOW: u32 = 0x7fff_0000;
/// Offset of the system call's number in `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
/// Offset of the low half of the third argument, on a little-endian machine.
const THIRD_ARGUMENT_AT: u32 = 32;
/// `LANDLOCK_CREATE_RULESET_VERSION` (linux/landlock.h).
const VERSION_FLAG: u32 = 1;

/// What the kernel lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Landlock, as without `landlock` in `lsm=`.
    Landlock,
    /// Landlock's ABIs above this one.
    LandlockAbove(u32),
    /// Filters of system calls, as without `CONFIG_SECCOMP_FILTER`.
    Seccomp,
}

impl FromStr for Lack {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "landlock" => Ok(Self::Landlock),
            "seccomp" => Ok(Self::Seccomp),
            _ => text
                .strip_prefix("landlock>")
                .and_then(|abi| abi.parse().ok())
                .map(Self::LandlockAbove)
                .ok_or_else(|| format!("{text}: expected landlock, landlock>N or seccomp")),
        }
    }
}

impl Lack {
    /// Takes it away from this thread and all that it starts.
    pub fn take_away(self) -> io::Result<()> {
        rustix::thread::set_no_new_privs(true)?;
        match self {
            Self::Landlock => raw::filter(&failing(libc::SYS_landlock_create_ruleset, libc::EOPNOTSUPP)?)?,
            Self::Seccomp => raw::filter(&failing(libc::SYS_seccomp, libc::EINVAL)?)?,
            Self::LandlockAbove(abi) => {
                let listener = raw::asking_filter(&asking_for_the_version()?)?;
                std::thread::spawn(move || while raw::answer(&listener, i64::from(abi)).is_ok() {});
            }
        }
        Ok(())
    }
}

fn number(call: libc::c_long) -> io::Result<u32> {
    u32::try_from(call).map_err(io::Error::other)
}

/// Fails one system call, and nothing else.
fn failing(call: libc::c_long, error: i32) -> io::Result<Vec<libc::sock_filter>> {
    let error = u32::try_from(error).map_err(io::Error::other)?;
    Ok(vec![
        step(LOAD, 0, 0, NUMBER_AT),
        step(JUMP_EQUAL, 0, 1, number(call)?),
        step(RETURN, 0, 0, ERRNO | error),
        step(RETURN, 0, 0, ALLOW),
    ])
}

/// Asks about the call that tells Landlock's version, and nothing else.
fn asking_for_the_version() -> io::Result<Vec<libc::sock_filter>> {
    Ok(vec![
        step(LOAD, 0, 0, NUMBER_AT),
        step(JUMP_EQUAL, 0, 3, number(libc::SYS_landlock_create_ruleset)?),
        step(LOAD, 0, 0, THIRD_ARGUMENT_AT),
        step(JUMP_EQUAL, 0, 1, VERSION_FLAG),
        step(RETURN, 0, 0, ASK),
        step(RETURN, 0, 0, ALLOW),
    ])
}

const fn step(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}
