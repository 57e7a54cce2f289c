//! Becoming another user, irrevocably: groups, then the group, then the user, then the proof that
//! there is no way back.

use std::io;

use rustix::process::{Gid, Uid, getegid, geteuid, getgid, getuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Why a process did not become the user that it was to be.
fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, what)
}

/// Drops all supplementary groups and sets the real, effective and saved ids of the calling thread.
///
/// Leaving root's ids also empties the permitted and effective capability sets. Fails if any id is
/// 0 or 0xffffffff ("unchanged" to the kernel), and if the ids could be taken back afterwards.
pub fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    if uid == 0 || gid == 0 || uid == u32::MAX || gid == u32::MAX {
        return Err(refused("the target user and group are neither root nor unset"));
    }
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    let is_user = getuid() == user && geteuid() == user;
    let is_group = getgid() == group && getegid() == group;
    if !is_user || !is_group {
        return Err(refused("the kernel did not change the user and group"));
    }
    if set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).is_ok() {
        return Err(refused("root's user id could be taken back"));
    }
    Ok(())
}
