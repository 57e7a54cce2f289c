//! Reads JSON. Each value is first taken as a slice of the text, whose address gives its place.

use super::error::{Lines, Position, Problem, without_place};
use super::tree::{DEPTH_MAX, Key, Node, PlainKind, Value, check};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// A mapping's entries in order, duplicates kept.
struct Entries<'a>(Vec<(&'a RawValue, &'a RawValue)>);

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct Reader<'a> {
    lines: Lines<'a>,
}

impl Reader<'_> {
    /// The syntax of the whole text is checked before; what fails here is text that JSON allows
    /// and Unicode does not, such as half of a surrogate pair.
    fn parse<'a, T: Deserialize<'a>>(&self, part: &'a str) -> Result<T, Problem> {
        serde_json::from_str(part).map_err(|error| Problem::Syntax {
            format: "JSON",
            place: self.lines.place_of(part),
            message: without_place(&error.to_string()).to_owned(),
        })
    }

    fn node(&self, part: &str, depth: usize) -> Result<Node, Problem> {
        let place = self.lines.place_of(part);
        if depth > DEPTH_MAX {
            let message = format!("nested deeper than {DEPTH_MAX} levels");
            return Err(Problem::Syntax { format: "JSON", place, message });
        }
        let plain = |kind| Value::Plain { kind, text: part.to_owned(), is_text: false };
        let value = match part.as_bytes().first() {
            Some(b'{') => {
                let Entries(entries) = self.parse(part)?;
                let entry = |(key, value): (&RawValue, &RawValue)| {
                    let text = self.parse::<Cow<'_, str>>(key.get())?.into_owned();
                    let key = Key { place: self.lines.place_of(key.get()), text };
                    Ok((key, self.node(value.get(), depth + 1)?))
                };
                Value::Map(entries.into_iter().map(entry).collect::<Result<_, _>>()?)
            }
            Some(b'[') => {
                let items: Vec<&RawValue> = self.parse(part)?;
                let item = |item: &RawValue| self.node(item.get(), depth + 1);
                Value::List(items.into_iter().map(item).collect::<Result<_, _>>()?)
            }
            Some(b'"') => Value::Text(self.parse(part)?),
            Some(b'n') => Value::Null,
            Some(b't' | b'f') => plain(PlainKind::Boolean),
            _ if part.contains(['.', 'e', 'E']) => plain(PlainKind::Float),
            _ => plain(PlainKind::Integer),
        };
        Ok(Node { place, value })
    }
}

/// Reads a document.
pub(super) fn read(text: &str) -> Result<Node, Problem> {
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| Problem::Syntax {
        format: "JSON",
        place: Position { line: error.line().max(1), column: error.column().max(1) },
        message: without_place(&error.to_string()).to_owned(),
    })?;
    let reader = Reader { lines: Lines::new(text) };
    let node = reader.node(text.trim_matches([' ', '\t', '\r', '\n']), 0)?;
    check(&node)?;
    Ok(node)
}
