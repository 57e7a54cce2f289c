//! Errors of an Agentfile: always with the file, the line, the column and the field.

use super::AGENTFILE_MAX_BYTES;
use crate::quoted::{Quoted, is_hidden};
use std::fmt;
use thiserror::Error;

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Counted from 1.
    pub line: usize,
    /// Counted in characters from 1.
    pub column: usize,
}

impl Position {
    /// The first character.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// A text and where its lines start, to turn byte offsets into places.
pub(super) struct Lines<'a> {
    text: &'a str,
    /// Byte offsets; the first is 0.
    starts: Vec<usize>,
    /// Then columns are bytes, and no line has to be counted through.
    ascii: bool,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts, ascii: text.is_ascii() }
    }

    /// The place of a byte offset.
    pub(super) fn place(&self, offset: usize) -> Position {
        let line = self.starts.partition_point(|&start| start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..offset).filter(|_| !self.ascii);
        let column = before.map_or(offset.saturating_sub(start), |before| before.chars().count());
        Position { line, column: column + 1 }
    }

    /// The place of a slice of the text.
    pub(super) fn place_of(&self, part: &str) -> Position {
        self.place((part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize))
    }

    /// A part of the text.
    pub(super) fn get(&self, span: std::ops::Range<usize>) -> &'a str {
        self.text.get(span).unwrap_or_default()
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Why a text is not an Agentfile.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AgentfileError {
    /// The file is too large.
    #[error("{origin}: {length} bytes, at most {AGENTFILE_MAX_BYTES} are allowed")]
    TooLarge {
        /// The file.
        origin: String,
        /// Its bytes.
        length: usize,
    },
    /// The text is not of its format.
    #[error("{origin}:{place}: not valid {format}: {message}")]
    Syntax {
        /// The file.
        origin: String,
        /// The place.
        place: Position,
        /// `YAML`, `JSON` or `TOML`.
        format: &'static str,
        /// What the parser says.
        message: String,
    },
    /// A field is missing, unknown or wrong.
    #[error("{origin}:{place}: {}{message}", FieldPrefix(.field))]
    Field {
        /// The file.
        origin: String,
        /// The place.
        place: Position,
        /// The field's path, such as `run.entrypoint[0]`; empty for the whole file.
        field: String,
        /// What is wrong, and what is expected.
        message: String,
    },
}

struct FieldPrefix<'a>(&'a str);

impl fmt::Display for FieldPrefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}: ", self.0) }
    }
}

impl AgentfileError {
    /// The field's path, when the error is about one.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Field { field, .. } => Some(field),
            Self::TooLarge { .. } | Self::Syntax { .. } => None,
        }
    }

    /// The place, when the error has one.
    pub const fn place(&self) -> Option<Position> {
        match self {
            Self::Field { place, .. } | Self::Syntax { place, .. } => Some(*place),
            Self::TooLarge { .. } => None,
        }
    }
}

/// An error before the file's name is added.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The text is not of its format.
    Syntax { format: &'static str, place: Position, message: String },
    /// A field is wrong.
    Field { place: Position, field: String, message: String },
}

impl Problem {
    pub(crate) fn in_file(self, origin: &str) -> AgentfileError {
        let origin = origin.to_owned();
        match self {
            Self::Syntax { format, place, message } => {
                // A parser's message may quote the text.
                let message = message.chars().map(|c| if is_hidden(c) { ' ' } else { c }).collect();
                AgentfileError::Syntax { origin, place, format, message }
            }
            Self::Field { place, field, message } => AgentfileError::Field { origin, place, field, message },
        }
    }
}

/// A parser's message without the place that it repeats at its end: ` at line 1 column 7` (serde_json),
/// ` at line 1, column 7` (serde-saphyr).
pub(super) fn without_place(message: &str) -> &str {
    let Some((said, place)) = message.rsplit_once(" at line ") else { return message };
    let words = ["column", ","];
    let plain = words.iter().fold(place.to_owned(), |place, word| place.replace(word, ""));
    if plain.chars().all(|c| c.is_ascii_digit() || c == ' ') { said } else { message }
}

/// The path of a field below another; a key that is not a plain word is quoted.
pub(crate) fn below(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let key = if plain && key.len() <= 64 { key.to_owned() } else { Quoted(key).to_string() };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}
