//! The patterns of the policy. They are those of capabilities ([`PathPattern`]), without the
//! leading slash: `*` stands for any part of a name or of one segment, `/**` at a repository's end
//! for everything below it. What could never match, such as a capital letter, is an error.

use aos_core::capability::{PathPattern, PatternError};
use aos_core::id::PackageName;
use aos_core::path::AbsolutePath;
use thiserror::Error;

/// Why a text is not a pattern.
#[derive(Debug, Error)]
pub enum GlobError {
    /// The pattern is empty.
    #[error("a {0} pattern is empty: it could never match")]
    Empty(&'static str),
    /// A character is in no name.
    #[error(
        "{what} pattern {text:?} has {found:?}; names have {allowed}, and `*` stands for any part of one"
    )]
    Character {
        /// Of what the pattern is.
        what: &'static str,
        /// The pattern.
        text: String,
        /// The character.
        found: char,
        /// What names are made of.
        allowed: &'static str,
    },
    /// `**` is used where there are no segments.
    #[error("name pattern {0:?} has `**`; a name has no segments, `*` stands for any part of it")]
    DoubleStar(String),
    /// The pattern is not in the grammar.
    #[error("{what} pattern {text:?} is not valid: {why}")]
    Pattern {
        /// Of what the pattern is.
        what: &'static str,
        /// The pattern.
        text: String,
        /// Why.
        why: PatternError,
    },
}

fn parse(
    what: &'static str,
    text: &str,
    extra: &str,
    allowed: &'static str,
) -> Result<PathPattern, GlobError> {
    if text.is_empty() {
        return Err(GlobError::Empty(what));
    }
    let good =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-*".contains(c) || extra.contains(c);
    if let Some(found) = text.chars().find(|c| !good(*c)) {
        return Err(GlobError::Character { what, text: text.chars().take(64).collect(), found, allowed });
    }
    let pattern = format!("/{text}").parse();
    pattern.map_err(|why| GlobError::Pattern { what, text: text.chars().take(64).collect(), why })
}

/// True when the pattern matches a text; one that is no path in normal form is matched by nothing.
fn matches(pattern: &PathPattern, text: &str) -> bool {
    format!("/{text}").parse::<AbsolutePath>().is_ok_and(|path| pattern.matches(&path))
}

/// A pattern of package names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NameGlob(PathPattern);

impl NameGlob {
    pub(super) fn parse(text: &str) -> Result<Self, GlobError> {
        if text.contains("**") {
            return Err(GlobError::DoubleStar(text.chars().take(64).collect()));
        }
        parse("name", text, "", "a-z, 0-9, `.`, `_` and `-`").map(Self)
    }

    pub(super) fn matches(&self, name: &PackageName) -> bool {
        matches(&self.0, name.as_str())
    }
}

/// A pattern of repositories, `host[:port]/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RepositoryGlob(PathPattern);

impl RepositoryGlob {
    pub(super) fn parse(text: &str) -> Result<Self, GlobError> {
        parse("repository", text, "/:", "a-z, 0-9, `.`, `_`, `-`, `:` and `/`").map(Self)
    }

    pub(super) fn matches(&self, repository: &str) -> bool {
        matches(&self.0, repository)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (glob, name, expected) in [
            ("acme-*", "acme-web", true),
            ("acme-*", "acme-", false),
            ("acme-*", "acme", false),
            ("*", "anything.x_y-z", true),
            ("web", "web", true),
            ("web", "web2", false),
            ("*-web", "acme-web", true),
            ("a*e-*b", "acme-web", true),
        ] {
            let Ok(name) = name.parse() else {
                assert!(!expected, "{name}");
                continue;
            };
            assert_eq!(NameGlob::parse(glob).unwrap().matches(&name), expected, "{glob} {name}");
        }
        for bad in ["", "**", "a**", "A*", "a/b", "a?", "[a]", "a b", "é", "..", "a:1"] {
            assert!(NameGlob::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn repositories() {
        for (glob, repository, expected) in [
            ("reg.example/acme/*", "reg.example/acme/web", true),
            ("reg.example/acme/*", "reg.example/acme/team/web", false),
            ("reg.example/acme/*", "reg.example/acme", false),
            ("reg.example/acme/**", "reg.example/acme/team/web", true),
            ("reg.example:5000/**", "reg.example:5000/web", true),
            ("reg.example/**", "reg.example:5000/web", false),
            ("reg.example/**", "reg.example.evil.example/web", false),
            ("reg.example/acme/*", "reg.example/acme/../evil/web", false),
            ("*/acme/web", "a/b/acme/web", false),
        ] {
            assert_eq!(
                RepositoryGlob::parse(glob).unwrap().matches(repository),
                expected,
                "{glob} {repository}"
            );
        }
        for bad in ["", "/reg.example", "reg.example/", "a//b", "a/**/b", "a/../b", "A/b"] {
            assert!(RepositoryGlob::parse(bad).is_err(), "{bad:?}");
        }
    }
}
