//! Asking the service manager for more time while an operation makes progress (`EXTEND_TIMEOUT_USEC`, sd_notify(3)).
//!
//! The socket is never connected: the unit allows socket(2) and sendto(2) and no connect(2), so that this program, which
//! reads what an agent wrote, reaches sockets of datagrams at most.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// For how long it may make no progress; the unit's `TimeoutStartSec=`.
const STUCK: Duration = Duration::from_secs(300);
/// How often the service manager is told.
const EVERY: Duration = Duration::from_secs(20);

/// The service manager's patience.
#[derive(Debug)]
pub(crate) struct Patience {
    socket: UnixDatagram,
    address: SocketAddr,
    told: Instant,
}

impl Patience {
    /// Of the manager that listens at `$NOTIFY_SOCKET`.
    pub(crate) fn at(name: &OsStr) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("NOTIFY_SOCKET {}: {error}", name.display());
        let address = match name.as_bytes().split_first() {
            Some((b'/', _)) => SocketAddr::from_pathname(name),
            Some((b'@', abstract_name)) => SocketAddr::from_abstract_name(abstract_name),
            _ => return Err(failed(&"of no known kind")),
        };
        let address = address.map_err(|error| failed(&error))?;
        let socket = UnixDatagram::unbound().map_err(|error| failed(&error))?;
        // Whoever is told does not hold up the work.
        socket.set_nonblocking(true).map_err(|error| failed(&error))?;
        Ok(Self { socket, address, told: Instant::now() })
    }

    /// Progress was made.
    pub(crate) fn progress(&mut self) {
        if self.told.elapsed() >= EVERY {
            self.told = Instant::now();
            self.extend();
        }
    }

    fn extend(&self) {
        let text = format!("EXTEND_TIMEOUT_USEC={}\n", STUCK.as_micros());
        if self.socket.send_to_addr(text.as_bytes(), &self.address).is_err() {
            // It is told again; and without, the operation is ended when its time is up, and rolled forward later.
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_is_told_now_and_then() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let mut patience = Patience::at(path.as_os_str()).unwrap();
        let mut buffer = [0; 64];
        patience.progress();
        assert!(manager.recv(&mut buffer).is_err(), "not at once");
        patience.told = Instant::now().checked_sub(EVERY).unwrap();
        patience.progress();
        patience.progress();
        let count = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"EXTEND_TIMEOUT_USEC=300000000\n");
        assert!(manager.recv(&mut buffer).is_err(), "once in a while");
        drop((manager, std::fs::remove_file(&path)));
        patience.extend();
        assert!(Patience::at(OsStr::new("relative")).is_err());
    }
}
