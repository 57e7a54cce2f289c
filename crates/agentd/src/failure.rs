//! [`Failure`]: what an operation answers when it cannot do what was asked, with the D-Bus error name.

use std::fmt;

use aos_client::ErrorKind;
use zbus::message::{Header, Message};
use zbus::names::ErrorName;

/// An error for the caller: a kind (the D-Bus error's name) and a message that says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    kind: ErrorKind,
    message: String,
}

impl Failure {
    /// A failure of `kind`, with a message for the operator.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// An argument does not parse or is out of bounds.
    pub fn invalid(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::InvalidArgument, message.to_string())
    }

    /// There is no agent `id`.
    pub fn no_agent(id: &str) -> Self {
        Self::new(ErrorKind::NotFound, format!("no agent {id}; `aos list` shows all"))
    }

    /// The state or polkit does not allow it.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, message)
    }

    /// The trust policy does not allow the package.
    pub fn untrusted(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Untrusted, message)
    }

    /// Too much is going on.
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Busy, message)
    }

    /// It was tried and did not work; the message is the whole chain of `error`.
    pub fn failed(error: &dyn std::error::Error) -> Self {
        Self::new(ErrorKind::Failed, chain(error))
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same failure, with `hint` after its message.
    #[must_use]
    pub fn with_hint(mut self, hint: &str) -> Self {
        self.message.push_str("; ");
        self.message.push_str(hint);
        self
    }
}

/// An error with all its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl zbus::DBusError for Failure {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&self.message)
    }

    fn name(&self) -> ErrorName<'_> {
        // Every kind's name is an error name: see the test.
        ErrorName::from_static_str_unchecked(self.kind.dbus_name())
    }

    fn description(&self) -> Option<&str> {
        Some(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::DBusError as _;

    #[test]
    fn names_are_those_of_the_contract() {
        for kind in ErrorKind::ALL {
            assert_eq!(Failure::new(kind, "x").name().as_str(), kind.dbus_name());
            ErrorName::try_from(kind.dbus_name()).unwrap();
        }
    }
}
