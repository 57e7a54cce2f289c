//! The names that capabilities have beside paths and hosts: model aliases, tools, devices, the kind of
//! use of the memory, and the star that stands for all names of a kind.

use crate::id::{IdError, check_name};
use crate::macros::{is_its_text, word_enum};
use crate::quoted::Quoted;
use crate::text::BadSecretName;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Characters of a model's alias and of a device's name.
pub const NAME_MAX: usize = 63;
/// Bytes of a tool's name with the server's before it. The Model Context Protocol has at most 128 for a
/// tool's own.
pub const TOOL_NAME_MAX: usize = 256;

/// Why a text is not the name that a capability wants.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// An id or name is wrong.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The tool's name is wrong.
    #[error(transparent)]
    Tool(#[from] BadToolName),
    /// The word for the use of the memory is wrong.
    #[error(transparent)]
    Memory(#[from] NotAMemoryUse),
    /// The secret's name is wrong.
    #[error(transparent)]
    Secret(#[from] BadSecretName),
    /// The secret has no host.
    #[error("{} has not the form NAME@HOST, such as github-token@api.github.com", Quoted(.0))]
    SecretForm(String),
}

/// Declares a lowercase name of at most [`NAME_MAX`] characters.
macro_rules! lowercase_name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                check_name($what, text, NAME_MAX, "._-", "a-z, 0-9, `.`, `_` and `-`")?;
                Ok(Self(text.to_owned()))
            }
        }

        is_its_text!($name);
    };
}

lowercase_name!(
    /// The alias of a model, or of a ladder of models, in the broker's configuration: 1 to 63 characters of
    /// `[a-z0-9._-]`, a letter or digit at both ends.
    ModelAlias,
    "model alias"
);
lowercase_name!(
    /// A device by its name in the system's configuration: 1 to 63 characters of `[a-z0-9._-]`, a letter or
    /// digit at both ends.
    DeviceName,
    "device name"
);

word_enum! {
    /// A use of the agent's memory.
    MemoryUse, NotAMemoryUse {
        /// Search and read.
        #[default]
        Read = "read",
        /// Add, change and forget, and also read.
        Write = "write",
    }
}

/// A text that names no tool, or no tools.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "tool {} is not valid, expected segments of letters, digits, `_` and `-` with a `.` between, {TOOL_NAME_MAX} characters at most; in a capability a segment may be `*`, such as mcp.github.*",
    Quoted(.0)
)]
pub struct BadToolName(String);

fn check_tool(text: &str, may_have_stars: bool) -> Result<(), BadToolName> {
    let plain = |segment: &str| {
        !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    let good = |segment: &str| plain(segment) || (may_have_stars && segment == "*");
    if text.len() <= TOOL_NAME_MAX && text.split('.').all(good) {
        Ok(())
    } else {
        Err(BadToolName(text.to_owned()))
    }
}

/// The name of one tool: `web_fetch`, or `mcp.SERVER.TOOL` for a server's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ToolName(String);

impl FromStr for ToolName {
    type Err = BadToolName;

    fn from_str(text: &str) -> Result<Self, BadToolName> {
        check_tool(text, false)?;
        Ok(Self(text.to_owned()))
    }
}

is_its_text!(ToolName);

/// The name of a tool, in which a segment `*` stands for any one segment: `mcp.github.*` is every tool of
/// that server, and neither `mcp.github` nor `mcp.github.issues.get`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ToolPattern(String);

impl ToolPattern {
    /// True when the pattern matches `tool`.
    pub fn matches(&self, tool: &ToolName) -> bool {
        self.takes(&tool.0)
    }

    /// True when every tool that this matches, `other` matches too.
    pub fn is_subset(&self, other: &Self) -> bool {
        other.takes(&self.0)
    }

    /// Segment by segment. A star of `text` is taken by a star alone.
    fn takes(&self, text: &str) -> bool {
        let (mut mine, mut given) = (self.0.split('.'), text.split('.'));
        loop {
            match (mine.next(), given.next()) {
                (None, None) => return true,
                (Some(own), Some(other)) if own == "*" || own == other => {}
                _ => return false,
            }
        }
    }
}

impl FromStr for ToolPattern {
    type Err = BadToolName;

    fn from_str(text: &str) -> Result<Self, BadToolName> {
        check_tool(text, true)?;
        Ok(Self(text.to_owned()))
    }
}

is_its_text!(ToolPattern);

/// One name, or with `*` all names of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AnyOr<T> {
    /// Every name.
    Any,
    /// This name.
    One(T),
}

impl<T: PartialEq> AnyOr<T> {
    /// True when `name` is meant.
    pub fn matches(&self, name: &T) -> bool {
        match self {
            Self::Any => true,
            Self::One(mine) => mine == name,
        }
    }

    /// True when every name that this means, `other` means too.
    pub fn is_subset(&self, other: &Self) -> bool {
        match self {
            Self::Any => *other == Self::Any,
            Self::One(mine) => other.matches(mine),
        }
    }
}

impl<T: FromStr> FromStr for AnyOr<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text == "*" { Ok(Self::Any) } else { text.parse().map(Self::One) }
    }
}

impl<T: fmt::Display> fmt::Display for AnyOr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::One(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_segment_of_a_tools_name() {
        let pattern = |text: &str| text.parse::<ToolPattern>().unwrap();
        let matches = |glob: &str, tool: &str| pattern(glob).matches(&tool.parse().unwrap());
        assert!(matches("web_fetch", "web_fetch"));
        assert!(matches("mcp.github.*", "mcp.github.get-issue"));
        assert!(matches("mcp.*.search", "mcp.github.search"));
        for (glob, tool) in [
            ("mcp.github.*", "mcp.github"),
            ("mcp.github.*", "mcp.github.a.b"),
            ("mcp.github.*", "mcp.githubx.a"),
            ("*", "mcp.github"),
            ("web_fetch", "Web_fetch"),
        ] {
            assert!(!matches(glob, tool), "{glob} {tool}");
        }
        assert!(pattern("mcp.a.b").is_subset(&pattern("mcp.*.*")));
        assert!(pattern("mcp.a.*").is_subset(&pattern("mcp.*.*")));
        assert!(!pattern("mcp.*.*").is_subset(&pattern("mcp.a.*")));
        let long = "a".repeat(TOOL_NAME_MAX + 1);
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "get_*", "**", "a.**", "a/b", "ä", "a\n", &long] {
            assert!(bad.parse::<ToolPattern>().is_err(), "{bad:?}");
            assert!(bad.parse::<ToolName>().is_err(), "{bad:?}");
        }
        assert!("mcp.*".parse::<ToolName>().is_err());
    }

    #[test]
    fn names() {
        for good in ["fast", "claude-4.5", "a", &"x".repeat(NAME_MAX)] {
            assert!(good.parse::<ModelAlias>().is_ok(), "{good}");
        }
        for bad in ["", "Fast", "-a", "a-", "a b", "a/b", "*", &"x".repeat(NAME_MAX + 1)] {
            assert!(bad.parse::<ModelAlias>().is_err(), "{bad:?}");
            assert!(bad.parse::<DeviceName>().is_err(), "{bad:?}");
        }
        let error = "all".parse::<MemoryUse>().unwrap_err().to_string();
        assert_eq!(error, "expected read or write");
    }
}
