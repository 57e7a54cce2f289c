//! How text that somebody else wrote appears in our messages: in backquotes, control characters
//! escaped, and cut, so that a message can neither flood nor steer a terminal or a log.

use std::fmt;

/// Longer text is cut: a message names the value, it does not repeat it.
const SHOWN_CHARS: usize = 64;

/// Displays a text quoted, escaped and cut.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`")?;
        for (count, c) in self.0.chars().enumerate() {
            if count == SHOWN_CHARS {
                f.write_str("…")?;
                break;
            }
            if is_hidden(c) {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        f.write_str("`")
    }
}

/// True for characters that do not show what they are: control characters, line and paragraph
/// separators, zero-width and bidirectional formatting characters.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{00ad}' | '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Words as a sentence has them: `a, b or c`.
pub(crate) fn alternatives(words: &[&str]) -> String {
    match words.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, before)) => format!("{} or {last}", before.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_choice() {
        assert_eq!(alternatives(&["a"]), "a");
        assert_eq!(alternatives(&["a", "b", "c"]), "a, b or c");
    }

    #[test]
    fn escapes_and_cuts() {
        assert_eq!(Quoted("a\nb\u{202e}").to_string(), "`a\\nb\\u{202e}`");
        assert_eq!(Quoted(&"x".repeat(300)).to_string().chars().count(), SHOWN_CHARS + 3);
    }
}
