//! Path patterns.
//!
//! A pattern is an absolute path in normal form whose segments may hold stars:
//!
//! - `*` inside a segment stands for any run of characters of that one segment, the empty run too:
//!   `/etc/*.conf` matches `/etc/a.conf` and `/etc/.conf`, not `/etc/x/a.conf`. A segment that is
//!   only `*` matches every name. A leading dot is not special.
//! - `/**` at the end, and only there, stands for the directory itself and everything below it at
//!   any depth: `/data/**` matches `/data`, `/data/a` and `/data/a/b`.
//! - `?`, `[`, `]`, `{`, `}` and `\` have a meaning in other globs and none here, so they are
//!   refused; a `*` matches a name that has one.
//!
//! Inclusion is decided exactly: segments are independent, and a glob includes another when it
//! matches the other's text with each of that text's stars taken as a letter that only a star
//! matches.

use crate::macros::serde_as_text;
use crate::path::{AbsolutePath, PathError, check_absolute};
use crate::quoted::Quoted;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Stars of one pattern: more than anybody can read.
pub const GLOBS_MAX: usize = 16;

/// Why a text is not a path pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatternError {
    /// The path itself is wrong.
    #[error(transparent)]
    Path(#[from] PathError),
    /// `**` is not the whole last segment.
    #[error("pattern {}: `**` is allowed only as the last segment, such as /data/**", Quoted(.0))]
    DoubleStar(String),
    /// There are too many stars.
    #[error("pattern {} has {count} stars, at most {GLOBS_MAX} are allowed", Quoted(.pattern))]
    TooManyStars {
        /// The pattern.
        pattern: String,
        /// Stars found.
        count: usize,
    },
    /// A character of other glob languages is used.
    #[error("pattern {}: `{found}` is not part of the grammar; `*` stands for part of a name and `/**` at the end for any depth", Quoted(.pattern))]
    ForeignGlob {
        /// The pattern.
        pattern: String,
        /// The character.
        found: char,
    },
}

/// How much of a pattern the kernel can enforce: it knows exact paths and whole subtrees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelPrefix {
    /// The pattern is one path.
    Exact(AbsolutePath),
    /// The pattern is a directory and everything below.
    Subtree(AbsolutePath),
    /// The pattern has stars inside segments; `below` is the deepest directory without one, and a
    /// rule on it would allow more than was declared.
    Glob {
        /// The directory above the first star.
        below: AbsolutePath,
    },
}

/// An absolute path pattern; see the module for the grammar. Its order is that of its text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathPattern {
    /// The canonical text.
    text: String,
}

impl PathPattern {
    /// The pattern that matches exactly `path`; `None` when the path has a character of the glob
    /// grammar.
    pub fn exact(path: &AbsolutePath) -> Option<Self> {
        let pattern: Self = path.as_str().parse().ok()?;
        matches!(pattern.kernel_prefix(), KernelPrefix::Exact(_)).then_some(pattern)
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text without `/**`, and whether it was there.
    fn split(&self) -> (&str, bool) {
        match self.text.strip_suffix("/**") {
            Some(above) => (above, true),
            None => (&self.text, false),
        }
    }

    /// Segments before `/**`.
    fn segments(&self) -> impl Iterator<Item = &str> {
        self.split().0.split('/').filter(|segment| !segment.is_empty())
    }

    fn is_subtree(&self) -> bool {
        self.split().1
    }

    /// True when the pattern matches `path`.
    pub fn matches(&self, path: &AbsolutePath) -> bool {
        let mut given = path.segments();
        for glob in self.segments() {
            match given.next() {
                Some(name) if glob_match(glob, name) => {}
                _ => return false,
            }
        }
        self.is_subtree() || given.next().is_none()
    }

    /// True when every path that this matches, `other` matches too.
    pub fn is_subset(&self, other: &Self) -> bool {
        let mut mine = self.segments();
        for glob in other.segments() {
            match mine.next() {
                Some(inner) if glob_match(glob, inner) => {}
                _ => return false,
            }
        }
        // What is left of `mine` lies below `other`'s last segment.
        other.is_subtree() || (mine.next().is_none() && !self.is_subtree())
    }

    /// What the kernel can enforce of this pattern.
    pub fn kernel_prefix(&self) -> KernelPrefix {
        let (above, subtree) = self.split();
        let Some(star) = above.find('*') else {
            let path = AbsolutePath::from_checked(if above.is_empty() { "/" } else { above });
            return if subtree { KernelPrefix::Subtree(path) } else { KernelPrefix::Exact(path) };
        };
        let literal = above.get(..star).unwrap_or_default();
        let directory = literal.rsplit_once('/').map_or("", |(directory, _)| directory);
        KernelPrefix::Glob {
            below: AbsolutePath::from_checked(if directory.is_empty() { "/" } else { directory }),
        }
    }
}

/// True when `glob` matches the whole of `text`, in time linear in both: what is between the stars is found
/// from left to right, each part as early as it can be.
///
/// `text` is a name, or another glob: a star in it is matched by a star of `glob` and by nothing
/// else, since a star of `glob` is never taken literally. So with a glob as `text` the answer is
/// whether `glob` matches every name that the other does.
fn glob_match(glob: &str, text: &str) -> bool {
    let Some((first, rest)) = glob.split_once('*') else {
        return glob == text;
    };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut text) = text.strip_prefix(first).and_then(|text| text.strip_suffix(last)) else {
        return false;
    };
    middle.split('*').all(|part| match text.split_once(part) {
        // An empty part is found before the first character.
        Some((_, after)) => {
            text = after;
            true
        }
        None => false,
    })
}

impl FromStr for PathPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        check_absolute(text)?;
        let pattern = || text.to_owned();
        if let Some(found) = text.chars().find(|c| matches!(c, '?' | '[' | ']' | '{' | '}' | '\\')) {
            return Err(PatternError::ForeignGlob { pattern: pattern(), found });
        }
        let above = text.strip_suffix("/**").unwrap_or(text);
        if above.contains("**") {
            return Err(PatternError::DoubleStar(pattern()));
        }
        let count = above.matches('*').count();
        if count > GLOBS_MAX {
            return Err(PatternError::TooManyStars { pattern: pattern(), count });
        }
        Ok(Self { text: pattern() })
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

serde_as_text!(PathPattern);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> PathPattern {
        text.parse().unwrap()
    }

    fn path(text: &str) -> AbsolutePath {
        text.parse().unwrap()
    }

    #[test]
    fn matching() {
        for (glob, yes, no) in [
            ("/data/**", vec!["/data", "/data/a", "/data/a/b"], vec!["/", "/dat", "/database"]),
            ("/etc/*.conf", vec!["/etc/a.conf", "/etc/.conf"], vec!["/etc/a.con", "/etc/x/a.conf", "/etc"]),
            ("/etc/*", vec!["/etc/a", "/etc/.a"], vec!["/etc", "/etc/a/b"]),
            ("/a/*/c/**", vec!["/a/b/c", "/a/b/c/d"], vec!["/a/c", "/a/b/b/c"]),
            ("/a*b*c", vec!["/abc", "/axxbxxc", "/abcbc"], vec!["/ab", "/abcd", "/a/b/c"]),
            ("/**", vec!["/", "/a"], vec![]),
            ("/", vec!["/"], vec!["/a"]),
            ("/a", vec!["/a"], vec!["/a*", "/ab"]),
        ] {
            for text in yes {
                assert!(pattern(glob).matches(&path(text)), "{glob} {text}");
            }
            for text in no {
                assert!(!pattern(glob).matches(&path(text)), "{glob} {text}");
            }
        }
    }

    #[test]
    fn inclusion() {
        for (inner, outer) in [
            ("/a", "/a"),
            ("/a", "/**"),
            ("/a/b", "/a/*"),
            ("/a/x*", "/a/*"),
            ("/a/*.d/x", "/a/**"),
            ("/a/**", "/a/**"),
            ("/a/b/**", "/a/**"),
            ("/a/*b*c", "/a/*c"),
            ("/a/**", "/**"),
            ("/", "/**"),
        ] {
            assert!(pattern(inner).is_subset(&pattern(outer)), "{inner} in {outer}");
        }
        for (inner, outer) in [
            ("/a/**", "/a/*"),
            ("/a/**", "/a"),
            ("/a/*", "/a/x*"),
            ("/a", "/a/b/**"),
            ("/a/*c", "/a/*b*c"),
            ("/ab/**", "/a/**"),
            ("/**", "/a/**"),
            ("/*", "/a"),
        ] {
            assert!(!pattern(inner).is_subset(&pattern(outer)), "{inner} in {outer}");
        }
    }

    #[test]
    fn refused() {
        let stars = format!("/{}", "*a".repeat(GLOBS_MAX + 1));
        for (bad, says) in [
            ("", "empty"),
            ("data/**", "not absolute"),
            ("/data/**/", "ends with"),
            ("/data/**/x", "only as the last segment"),
            ("/data/x**", "only as the last segment"),
            ("/data/***", "only as the last segment"),
            ("/**/**", "only as the last segment"),
            ("/data/../x/**", "segment `..`"),
            ("/data//**", "empty segment"),
            ("/da[ta]", "not part of the grammar"),
            ("/data/{a,b}", "not part of the grammar"),
            ("/data/?", "not part of the grammar"),
            ("/a\n", "U+000A"),
            (&stars, "at most 16"),
        ] {
            let error = bad.parse::<PathPattern>().unwrap_err().to_string();
            assert!(error.contains(says), "{bad:?}: {error}");
        }
    }

    #[test]
    fn what_the_kernel_knows() {
        let exact = |text: &str| KernelPrefix::Exact(path(text));
        let subtree = |text: &str| KernelPrefix::Subtree(path(text));
        let glob = |text: &str| KernelPrefix::Glob { below: path(text) };
        for (text, prefix) in [
            ("/a/b", exact("/a/b")),
            ("/", exact("/")),
            ("/**", subtree("/")),
            ("/a/**", subtree("/a")),
            ("/*", glob("/")),
            ("/*/**", glob("/")),
            ("/a/b*/c", glob("/a")),
            ("/a/b/*.d/**", glob("/a/b")),
        ] {
            assert_eq!(pattern(text).kernel_prefix(), prefix, "{text}");
        }
        assert_eq!(PathPattern::exact(&path("/a")), Some(pattern("/a")));
        assert_eq!(PathPattern::exact(&path("/a*")), None);
        assert_eq!(PathPattern::exact(&path("/a/**")), None);
    }

    /// Few letters and short names, so that generated patterns often meet.
    fn patterns() -> impl Strategy<Value = PathPattern> {
        let segment = "[ab*]{1,4}".prop_filter("`**` is not a segment's", |s| !s.contains("**"));
        (prop::collection::vec(segment, 0..4), any::<bool>()).prop_map(|(segments, subtree)| {
            let mut text: String = segments.iter().map(|segment| format!("/{segment}")).collect();
            if subtree || text.is_empty() {
                text.push_str("/**");
            }
            pattern(&text)
        })
    }

    fn paths() -> impl Strategy<Value = AbsolutePath> {
        prop::collection::vec("[ab]{1,4}", 1..5)
            .prop_map(|segments| path(&format!("/{}", segments.join("/"))))
    }

    /// A path that the pattern matches: each star filled, and the subtree entered.
    fn member(pattern: &PathPattern, fill: &[String], below: &[String]) -> AbsolutePath {
        let mut fill = fill.iter().cycle();
        let mut text = String::new();
        for segment in pattern.segments() {
            text.push('/');
            for c in segment.chars() {
                match c {
                    '*' => text.push_str(fill.next().unwrap()),
                    c => text.push(c),
                }
            }
        }
        if pattern.is_subtree() || text.is_empty() {
            below.iter().for_each(|segment| text.extend(["/", segment]));
        }
        path(if text.is_empty() { "/" } else { &text })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn parse_and_print_are_inverse(text in "/[ab*./?]{0,8}(/\\*\\*)?") {
            if let Ok(pattern) = text.parse::<PathPattern>() {
                prop_assert_eq!(pattern.to_string(), text);
            }
        }

        /// Against the definition, star by star.
        #[test]
        fn globs_match_as_they_are_defined(glob in "[ab*]{0,6}", text in "[ab*]{0,8}") {
            fn by_definition(glob: &[u8], text: &[u8]) -> bool {
                match (glob, text) {
                    ([], []) => true,
                    ([b'*', rest @ ..], _) => (0..=text.len()).any(|taken| by_definition(rest, &text[taken..])),
                    ([a, glob @ ..], [b, text @ ..]) => a == b && by_definition(glob, text),
                    _ => false,
                }
            }
            prop_assert_eq!(glob_match(&glob, &text), by_definition(glob.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn a_subset_permits_nothing_more(a in patterns(), b in patterns(), p in paths()) {
            if a.is_subset(&b) && a.matches(&p) {
                prop_assert!(b.matches(&p), "{a} in {b}, {p}");
            }
        }

        #[test]
        fn members_of_a_subset_are_members(
            a in patterns(), b in patterns(),
            fill in prop::collection::vec("[abz]{1,3}", 1..4), below in prop::collection::vec("[abz]{1,2}", 0..3),
        ) {
            let p = member(&a, &fill, &below);
            prop_assert!(a.matches(&p), "{a} {p}");
            if a.is_subset(&b) {
                prop_assert!(b.matches(&p), "{a} in {b}, {p}");
            } else if fill.iter().all(|f| f.contains('z')) {
                // `z` is in no pattern: a member filled with it tells the two apart, or the
                // subtree does.
                let deeper = member(&a, &["z".to_owned()], &["z".to_owned(), "z".to_owned(), "z".to_owned(), "z".to_owned()]);
                let flat = member(&a, &["z".to_owned()], &[]);
                prop_assert!(!b.matches(&deeper) || !b.matches(&flat), "{a} not in {b}");
            }
        }

        #[test]
        fn inclusion_is_a_partial_order(a in patterns(), b in patterns(), c in patterns()) {
            prop_assert!(a.is_subset(&a));
            if a.is_subset(&b) && b.is_subset(&a) {
                prop_assert_eq!(&a, &b);
            }
            if a.is_subset(&b) && b.is_subset(&c) {
                prop_assert!(a.is_subset(&c));
            }
        }

        #[test]
        fn the_kernel_allows_exactly_the_pattern(a in patterns(), p in paths()) {
            match a.kernel_prefix() {
                KernelPrefix::Exact(exact) => prop_assert_eq!(a.matches(&p), p == exact),
                KernelPrefix::Subtree(top) => prop_assert_eq!(a.matches(&p), p.is_within(&top)),
                KernelPrefix::Glob { below } => prop_assert!(!a.matches(&p) || p.is_within(&below)),
            }
        }
    }
}
