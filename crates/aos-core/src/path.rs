//! Absolute paths in one normal form. A path that is not in it is refused, never repaired: what
//! was declared is what is enforced and what is printed.

use crate::macros::serde_as_text;
use crate::quoted::{Quoted, is_hidden};
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use thiserror::Error;

/// The kernel's `PATH_MAX` is 4096 bytes with the closing NUL.
pub const PATH_MAX_BYTES: usize = 4095;
/// The kernel's `NAME_MAX`.
pub const SEGMENT_MAX_BYTES: usize = 255;

/// Why a text is not a path in normal form.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PathError {
    /// The text is empty.
    #[error("path is empty")]
    Empty,
    /// The path does not start with `/`.
    #[error("path {} is not absolute: it must start with `/`", Quoted(.0))]
    NotAbsolute(String),
    /// The path starts with `/` where a relative one is expected.
    #[error("path {} is absolute, expected one relative to the Agentfile", Quoted(.0))]
    NotRelative(String),
    /// The path ends with `/`.
    #[error("path {} ends with `/`: leave it out", Quoted(.0))]
    TrailingSlash(String),
    /// Two slashes follow each other.
    #[error("path {} has an empty segment (`//`)", Quoted(.0))]
    EmptySegment(String),
    /// A segment is `.` or `..`.
    #[error("path {} has a segment `{segment}`, paths are written in full", Quoted(.path))]
    DotSegment {
        /// The path.
        path: String,
        /// `.` or `..`.
        segment: String,
    },
    /// A character is a control character or invisible.
    #[error("path {} has the character U+{:04X} at position {position}, control and invisible characters are not allowed", Quoted(.path), *.found as u32)]
    HiddenCharacter {
        /// The path.
        path: String,
        /// The character.
        found: char,
        /// Its place, counted in characters from 1.
        position: usize,
    },
    /// The path is too long.
    #[error("path {} has {length} bytes, at most {PATH_MAX_BYTES} are allowed", Quoted(.path))]
    TooLong {
        /// The path.
        path: String,
        /// Bytes found.
        length: usize,
    },
    /// A segment is too long.
    #[error("path {} has a segment of {length} bytes, at most {SEGMENT_MAX_BYTES} are allowed", Quoted(.path))]
    SegmentTooLong {
        /// The path.
        path: String,
        /// Bytes found.
        length: usize,
    },
}

/// Checks that `text`, a path without its leading slash, is in normal form; `whole` is for the
/// message. Used for paths and, with their stars, for patterns.
fn check_segments(whole: &str, text: &str) -> Result<(), PathError> {
    let path = || whole.to_owned();
    if text.ends_with('/') {
        return Err(PathError::TrailingSlash(path()));
    }
    for segment in text.split('/') {
        match segment {
            "" => return Err(PathError::EmptySegment(path())),
            "." | ".." => return Err(PathError::DotSegment { path: path(), segment: segment.to_owned() }),
            _ if segment.len() > SEGMENT_MAX_BYTES => {
                return Err(PathError::SegmentTooLong { path: path(), length: segment.len() });
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_characters(text: &str) -> Result<(), PathError> {
    if text.is_empty() {
        return Err(PathError::Empty);
    }
    if let Some((index, found)) = text.chars().enumerate().find(|&(_, c)| is_hidden(c)) {
        return Err(PathError::HiddenCharacter { path: text.to_owned(), found, position: index + 1 });
    }
    if text.len() > PATH_MAX_BYTES {
        return Err(PathError::TooLong { path: text.to_owned(), length: text.len() });
    }
    Ok(())
}

/// Checks that `text` is an absolute path in normal form; `/` itself is one.
pub(crate) fn check_absolute(text: &str) -> Result<(), PathError> {
    check_characters(text)?;
    let Some(rest) = text.strip_prefix('/') else {
        return Err(PathError::NotAbsolute(text.to_owned()));
    };
    if rest.is_empty() { Ok(()) } else { check_segments(text, rest) }
}

/// An absolute path in normal form: no `.`, `..` or empty segment, no closing slash, no control or
/// invisible character. Valid UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AbsolutePath(String);

impl AbsolutePath {
    /// The path `/`.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// A path that the caller has checked, such as the literal start of a checked pattern.
    pub(crate) fn from_checked(text: &str) -> Self {
        debug_assert!(check_absolute(text).is_ok());
        Self(text.to_owned())
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path as the standard library's type.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// The segments from the root down; none for `/`.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|segment| !segment.is_empty())
    }

    /// The last segment; `None` for `/`.
    pub fn file_name(&self) -> Option<&str> {
        self.segments().last()
    }

    /// The directory above; `None` for `/`.
    pub fn parent(&self) -> Option<Self> {
        match self.0.rsplit_once('/') {
            Some((_, "")) | None => None,
            Some(("", _)) => Some(Self::root()),
            Some((above, _)) => Some(Self(above.to_owned())),
        }
    }

    /// True when this is `directory` or a path below it, segment by segment.
    pub fn is_within(&self, directory: &Self) -> bool {
        match self.0.strip_prefix(directory.0.trim_end_matches('/')) {
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }

    /// The path of `below` under this directory.
    pub fn join(&self, below: &RelativePath) -> Result<Self, PathError> {
        format!("{}/{}", self.0.trim_end_matches('/'), below.0).parse()
    }
}

impl FromStr for AbsolutePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        check_absolute(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for AbsolutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<Path> for AbsolutePath {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}

/// A path below some directory, in the same normal form: it cannot name anything outside.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelativePath(String);

impl RelativePath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments from the top down.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl FromStr for RelativePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        check_characters(text)?;
        if text.starts_with('/') {
            return Err(PathError::NotRelative(text.to_owned()));
        }
        check_segments(text, text)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(AbsolutePath);
serde_as_text!(RelativePath);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bad_paths_say_why() {
        let long = format!("/{}", "x/".repeat(3000));
        let wide = format!("/{}", "x".repeat(256));
        for (bad, says) in [
            ("", "empty"),
            ("a/b", "not absolute"),
            ("/a/", "ends with"),
            ("//", "ends with"),
            ("/a//b", "empty segment"),
            ("/a/./b", "segment `.`"),
            ("/a/..", "segment `..`"),
            ("/..", "segment `..`"),
            ("/a\nb", "U+000A at position 3"),
            ("/a\0", "U+0000 at position 3"),
            ("/a\u{202e}b", "U+202E"),
            (&long, "at most 4095"),
            (&wide, "at most 255"),
        ] {
            let error = bad.parse::<AbsolutePath>().unwrap_err().to_string();
            assert!(error.contains(says), "{bad:?}: {error}");
        }
    }

    #[test]
    fn relations() {
        let path = |text: &str| text.parse::<AbsolutePath>().unwrap();
        assert!(path("/a/b").is_within(&path("/a")));
        assert!(path("/a").is_within(&path("/")));
        assert!(path("/a").is_within(&path("/a")));
        assert!(path("/").is_within(&path("/")));
        assert!(!path("/ab").is_within(&path("/a")));
        assert!(!path("/").is_within(&path("/a")));
        assert_eq!(path("/a/b").parent(), Some(path("/a")));
        assert_eq!(path("/a").parent(), Some(path("/")));
        assert_eq!(path("/").parent(), None);
        assert_eq!(path("/a/b").file_name(), Some("b"));
        assert_eq!(path("/").join(&"x/y".parse().unwrap()).unwrap(), path("/x/y"));
        assert_eq!(path("/a").join(&"x".parse().unwrap()).unwrap(), path("/a/x"));
    }

    #[test]
    fn relative_paths() {
        for good in ["a", "a/b.txt", "...", ".git"] {
            assert!(good.parse::<RelativePath>().is_ok(), "{good:?}");
        }
        for bad in ["", ".", "..", "../a", "a/..", "/a", "a/", "a//b", "./a", "a\n"] {
            assert!(bad.parse::<RelativePath>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_prints_back(text in "/?[a.*/ é\n]{0,12}") {
            if let Ok(path) = text.parse::<AbsolutePath>() {
                prop_assert_eq!(path.to_string(), text);
                prop_assert!(path.segments().all(|s| s != "." && s != ".." && !s.is_empty()));
            }
        }
    }
}
