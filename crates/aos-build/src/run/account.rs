//! The user that steps run as.

use rustix::process::{getegid, geteuid};

/// The uid and gid of steps that root starts. No account has them: the number after the agents'
/// pool (docs/adr/0002-uids.md), in a range that systemd assigns to nobody.
const UID_FOR_ROOT: u32 = 1_879_179_264;

/// The user and group that steps run as, outside; inside they are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user's number on the host.
    pub uid: u32,
    /// The group's number on the host.
    pub gid: u32,
}

impl Account {
    /// The account of steps that this process starts: its own user, or a user that nobody is when
    /// it is root. Lower directories and caches belong to it.
    pub fn of_process() -> Self {
        let (uid, gid) = (geteuid(), getegid());
        if uid.is_root() {
            Self { uid: UID_FOR_ROOT, gid: UID_FOR_ROOT }
        } else {
            Self { uid: uid.as_raw(), gid: gid.as_raw() }
        }
    }

    /// Whether this process has to change to it, and can: it is root.
    pub fn is_other(self) -> bool {
        geteuid().as_raw() != self.uid
    }
}
