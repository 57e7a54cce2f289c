//! What an agent wrote, made safe for a terminal.
//!
//! An agent's output is untrusted: on a terminal, control sequences can rewrite what was printed, set titles or
//! clipboards, and make the terminal type answers. Shown on a terminal, every control character but tab is
//! printed as its escape; colours (SGR sequences) pass when colours are wanted and end with their line. Output
//! that goes to a file or a pipe is passed as it is.

/// How to treat output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Screen {
    /// Not a terminal: the bytes as they are.
    Raw,
    /// A terminal without colours.
    Plain,
    /// A terminal with colours.
    Coloured,
}

/// The longest colour sequence that passes; real ones have at most 20 bytes.
const MAX_SGR: usize = 64;
const RESET: &str = "\x1b[0m";

impl Screen {
    /// One piece of output, without its line break, as bytes to print.
    pub(crate) fn show(self, bytes: &[u8]) -> Vec<u8> {
        if self == Self::Raw {
            return bytes.to_vec();
        }
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let mut shown = String::with_capacity(bytes.len());
        let mut painted = false;
        for chunk in bytes.utf8_chunks() {
            painted |= self.text(chunk.valid(), &mut shown);
            for byte in chunk.invalid() {
                escape(&mut shown, u32::from(*byte));
            }
        }
        if painted {
            shown.push_str(RESET);
        }
        shown.into_bytes()
    }

    fn text(self, text: &str, shown: &mut String) -> bool {
        let mut painted = false;
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            if self == Self::Coloured
                && let Some((sequence, after)) = colour_sequence(rest)
            {
                shown.push_str(sequence);
                painted = true;
                rest = after;
                continue;
            }
            if character != '\t' && is_unsafe(character) {
                escape(shown, u32::from(character));
            } else {
                shown.push(character);
            }
            rest = rest.get(character.len_utf8()..).unwrap_or_default();
        }
        painted
    }
}

/// One line of text from elsewhere (a description, an error) without anything that acts on a terminal.
pub(crate) fn one_line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' => shown.push(' '),
            character if is_unsafe(character) => escape(&mut shown, u32::from(character)),
            character => shown.push(character),
        }
    }
    shown
}

/// Control characters, and the invisible ones that reorder text (Unicode UAX 9, bidirectional formatting).
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape(shown: &mut String, value: u32) {
    let text = if value <= 0xff { format!("\\x{value:02x}") } else { format!("\\u{{{value:x}}}") };
    shown.push_str(&text);
}

/// A colour sequence at the start of `text` (ECMA-48, SGR): `ESC [`, digits and separators, `m`.
fn colour_sequence(text: &str) -> Option<(&str, &str)> {
    let body = text.strip_prefix("\x1b[")?;
    let length = body.bytes().position(|byte| !matches!(byte, b'0'..=b'9' | b';' | b':'))?;
    if length > MAX_SGR || body.as_bytes().get(length) != Some(&b'm') {
        return None;
    }
    text.split_at_checked("\x1b[".len() + length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(screen: Screen, bytes: &[u8]) -> String {
        String::from_utf8(screen.show(bytes)).unwrap()
    }

    #[test]
    fn ordinary_text_passes() {
        for text in ["", "plain", "tab\there", "größe 漢字 🙂", "a\\x1b"] {
            assert_eq!(shown(Screen::Coloured, text.as_bytes()), text);
        }
        assert_eq!(shown(Screen::Plain, b"dos line\r"), "dos line");
    }

    #[test]
    fn what_acts_on_a_terminal_is_escaped() {
        let attacks: [&[u8]; 7] = [
            b"\x1b]0;title\x07",
            b"\x1b[2J",
            b"\x1bP+q\x1b\\",
            b"\x1b[6n",
            "\u{9b}2J".as_bytes(),
            b"over\rwrite",
            "abc\u{202e}fed".as_bytes(),
        ];
        for attack in attacks {
            let text = shown(Screen::Coloured, attack);
            assert!(!text.chars().any(is_unsafe), "{text:?}");
            assert!(text.contains('\\'), "{text:?}");
        }
        assert_eq!(shown(Screen::Plain, b"\xff\xfe"), "\\xff\\xfe");
    }

    #[test]
    fn colours_end_with_their_line() {
        assert_eq!(shown(Screen::Coloured, b"\x1b[1;31mred"), "\x1b[1;31mred\x1b[0m");
        assert_eq!(shown(Screen::Plain, b"\x1b[31mred"), "\\x1b[31mred");
        assert_eq!(shown(Screen::Coloured, b"\x1b["), "\\x1b[");
    }

    #[test]
    fn a_pipe_gets_the_bytes() {
        assert_eq!(Screen::Raw.show(b"\x1b[2J\xff\r"), b"\x1b[2J\xff\r");
    }
}
