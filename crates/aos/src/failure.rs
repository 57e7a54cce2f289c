//! How an error is told: one summary line, its causes, and what the operator can do about it.
//!
//! A hint travels in the error chain as a context of its own type, so that any layer can add one without
//! changing the sentence of the error.

use std::fmt;

use anyhow::{Context, Error, Result};

/// An advice in an error chain. It displays as nothing: it is no part of the sentence.
#[derive(Debug)]
struct Hint(String);

impl fmt::Display for Hint {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Adds a hint to an error.
pub(crate) trait HintExt<T> {
    /// Attaches `text`, shown on a line of its own that starts with `hint:`.
    fn hint(self, text: impl Into<String>) -> Result<T>;
}

impl<T, E> HintExt<T> for std::result::Result<T, E>
where
    std::result::Result<T, E>: Context<T, E>,
{
    fn hint(self, text: impl Into<String>) -> Result<T> {
        self.with_context(|| Hint(text.into()))
    }
}

/// An error with a hint.
pub(crate) fn advised(error: impl Into<Error>, hint: impl Into<String>) -> Error {
    error.into().context(Hint(hint.into()))
}

/// An error from a message and a hint.
pub(crate) fn hinted(message: impl fmt::Display, hint: impl Into<String>) -> Error {
    advised(Error::msg(message.to_string()), hint)
}

/// An error as it is shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) summary: String,
    pub(crate) causes: Vec<String>,
    pub(crate) hints: Vec<String>,
}

impl Report {
    /// Takes the chain apart. A cause that its parent already quotes at its end is not repeated.
    pub(crate) fn of(error: &Error) -> Self {
        let mut sentences: Vec<String> = Vec::new();
        for cause in error.chain() {
            let text = cause.to_string();
            let repeated = sentences.last().is_some_and(|previous| previous.ends_with(&text));
            if !text.is_empty() && !repeated {
                sentences.push(text);
            }
        }
        let mut sentences = sentences.into_iter();
        let summary = sentences.next().unwrap_or_else(|| "unknown error".to_owned());
        Self { summary, causes: sentences.collect(), hints: hints(error) }
    }
}

/// The hints of a chain, outermost first. [`anyhow`] only finds the outermost context of a type, and one is
/// what a person can follow anyway.
fn hints(error: &Error) -> Vec<String> {
    error.downcast_ref::<Hint>().map(|hint| vec![hint.0.clone()]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_is_not_part_of_the_sentence() {
        let error = hinted("no agent named x", "aos list shows the agents").context("cannot stop x");
        let report = Report::of(&error);
        assert_eq!(report.summary, "cannot stop x");
        assert_eq!(report.causes, ["no agent named x"]);
        assert_eq!(report.hints, ["aos list shows the agents"]);
    }

    #[test]
    fn a_cause_already_quoted_is_not_repeated() {
        let error = Error::msg("permission denied").context("cannot open x: permission denied");
        assert_eq!(Report::of(&error).causes, Vec::<String>::new());
    }
}
