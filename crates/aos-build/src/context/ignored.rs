//! `.aosignore`: what is left out, in gitignore syntax.

use crate::error::BuildError;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Parses the file.
pub(super) fn parse(text: &str) -> Result<Gitignore, BuildError> {
    let mut builder = GitignoreBuilder::new("");
    for (index, line) in text.lines().enumerate() {
        let wrong = |error: ignore::Error| BuildError::Ignore { line: index + 1, message: error.to_string() };
        builder.add_line(None, line).map_err(wrong)?;
    }
    builder.build().map_err(|error| BuildError::Ignore { line: 0, message: error.to_string() })
}
