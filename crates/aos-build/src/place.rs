//! Where an error is in the Agentfile.

use crate::error::BuildError;
use aos_core::agentfile::{Agentfile, Position};

/// A field of the Agentfile, such as `build.stages[0].steps[2].copy`; empty for an Agentfile
/// without `build`.
#[derive(Debug, Clone)]
pub(crate) struct Place<'a> {
    pub(crate) agentfile: &'a Agentfile,
    pub(crate) field: String,
}

impl Place<'_> {
    /// An error about a field below this one; empty is this one.
    pub(crate) fn error(&self, below: &str, message: impl std::fmt::Display) -> BuildError {
        let field = match (self.field.as_str(), below) {
            ("", _) => String::new(),
            (field, "") => field.to_owned(),
            (field, below) => format!("{field}.{below}"),
        };
        self.agentfile.error_at(&field, message).into()
    }

    /// The line and column.
    pub(crate) fn position(&self) -> Position {
        self.agentfile.place(&self.field)
    }
}
