//! The loopback interface of a new network namespace.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::checked;

/// `SIOCGIFFLAGS` of linux/sockios.h, whose type differs between C libraries.
const GET_FLAGS: libc::Ioctl = 0x8913;
/// `SIOCSIFFLAGS`.
const SET_FLAGS: libc::Ioctl = 0x8914;

/// Brings `lo` up in the network namespace of the calling thread. The kernel then gives it
/// 127.0.0.1/8 and, where it has IPv6, ::1/128. Needs `CAP_NET_ADMIN` in that namespace.
pub fn loopback_up() -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut request = loopback_request();
    interface_call(&socket, GET_FLAGS, &mut request)?;
    // SAFETY: the call above made the flags the active member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    // The flags fit: IFF_UP is 1.
    request.ifr_ifru.ifru_flags = flags | 0x1;
    interface_call(&socket, SET_FLAGS, &mut request)
}

/// A request about the interface `lo` with all else zero.
fn loopback_request() -> libc::ifreq {
    let mut name = [0; libc::IFNAMSIZ];
    for (slot, byte) in name.iter_mut().zip(c"lo".to_bytes()) {
        *slot = byte.cast_signed();
    }
    libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 } }
}

fn interface_call(socket: &OwnedFd, operation: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: both operations used here read and write one ifreq, which is exclusively borrowed.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), operation, std::ptr::from_mut(request)) }).map(drop)
}
