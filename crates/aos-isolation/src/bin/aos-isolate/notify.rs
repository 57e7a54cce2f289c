//! Telling the service manager: `sd_notify(3)`. The socket is connected before the namespaces are made,
//! since its path or abstract name does not exist inside.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::error::{Context, Failure, Stage, fail};

/// Bytes of a status line, as of `aos-launch`.
const STATUS_MAX_BYTES: usize = 1024;

/// A connection to the service manager.
#[derive(Debug)]
pub(crate) struct Notifier(UnixDatagram);

impl Notifier {
    /// Connects to `$NOTIFY_SOCKET`; `None` without the variable.
    #[allow(
        clippy::disallowed_methods,
        reason = "the service manager's protocol passes the socket in this variable; read once at the start"
    )]
    pub(crate) fn from_environment() -> Result<Option<Self>, Failure> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(None) };
        let address = match name.as_bytes().split_first() {
            Some((b'/', _)) => SocketAddr::from_pathname(&name),
            Some((b'@', abstract_name)) => SocketAddr::from_abstract_name(abstract_name),
            _ => return fail(Stage::Notify, format!("NOTIFY_SOCKET {} is of no known kind", name.display())),
        };
        let address = address.stage(Stage::Notify, name.display())?;
        let socket = UnixDatagram::unbound().stage(Stage::Notify, "cannot make a socket")?;
        socket.connect_addr(&address).stage(Stage::Notify, name.display())?;
        Ok(Some(Self(socket)))
    }

    /// Sends `READY=1` with a status line.
    pub(crate) fn ready(&self, status: &str) -> Result<(), Failure> {
        let text = format!("READY=1\nSTATUS={}\n", one_line(status));
        self.0.send(text.as_bytes()).stage(Stage::Notify, "cannot report readiness")?;
        Ok(())
    }

    /// Sends the reason of a failure as the status line.
    pub(crate) fn failed(&self, why: &str) {
        let text = format!("STATUS={}\n", one_line(why));
        if self.0.send(text.as_bytes()).is_err() {
            // The service manager does not listen: standard error and the exit status still tell.
        }
    }
}

/// The text as one line without control characters, cut at [`STATUS_MAX_BYTES`].
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for letter in text.chars() {
        let letter = if letter.is_control() { ' ' } else { letter };
        if line.len() + letter.len_utf8() > STATUS_MAX_BYTES {
            break;
        }
        line.push(letter);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_and_bounded() {
        assert_eq!(one_line("a\nREADY=1"), "a READY=1");
        assert!(one_line(&"\u{20ac}".repeat(4096)).len() <= STATUS_MAX_BYTES);
    }
}
