//! Errors of the contract: the kinds that the supervisor sends, and what a client makes of a failed call.

use crate::names::ERROR_PREFIX;

/// The kinds of error the supervisor reports; the D-Bus name is [`ERROR_PREFIX`] plus the kind's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No such agent or package.
    NotFound,
    /// An argument does not parse or is out of bounds.
    InvalidArgument,
    /// The state or polkit does not allow it: not authorised, agent is running, package in use.
    Refused,
    /// The trust policy does not allow the package: not signed, or by nobody whom it trusts.
    Untrusted,
    /// Another operation is under way, or too many are.
    Busy,
    /// The disk or a quota is full.
    NoSpace,
    /// It was tried and did not work.
    Failed,
}

impl ErrorKind {
    /// All kinds, for tables and tests.
    pub const ALL: [ErrorKind; 7] = [
        ErrorKind::NotFound,
        ErrorKind::InvalidArgument,
        ErrorKind::Refused,
        ErrorKind::Untrusted,
        ErrorKind::Busy,
        ErrorKind::NoSpace,
        ErrorKind::Failed,
    ];

    /// The whole D-Bus error name.
    #[must_use]
    pub const fn dbus_name(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "org.aos.Agentd1.Error.NotFound",
            ErrorKind::InvalidArgument => "org.aos.Agentd1.Error.InvalidArgument",
            ErrorKind::Refused => "org.aos.Agentd1.Error.Refused",
            ErrorKind::Untrusted => "org.aos.Agentd1.Error.Untrusted",
            ErrorKind::Busy => "org.aos.Agentd1.Error.Busy",
            ErrorKind::NoSpace => "org.aos.Agentd1.Error.NoSpace",
            ErrorKind::Failed => "org.aos.Agentd1.Error.Failed",
        }
    }

    /// The last part of the D-Bus error name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        let name = self.dbus_name();
        name.strip_prefix(ERROR_PREFIX).unwrap_or(name)
    }

    /// The kind of a D-Bus error name; `None` for names that are not ours.
    #[must_use]
    pub fn of_dbus_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.dbus_name() == name)
    }
}

/// Why a call to the supervisor did not give what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The supervisor answered with an error of its own; the message says what to do.
    #[error("{message}")]
    Agentd {
        /// What kind of error.
        kind: ErrorKind,
        /// The supervisor's words.
        message: String,
    },
    /// polkit, or the bus, did not allow the call.
    #[error("not authorised: {0}")]
    NotAuthorised(String),
    /// No supervisor on the bus, and the bus could not start one.
    #[error("the supervisor is not running and could not be started: {0}; try: systemctl status agentd")]
    NotRunning(String),
    /// No answer before the deadline.
    #[error("the supervisor did not answer in time: {0}; try: journalctl -u agentd")]
    Deadline(String),
    /// The system bus itself cannot be reached.
    #[error("cannot reach the system bus: {0}")]
    NoBus(#[source] zbus::Error),
    /// Anything else the bus or the message format reports.
    #[error("D-Bus call failed: {0}")]
    Transport(#[source] zbus::Error),
}

impl ClientError {
    /// The supervisor's error kind, when the error is its own.
    #[must_use]
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            ClientError::Agentd { kind, .. } => Some(*kind),
            _ => None,
        }
    }
}

impl From<zbus::Error> for ClientError {
    fn from(error: zbus::Error) -> Self {
        use zbus::fdo;
        match error {
            zbus::Error::MethodError(name, message, reply) => match ErrorKind::of_dbus_name(name.as_str()) {
                Some(kind) => ClientError::Agentd { kind, message: message.unwrap_or_default() },
                None if name.as_str() == INTERACTIVE_REQUIRED => {
                    ClientError::NotAuthorised(message.unwrap_or_default())
                }
                None => ClientError::Transport(zbus::Error::MethodError(name, message, reply)),
            },
            zbus::Error::FDO(fdo) => match *fdo {
                fdo::Error::AccessDenied(message)
                | fdo::Error::AuthFailed(message)
                | fdo::Error::InteractiveAuthorizationRequired(message) => {
                    ClientError::NotAuthorised(message)
                }
                fdo::Error::ServiceUnknown(message)
                | fdo::Error::NameHasNoOwner(message)
                | fdo::Error::SpawnServiceNotFound(message)
                | fdo::Error::SpawnFailed(message)
                | fdo::Error::SpawnExecFailed(message)
                | fdo::Error::SpawnChildExited(message)
                | fdo::Error::Disconnected(message) => ClientError::NotRunning(message),
                fdo::Error::NoReply(message)
                | fdo::Error::Timeout(message)
                | fdo::Error::TimedOut(message) => ClientError::Deadline(message),
                other => ClientError::Transport(zbus::Error::FDO(Box::new(other))),
            },
            zbus::Error::InputOutput(io) if io.kind() == std::io::ErrorKind::TimedOut => {
                ClientError::Deadline(io.to_string())
            }
            other => ClientError::Transport(other),
        }
    }
}

const INTERACTIVE_REQUIRED: &str = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::of_dbus_name(kind.dbus_name()), Some(kind));
            assert!(!kind.as_str().contains('.'), "{}", kind.dbus_name());
        }
        assert_eq!(ErrorKind::of_dbus_name("org.aos.Agentd1.Error.Nope"), None);
        assert_eq!(ErrorKind::of_dbus_name("org.freedesktop.DBus.Error.Failed"), None);
    }

    #[test]
    fn bus_errors_become_what_the_operator_can_act_on() {
        let map = |e| ClientError::from(zbus::Error::FDO(Box::new(e)));
        assert!(matches!(
            map(zbus::fdo::Error::ServiceUnknown("x".into())),
            ClientError::NotRunning(m) if m == "x"
        ));
        assert!(matches!(map(zbus::fdo::Error::AccessDenied("x".into())), ClientError::NotAuthorised(_)));
        assert!(matches!(map(zbus::fdo::Error::NoReply("x".into())), ClientError::Deadline(_)));
    }
}
