//! Exit statuses: one table, from which the program, its manual pages and `docs/ci.md` are made.
//!
//! An error gets the status of the first cause that the table knows, outermost first; a place that knows better
//! marks the error with [`ExitExt::exit`]. `aos run` has statuses of its own, since it passes the agent's on.

use std::fmt;

use anyhow::{Context, Error, Result};
use aos_client::{ClientError, ErrorKind};
use aos_core::lock::LockError;
use aos_package::repository::ResolveError;
use aos_registry::layout::LayoutError;
use aos_registry::{PullError, PushError, RequestError};
use aos_solver::Conflict;
use aos_trust::policy::Refused;

use crate::failure::travelling;

/// Declares [`Exit`] and [`TABLE`] from one list.
macro_rules! exits {
    ($($name:ident = $code:literal, $meaning:literal;)*) => {
        /// An exit status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        #[expect(dead_code, reason = "clap ends the program with `Usage` by itself")]
        pub(crate) enum Exit {
            $(#[doc = $meaning] $name = $code,)*
        }

        /// The statuses and what they mean, for people.
        pub(crate) const TABLE: &[(&str, &str)] = &[$((stringify!($code), $meaning),)*];
    };
}

exits! {
    Done = 0, "It was done.";
    Failed = 1, "It failed; the reason is on standard error, with a hint where something can be done about it.";
    Usage = 2, "The command line is wrong.";
    NotFound = 3, "What was named is not there: no such package, agent, key or repository.";
    Refused = 4, "The trust policy refuses the package: unsigned, or signed by nobody whom it trusts.";
    Unsolvable = 5, "Dependencies contradict each other or form a circle, or the lock file does not fit them.";
    Network = 6, "A registry cannot be reached, denies access, or does not answer as it should.";
    NotReproducible = 7, "Two builds of the same input differ.";
    ReaderGone = 141, "The reader of the output went away.";
}

impl Exit {
    /// The number.
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }

    /// The status of an error.
    pub(crate) fn of(error: &Error) -> Self {
        if let Some(Marked(exit)) = travelling::<Marked>(error) {
            return *exit;
        }
        error.chain().find_map(of_cause).unwrap_or(Self::Failed)
    }
}

/// What the table knows of one cause.
fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(ClientError::Agentd { kind, .. }) = cause.downcast_ref() {
        return match kind {
            ErrorKind::NotFound => Some(Exit::NotFound),
            ErrorKind::Untrusted => Some(Exit::Refused),
            _ => None,
        };
    }
    if let Some(error) = request(cause) {
        return Some(if error.is_not_found() { Exit::NotFound } else { Exit::Network });
    }
    if let Some(error) = cause.downcast_ref::<LayoutError>() {
        return error.is_not_found().then_some(Exit::NotFound);
    }
    if cause.is::<Refused>() {
        return Some(Exit::Refused);
    }
    if cause.is::<Conflict>() || cause.is::<LockError>() {
        return Some(Exit::Unsolvable);
    }
    match cause.downcast_ref() {
        Some(ResolveError::NotFound { .. }) => Some(Exit::NotFound),
        _ => None,
    }
}

/// The error of a registry in a chain.
pub(crate) fn request_of(error: &Error) -> Option<&RequestError> {
    error.chain().find_map(request)
}

/// A registry's error. Where it is shown in the place of another, that one is looked into.
fn request<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a RequestError> {
    match (cause.downcast_ref(), cause.downcast_ref()) {
        (Some(PullError::Request(error)), _) | (_, Some(PushError::Request(error))) => Some(error),
        _ => cause.downcast_ref(),
    }
}

/// A status in an error chain. It displays as nothing: it is no part of the sentence.
#[derive(Debug)]
struct Marked(Exit);

impl fmt::Display for Marked {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Marks an error with a status.
pub(crate) trait ExitExt<T> {
    /// The program ends with `exit` when this error is what it ends with.
    fn exit(self, exit: Exit) -> Result<T>;
}

impl<T, E> ExitExt<T> for std::result::Result<T, E>
where
    std::result::Result<T, E>: Context<T, E>,
{
    fn exit(self, exit: Exit) -> Result<T> {
        self.with_context(|| Marked(exit))
    }
}

/// Marks an error.
pub(crate) fn marked(error: impl Into<Error>, exit: Exit) -> Error {
    error.into().context(Marked(exit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Report, hinted};

    #[test]
    fn a_mark_is_found_at_any_depth_and_is_not_shown() {
        let error = marked(hinted("no key x", "`aos key list`"), Exit::NotFound).context("cannot sign");
        assert_eq!(Exit::of(&error), Exit::NotFound);
        let report = Report::of(&error);
        assert_eq!((report.summary.as_str(), report.causes), ("cannot sign", vec!["no key x".to_owned()]));
        assert_eq!(report.hints, ["`aos key list`"]);
        assert_eq!(Exit::of(&Error::msg("x")), Exit::Failed);
    }

    #[test]
    fn what_the_supervisor_says_has_a_status() {
        for (kind, exit) in [
            (ErrorKind::NotFound, Exit::NotFound),
            (ErrorKind::Untrusted, Exit::Refused),
            (ErrorKind::Refused, Exit::Failed),
        ] {
            let error =
                Error::from(ClientError::Agentd { kind, message: "m".to_owned() }).context("cannot install");
            assert_eq!(Exit::of(&error), exit);
        }
    }

    #[test]
    fn the_documentation_has_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/ci.md");
        let text = std::fs::read_to_string(path).unwrap();
        for (code, meaning) in TABLE {
            assert!(text.contains(&format!("| {code} | {meaning} |\n")), "docs/ci.md: {code}");
        }
    }
}
