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

/// An error on its way through a library that takes any error: what travels in its chain is found behind it.
#[derive(Debug)]
pub(crate) struct Carried(pub(crate) Error);

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Carried {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// The outermost context of a type in an error's chain, and in what its chain carries.
pub(crate) fn travelling<T: fmt::Display + fmt::Debug + Send + Sync + 'static>(error: &Error) -> Option<&T> {
    let behind = || error.chain().find_map(|cause| travelling(&cause.downcast_ref::<Carried>()?.0));
    error.downcast_ref::<T>().or_else(behind)
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

/// Lines of an error chain: the members of a list, each shown on its own. They display as nothing.
#[derive(Debug)]
struct Details(Vec<String>);

impl fmt::Display for Details {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// An error with a list below its sentence.
pub(crate) fn detailed(error: impl Into<Error>, lines: Vec<String>) -> Error {
    error.into().context(Details(lines))
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
    pub(crate) details: Vec<String>,
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
        let details = travelling::<Details>(error).map(|details| details.0.clone()).unwrap_or_default();
        Self { summary, causes: sentences.collect(), details, hints: hints(error) }
    }
}

/// An error on one line, for a program.
pub(crate) fn sentence(error: &Error) -> String {
    let Report { summary, causes, .. } = Report::of(error);
    std::iter::once(summary).chain(causes).collect::<Vec<_>>().join(": ")
}

/// The hints of a chain, outermost first. [`anyhow`] only finds the outermost context of a type, and one is
/// what a person can follow anyway.
fn hints(error: &Error) -> Vec<String> {
    travelling::<Hint>(error).map(|hint| vec![hint.0.clone()]).unwrap_or_default()
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
        assert_eq!(sentence(&error), "cannot stop x: no agent named x");
    }

    #[test]
    fn what_a_library_carries_is_found() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot get x")]
        struct Library(#[source] Box<dyn std::error::Error + Send + Sync>);

        let inner = detailed(hinted("no route", "look at the cable"), vec!["one".to_owned()])
            .context("cannot pull x");
        let error = Error::from(Library(Box::new(Carried(inner)))).context("cannot build");
        let report = Report::of(&error);
        assert_eq!(report.summary, "cannot build");
        assert_eq!(report.causes, ["cannot get x", "cannot pull x", "no route"]);
        assert_eq!(
            (report.hints, report.details),
            (vec!["look at the cable".to_owned()], vec!["one".to_owned()])
        );
    }

    #[test]
    fn a_cause_already_quoted_is_not_repeated() {
        let error = Error::msg("permission denied").context("cannot open x: permission denied");
        assert_eq!(Report::of(&error).causes, Vec::<String>::new());
    }
}
