//! Bounded texts of a package: descriptions, labels, environment variables and arguments.

use crate::macros::is_its_text;
use crate::quoted::{Quoted, is_hidden};
use std::str::FromStr;
use thiserror::Error;

/// Bytes of a description: a paragraph.
pub const DESCRIPTION_MAX: usize = 1024;
/// Bytes of a label's name.
pub const LABEL_NAME_MAX: usize = 128;
/// Bytes of a label's value.
pub const LABEL_VALUE_MAX: usize = 1024;
/// Bytes of an environment variable's name.
pub const ENV_NAME_MAX: usize = 128;
/// Bytes of an environment variable's value; the kernel takes 128 KiB for one string.
pub const ENV_VALUE_MAX: usize = 8 * 1024;
/// Bytes of one argument; the kernel takes 128 KiB for one string.
pub const ARGUMENT_MAX: usize = 16 * 1024;
/// Characters of a secret's name: it is a file's name.
const SECRET_NAME_MAX: usize = 64;

/// Why a text is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TextError {
    /// The text is empty.
    #[error("{what} is empty")]
    Empty {
        /// The kind of text.
        what: &'static str,
    },
    /// The text is too long.
    #[error("{what} has {length} bytes, at most {max} are allowed")]
    TooLong {
        /// The kind of text.
        what: &'static str,
        /// Bytes found.
        length: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A character is not allowed.
    #[error("{what} {} has U+{:04X} at position {position}, allowed are {allowed}", Quoted(.text), *.found as u32)]
    Character {
        /// The kind of text.
        what: &'static str,
        /// The text.
        text: String,
        /// The character.
        found: char,
        /// Its place, counted in characters from 1.
        position: usize,
        /// What is allowed, in words.
        allowed: &'static str,
    },
}

/// The rules of one kind of text.
struct Rules {
    what: &'static str,
    max: usize,
    may_be_empty: bool,
    allowed: &'static str,
    /// Whether a character may stand at an index.
    good: fn(usize, char) -> bool,
}

fn check(text: &str, rules: &Rules) -> Result<(), TextError> {
    let what = rules.what;
    if text.is_empty() && !rules.may_be_empty {
        return Err(TextError::Empty { what });
    }
    if text.len() > rules.max {
        return Err(TextError::TooLong { what, length: text.len(), max: rules.max });
    }
    match text.chars().enumerate().find(|&(index, c)| !(rules.good)(index, c)) {
        None => Ok(()),
        Some((index, found)) => Err(TextError::Character {
            what,
            text: text.to_owned(),
            found,
            position: index + 1,
            allowed: rules.allowed,
        }),
    }
}

/// Defines a text with its rules.
macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $rules:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            const RULES: Rules = $rules;
        }

        impl FromStr for $name {
            type Err = TextError;

            fn from_str(text: &str) -> Result<Self, TextError> {
                check(text, &Self::RULES)?;
                Ok(Self(text.to_owned()))
            }
        }

        is_its_text!($name);
    };
}

text_type!(
    /// What a package is for: some lines of visible text.
    Description,
    Rules {
        what: "description",
        max: DESCRIPTION_MAX,
        may_be_empty: true,
        allowed: "visible characters and newlines",
        good: |_, c| c == '\n' || !is_hidden(c),
    }
);
text_type!(
    /// The name of a label: a letter or digit, then letters, digits and `._/-`.
    LabelName,
    Rules {
        what: "label name",
        max: LABEL_NAME_MAX,
        may_be_empty: false,
        allowed: "letters and digits, and after the first `.`, `_`, `/` and `-`",
        good: |index, c| c.is_ascii_alphanumeric() || (index > 0 && "._/-".contains(c)),
    }
);
text_type!(
    /// The value of a label: one line of visible text.
    LabelValue,
    Rules {
        what: "label value",
        max: LABEL_VALUE_MAX,
        may_be_empty: true,
        allowed: "visible characters",
        good: |_, c| !is_hidden(c),
    }
);
text_type!(
    /// The name of an environment variable (POSIX: letters, digits and `_`, no digit first).
    EnvName,
    Rules {
        what: "environment variable name",
        max: ENV_NAME_MAX,
        may_be_empty: false,
        allowed: "letters, `_` and, after the first, digits",
        good: |index, c| c == '_' || c.is_ascii_alphabetic() || (index > 0 && c.is_ascii_digit()),
    }
);
text_type!(
    /// The value of an environment variable: any text without NUL.
    EnvValue,
    Rules {
        what: "environment variable value",
        max: ENV_VALUE_MAX,
        may_be_empty: true,
        allowed: "all characters but NUL",
        good: |_, c| c != '\0',
    }
);
text_type!(
    /// One argument of a program: any text without NUL.
    Argument,
    Rules {
        what: "argument",
        max: ARGUMENT_MAX,
        may_be_empty: true,
        allowed: "all characters but NUL",
        good: |_, c| c != '\0',
    }
);

/// The name of a secret, a file name: 1 to 64 letters, digits, `_`, `-` and inner `.`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretName(String);

/// A text that is not a secret's name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "secret name {} is not valid, expected 1 to {SECRET_NAME_MAX} letters, digits, `_`, `-` and `.`, the first a letter or digit",
    Quoted(.0)
)]
pub struct BadSecretName(String);

impl FromStr for SecretName {
    type Err = BadSecretName;

    fn from_str(text: &str) -> Result<Self, BadSecretName> {
        let good = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        let first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !first || text.len() > SECRET_NAME_MAX || !text.chars().all(good) {
            return Err(BadSecretName(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

is_its_text!(SecretName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        assert!("".parse::<Description>().is_ok() && "a\nb".parse::<Description>().is_ok());
        assert!("org.aos/x-1_y".parse::<LabelName>().is_ok());
        assert!("_A1".parse::<EnvName>().is_ok());
        assert!("line\nline\u{1b}".parse::<EnvValue>().is_ok());
        assert!("\u{1b}[2J".parse::<Description>().is_err());
        assert!("a\nb".parse::<LabelValue>().is_err());
        for bad in ["", "1A", "A-B", "A=B", "É", "A\0"] {
            assert!(bad.parse::<EnvName>().is_err(), "{bad:?}");
        }
        for bad in ["", ".a", "a b", "a=b", "ä"] {
            assert!(bad.parse::<LabelName>().is_err(), "{bad:?}");
        }
        let error = "a\0b".parse::<EnvValue>().unwrap_err().to_string();
        assert!(error.contains("U+0000 at position 2"), "{error}");
        assert!("x".repeat(ARGUMENT_MAX + 1).parse::<Argument>().is_err());
    }
}
