//! Patterns of files, as a person writes them in copy steps: `src/*.py`, `**/__pycache__`,
//! `data/[a-f]?.bin`.
//!
//! `*` stands for any characters of one segment, `?` for one character, `[a-z]` and `[!a-z]` for one
//! of a set, and a segment `**` for any number of segments, none included. A name that starts with a
//! dot is like any other. Matching takes time in proportion to pattern times path, whatever the
//! pattern.

use crate::macros::serde_as_text;
use crate::path::{PathError, RelativePath};
use crate::quoted::Quoted;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Characters that make a text a pattern.
const SPECIAL: [char; 3] = ['*', '?', '['];

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GlobError {
    /// As a path it is wrong.
    #[error(transparent)]
    Path(#[from] PathError),
    /// `**` is a part of a segment.
    #[error("pattern {}: `**` stands alone between slashes", Quoted(.0))]
    Stars(String),
    /// A set is empty, not closed or has its ends reversed.
    #[error("pattern {}: a set is written [abc], [a-z] or [!a-z]", Quoted(.0))]
    Set(String),
    /// A backslash.
    #[error("pattern {} has a backslash: a special character is written as a set, such as [*]", Quoted(.0))]
    Backslash(String),
}

/// One character, or a range of them.
type Range = (char, char);

/// What one character of a name is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Token {
    Literal(char),
    Any,
    Set {
        negated: bool,
        ranges: Vec<Range>,
    },
    /// Any number of characters.
    Star,
}

impl Token {
    fn matches(&self, c: char) -> bool {
        match self {
            Self::Literal(literal) => *literal == c,
            Self::Any => true,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|&(low, high)| (low..=high).contains(&c)) != *negated
            }
            Self::Star => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Segment {
    /// `**`.
    Deep,
    Name(Vec<Token>),
}

/// A pattern of relative paths.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Glob {
    text: String,
    segments: Vec<Segment>,
}

/// Reads `[...]` from behind its opening bracket; `None` when it is wrong.
fn set(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = chars.next_if(|&c| c == '!' || c == '^').is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match chars.next()? {
            ']' if !ranges.is_empty() => return Some(Token::Set { negated, ranges }),
            // First in the set, a bracket is itself.
            low => low,
        };
        let dash = chars.next_if_eq(&'-').is_some();
        match chars.peek().copied().filter(|_| dash) {
            // Last in the set, a dash is itself.
            Some(']') => ranges.extend([(low, low), ('-', '-')]),
            Some(high) if low <= high => {
                chars.next();
                ranges.push((low, high));
            }
            Some(_) => return None,
            None if dash => return None,
            None => ranges.push((low, low)),
        }
    }
}

fn segment(whole: &str, text: &str) -> Result<Segment, GlobError> {
    if text == "**" {
        return Ok(Segment::Deep);
    }
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' if tokens.last() == Some(&Token::Star) => return Err(GlobError::Stars(whole.to_owned())),
            '*' => Token::Star,
            '?' => Token::Any,
            '[' => set(&mut chars).ok_or_else(|| GlobError::Set(whole.to_owned()))?,
            '\\' => return Err(GlobError::Backslash(whole.to_owned())),
            literal => Token::Literal(literal),
        });
    }
    Ok(Segment::Name(tokens))
}

/// Whether a sequence of tokens matches a sequence of items, where a token may be a star: after a
/// mismatch only the last star takes one item more, since an earlier one could gain nothing by it.
fn sequence<T, I>(pattern: &[T], items: &[I], is_star: fn(&T) -> bool, one: impl Fn(&T, &I) -> bool) -> bool {
    let (mut p, mut i) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(p), items.get(i)) {
            (Some(token), _) if is_star(token) => {
                retry = Some((p + 1, i));
                p += 1;
            }
            (Some(token), Some(item)) if one(token, item) => (p, i) = (p + 1, i + 1),
            (None, None) => return true,
            (_, None) => return false,
            (_, Some(_)) => {
                let Some((after, from)) = retry else { return false };
                retry = Some((after, from + 1));
                (p, i) = (after, from + 1);
            }
        }
    }
}

fn name_matches(tokens: &[Token], name: &str) -> bool {
    let chars: Vec<char> = name.chars().collect();
    sequence(tokens, &chars, |token| *token == Token::Star, |token, &c| token.matches(c))
}

impl Glob {
    /// True when `text` has a character that makes it a pattern.
    pub fn is_special(text: &str) -> bool {
        text.contains(SPECIAL)
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True when the whole of a relative path, written with `/` between its segments, matches.
    pub fn matches(&self, path: &str) -> bool {
        let names: Vec<&str> = path.split('/').collect();
        sequence(
            &self.segments,
            &names,
            |segment| *segment == Segment::Deep,
            |segment, name| matches!(segment, Segment::Name(tokens) if name_matches(tokens, name)),
        )
    }

    /// True when this excludes `path`, by the rule of `.gitignore`: a pattern without a slash is
    /// compared with the last segment, any other with the whole path. What is below an excluded
    /// directory is excluded with it; the caller does not descend.
    pub fn excludes(&self, path: &str) -> bool {
        match self.segments.as_slice() {
            [Segment::Name(tokens)] => name_matches(tokens, path.rsplit('/').next().unwrap_or_default()),
            _ => self.matches(path),
        }
    }

    /// The directory above everything that can match: the segments before the first special one.
    /// `None` when the first is special, which means the root.
    pub fn base(&self) -> Option<RelativePath> {
        let plain = self.text.split('/').take_while(|segment| !Self::is_special(segment));
        let plain: Vec<&str> = plain.take(self.segments.len().saturating_sub(1)).collect();
        plain.join("/").parse().ok()
    }
}

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        // The rules of paths hold for patterns too: the special characters are none of theirs.
        text.parse::<RelativePath>()?;
        let segments = text.split('/').map(|part| segment(text, part)).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), segments })
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

serde_as_text!(Glob);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn glob(text: &str) -> Glob {
        text.parse().unwrap()
    }

    #[test]
    fn matching() {
        for (pattern, yes, no) in [
            ("*.py", &["a.py", ".py"][..], &["a.pyc", "d/a.py", "py"][..]),
            ("src/*", &["src/a", "src/.a"], &["src", "src/a/b"]),
            ("**/x", &["x", "a/x", "a/b/x"], &["xx", "a/x/b"]),
            ("a/**", &["a", "a/b", "a/b/c"], &["b", "ab"]),
            ("a/**/z", &["a/z", "a/b/z", "a/b/c/z"], &["a", "z", "a/zz"]),
            ("**", &["a", "a/b"], &[]),
            ("a?c", &["abc", "a-c", "aäc"], &["ac", "abbc"]),
            ("[a-c]x", &["ax", "cx"], &["dx", "x"]),
            ("[!a-c]x", &["dx", "äx"], &["ax"]),
            ("[]-]", &["]", "-"], &["a"]),
            ("[*]", &["*"], &["a"]),
            ("a*b*c", &["abc", "aXbYc", "abbcc"], &["ab", "acb"]),
            ("plain/path", &["plain/path"], &["plain", "plain/path/x"]),
        ] {
            for path in yes {
                assert!(glob(pattern).matches(path), "{pattern} {path}");
            }
            for path in no {
                assert!(!glob(pattern).matches(path), "{pattern} {path}");
            }
        }
    }

    #[test]
    fn exclusion_and_base() {
        assert!(glob("*.pyc").excludes("a/b/c.pyc") && glob("node_modules").excludes("a/node_modules"));
        assert!(glob("a/*.pyc").excludes("a/c.pyc") && !glob("a/*.pyc").excludes("b/a/c.pyc"));
        for (pattern, base) in [
            ("*.py", None),
            ("src/*", Some("src")),
            ("a/b/**/c", Some("a/b")),
            ("a/b", Some("a")),
            ("**", None),
        ] {
            assert_eq!(glob(pattern).base().map(|path| path.to_string()).as_deref(), base, "{pattern}");
        }
    }

    #[test]
    fn wrong_patterns_say_why() {
        for (bad, says) in [
            ("", "empty"),
            ("/a*", "absolute"),
            ("a/", "ends with"),
            ("../*", "`..`"),
            ("a**", "stands alone"),
            ("***", "stands alone"),
            ("[", "a set is written"),
            ("[]", "a set is written"),
            ("[!]", "a set is written"),
            ("[b-a]", "a set is written"),
            ("[a", "a set is written"),
            ("[a-", "a set is written"),
            ("[a/b]", "a set is written"),
            ("a\\*", "backslash"),
            ("*\n", "U+000A"),
        ] {
            let error = bad.parse::<Glob>().unwrap_err().to_string();
            assert!(error.contains(says), "{bad:?}: {error}");
        }
    }

    /// The definition, without a thought of time.
    fn naive(pattern: &[Token], name: &[char]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, _) => name.is_empty(),
            (Some((Token::Star, rest)), _) => (0..=name.len()).any(|at| naive(rest, &name[at..])),
            (Some((token, rest)), Some((c, tail))) => token.matches(*c) && naive(rest, tail),
            (Some(_), None) => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn names_match_by_the_definition(pattern in "[ab*?]{1,6}", name in "[ab]{0,7}") {
            if let Ok(Segment::Name(tokens)) = segment(&pattern, &pattern) {
                let chars: Vec<char> = name.chars().collect();
                prop_assert_eq!(name_matches(&tokens, &name), naive(&tokens, &chars));
            }
        }

        #[test]
        fn no_text_panics_and_what_parses_prints_back(text in "[a-c*?\\[\\]!/.-]{0,10}", path in "[a-c/]{0,8}") {
            if let Ok(glob) = text.parse::<Glob>() {
                prop_assert_eq!(glob.to_string(), text);
                let matches = glob.matches(&path);
                // Whatever matches lies below the base.
                if let (true, Some(base)) = (matches, glob.base()) {
                    let below = path == base.as_str() || path.starts_with(&format!("{base}/"));
                    prop_assert!(below, "{} {}", glob, path);
                }
            }
        }
    }

    #[test]
    fn a_pattern_of_many_stars_takes_no_time() {
        let pattern = glob(&"*a".repeat(100));
        assert!(!pattern.matches(&format!("{}b", "a".repeat(254))));
        let deep = glob(&["**/a"; 100].join("/"));
        assert!(!deep.matches(&["b"; 1000].join("/")));
    }
}
