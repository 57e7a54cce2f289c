//! Host names and patterns in one canonical form: lowercase ASCII labels, no closing dot, no
//! address literals. What could be read two ways is refused.

use crate::quoted::Quoted;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// RFC 1035: a name without its closing dot.
const HOST_MAX: usize = 253;
/// RFC 1035: one label.
const LABEL_MAX: usize = 63;

/// Why a text is not a host name or pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HostError {
    /// The port is missing.
    #[error("{} has not the form HOST:PORT, such as api.github.com:443", Quoted(.0))]
    NoPort(String),
    /// The name is empty or too long.
    #[error("host {} has {} characters, expected 1 to {HOST_MAX}", Quoted(.0), .0.len())]
    Length(String),
    /// A label is empty, too long or has a hyphen at an end.
    #[error("host {} has the label {}: labels have 1 to {LABEL_MAX} characters and no `-` at their ends", Quoted(.host), Quoted(.label))]
    Label {
        /// The host.
        host: String,
        /// The label.
        label: String,
    },
    /// A character is not allowed.
    #[error("host {} has {}, allowed are a-z, 0-9, `-` and `.` (international names as xn--)", Quoted(.host), Quoted(.found.encode_utf8(&mut [0; 4])))]
    Character {
        /// The host.
        host: String,
        /// The character.
        found: char,
    },
    /// The host is an address.
    #[error("host {} looks like an address, expected a name", Quoted(.0))]
    Address(String),
    /// A star is not the whole first label.
    #[error("host {}: `*` stands for exactly one label and only as the first, such as *.example.org", Quoted(.0))]
    Star(String),
}

fn check_labels(host: &str, text: &str) -> Result<(), HostError> {
    for label in text.split('.') {
        if let Some(found) =
            label.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-'))
        {
            return Err(match found {
                '*' => HostError::Star(host.to_owned()),
                _ => HostError::Character { host: host.to_owned(), found },
            });
        }
        if label.is_empty() || label.len() > LABEL_MAX || label.starts_with('-') || label.ends_with('-') {
            return Err(HostError::Label { host: host.to_owned(), label: label.to_owned() });
        }
    }
    // The WHATWG URL rule: a name whose last label is a number is read as an address by some.
    let last = text.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    if hex || last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(HostError::Address(host.to_owned()));
    }
    Ok(())
}

fn check_length(text: &str) -> Result<(), HostError> {
    if text.is_empty() || text.len() > HOST_MAX { Err(HostError::Length(text.to_owned())) } else { Ok(()) }
}

/// One host name, canonical.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(String);

impl HostName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        check_length(text)?;
        check_labels(text, text)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host name, or `*.` and a name: exactly one label before it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPattern {
    /// The name, without the star.
    name: HostName,
    /// One more label stands before the name.
    any_first_label: bool,
}

impl HostPattern {
    /// True when `host` is the name, or has exactly one label before it when there is a star.
    pub fn matches(&self, host: &HostName) -> bool {
        if !self.any_first_label {
            return self.name == *host;
        }
        host.0.split_once('.').is_some_and(|(_, rest)| rest == self.name.0)
    }

    /// True when every host that this matches, `other` matches too.
    pub fn is_subset(&self, other: &Self) -> bool {
        if self.any_first_label { self == other } else { other.matches(&self.name) }
    }
}

impl FromStr for HostPattern {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        check_length(text)?;
        let (name, any_first_label) = match text.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        check_labels(text, name)?;
        Ok(Self { name: HostName(name.to_owned()), any_first_label })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.any_first_label {
            f.write_str("*.")?;
        }
        f.write_str(&self.name.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_names() {
        for good in ["localhost", "api.github.com", "xn--bcher-kva.example", "a-b.c", "1password.com"] {
            assert!(good.parse::<HostName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "A.com",
            "a_b.com",
            "-a.com",
            "a-.com",
            "user@a.com",
            "127.0.0.1",
            "2130706433",
            "0x7f000001",
            "0x",
            "a.0x1",
            "[::1]",
            "::1",
            "a b.com",
            "a\0.com",
            "bücher.example",
            "a/b",
            "%61.com",
            "a.1",
        ] {
            assert!(bad.parse::<HostName>().is_err(), "{bad:?}");
            assert!(bad.parse::<HostPattern>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(64).parse::<HostName>().is_err());
        assert!(["x"; 130].join(".").parse::<HostName>().is_err());
        for bad in ["*", "*.", "*a.com", "a.*.com", "*.*.com", "**.com", "*.com.", "*.1"] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_star_is_one_label() {
        let pattern: HostPattern = "*.github.com".parse().unwrap();
        let matches = |host: &str| pattern.matches(&host.parse().unwrap());
        assert!(matches("api.github.com"));
        assert!(!matches("github.com"));
        assert!(!matches("a.b.github.com"));
        assert!(!matches("evilgithub.com"));
        let exact: HostPattern = "api.github.com".parse().unwrap();
        assert!(exact.is_subset(&pattern) && !pattern.is_subset(&exact) && pattern.is_subset(&pattern));
    }
}
