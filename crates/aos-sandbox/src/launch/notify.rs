//! Telling the service manager that the agent is ready: `sd_notify(3)`.
//!
//! The socket is connected before the namespaces are made, since its path or abstract name does not
//! exist inside; the agent gets neither the descriptor nor the variable.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::error::{Context, LaunchError, Layer, fail};

/// Bytes of a status line: a capability of a usual length and what to do about it. systemd takes
/// messages of up to a page.
const STATUS_MAX_BYTES: usize = 1024;

/// A connection to the service manager.
#[derive(Debug)]
pub struct Notifier(UnixDatagram);

impl Notifier {
    /// Connects to `$NOTIFY_SOCKET`; `None` without the variable.
    #[allow(
        clippy::disallowed_methods,
        reason = "the service manager's protocol passes the socket in this variable; read once at the start"
    )]
    pub fn from_environment() -> Result<Option<Self>, LaunchError> {
        std::env::var_os("NOTIFY_SOCKET").map(|name| Self::connect(&name)).transpose()
    }

    fn connect(name: &OsString) -> Result<Self, LaunchError> {
        let bytes = name.as_bytes();
        let address = match bytes.split_first() {
            Some((b'/', _)) => SocketAddr::from_pathname(name),
            Some((b'@', abstract_name)) => SocketAddr::from_abstract_name(abstract_name),
            _ => return fail(Layer::Notify, format!("NOTIFY_SOCKET {} is of no known kind", name.display())),
        };
        let address = address.layer(Layer::Notify, name.display())?;
        let socket = UnixDatagram::unbound().layer(Layer::Notify, "cannot make a socket")?;
        socket.connect_addr(&address).layer(Layer::Notify, name.display())?;
        Ok(Self(socket))
    }

    /// Sends `READY=1` with a status line.
    pub fn ready(&self, status: &str) -> Result<(), LaunchError> {
        let text = format!("READY=1\nSTATUS={}\n", one_line(status));
        self.0.send(text.as_bytes()).layer(Layer::Notify, "cannot report readiness")?;
        Ok(())
    }

    /// Sends the reason of a failure as the status line, which `systemctl status` shows.
    pub fn failed(&self, why: &str) {
        let text = format!("STATUS={}\n", one_line(why));
        if self.0.send(text.as_bytes()).is_err() {
            // The service manager does not listen: standard error and the exit status still tell.
        }
    }
}

/// Passes a result on, and tells the service manager when it is a failure.
pub fn telling<T>(notifier: Option<&Notifier>, result: Result<T, LaunchError>) -> Result<T, LaunchError> {
    if let (Some(notifier), Err(error)) = (notifier, &result) {
        notifier.failed(&error.to_string());
    }
    result
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
    fn readiness_reaches_an_abstract_socket() {
        let name = format!("aos-launch-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier::connect(&OsString::from(format!("@{name}"))).unwrap();
        notifier.ready("a\nb").unwrap();
        let mut buffer = [0; 4096];
        let length = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1\nSTATUS=a b\n");
        let passed = telling(Some(&notifier), fail::<()>(Layer::Grant, "x\nREADY=1\u{1b}"));
        assert_eq!(passed.unwrap_err().layer(), Layer::Grant);
        let length = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"STATUS=grant: x READY=1 \n");
        notifier.failed(&"\u{20ac}".repeat(4096));
        let length = manager.recv(&mut buffer).unwrap();
        assert!(length <= STATUS_MAX_BYTES + 8 && str::from_utf8(&buffer[..length]).is_ok(), "{length}");
    }

    #[test]
    fn unknown_kinds_are_refused() {
        for bad in ["", "vsock:2:1", "relative"] {
            assert_eq!(Notifier::connect(&bad.into()).unwrap_err().layer(), Layer::Notify);
        }
    }
}
