//! Reads TOML.

use super::error::{Lines, Position, Problem};
use super::tree::{Key, Node, PlainKind, Value, check, written_twice};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The parser's only word for it; its error has no kinds.
const DUPLICATE: &str = "duplicate key";

fn convert(lines: &Lines<'_>, value: &Spanned<DeValue<'_>>) -> Node {
    let span = value.span();
    let plain = |kind| {
        let written = lines.get(span.clone()).to_owned();
        Value::Plain { kind, text: written, is_text: false }
    };
    let converted = match value.get_ref() {
        DeValue::String(words) => Value::Text(words.clone().into_owned()),
        DeValue::Integer(_) => plain(PlainKind::Integer),
        DeValue::Float(_) => plain(PlainKind::Float),
        DeValue::Boolean(_) => plain(PlainKind::Boolean),
        DeValue::Datetime(_) => plain(PlainKind::Date),
        DeValue::Array(items) => Value::List(items.iter().map(|item| convert(lines, item)).collect()),
        DeValue::Table(table) => convert_table(lines, table),
    };
    Node { place: lines.place(span.start), value: converted }
}

fn convert_table(lines: &Lines<'_>, table: &DeTable<'_>) -> Value {
    let entry = |(key, value): (&Spanned<std::borrow::Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
        let place = lines.place(key.span().start);
        (Key { place, text: key.get_ref().clone().into_owned() }, convert(lines, value))
    };
    Value::Map(table.iter().map(entry).collect())
}

/// Reads a document. The parser refuses keys that are written twice and deep nesting.
pub(super) fn read(text: &str) -> Result<Node, Problem> {
    let lines = &Lines::new(text);
    let table = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let place = lines.place(span.start);
        if error.message() == DUPLICATE {
            return written_twice(place, lines.get(span).trim_matches(['"', '\'']));
        }
        Problem::Syntax { format: "TOML", place, message: error.message().to_owned() }
    })?;
    let node = Node { place: Position::START, value: convert_table(lines, table.get_ref()) };
    check(&node)?;
    Ok(node)
}
