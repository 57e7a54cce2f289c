//! Reads YAML. A scalar that is not quoted keeps its text, so that a field which expects text gets
//! `1.10` and not the number; aliases are few, and merge keys and tags are refused.

use super::error::{Position, Problem, without_place};
use super::tree::{DEPTH_MAX, Key, NODES_MAX, Node, PlainKind, Value, check, written_twice};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use serde_saphyr::{Location, Options, Spanned};
use std::fmt;

/// Aliases of a file: a convenience for a shared list, not a language.
const ALIASES_MAX: usize = 32;
/// Bytes of all scalars after the expansion of aliases: twice the largest file.
const SCALARS_MAX: usize = 2 * super::AGENTFILE_MAX_BYTES;

/// A scalar or collection as the parser delivers it. A plain scalar's text is cut out of the
/// source afterwards, since the parser delivers only its meaning.
enum Raw {
    Null,
    Plain(PlainKind),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Plain(PlainKind::Boolean))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Plain(PlainKind::Integer))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Plain(PlainKind::Integer))
    }

    fn visit_i128<E>(self, _: i128) -> Result<Raw, E> {
        Ok(Raw::Plain(PlainKind::Integer))
    }

    fn visit_u128<E>(self, _: u128) -> Result<Raw, E> {
        Ok(Raw::Plain(PlainKind::Integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Plain(PlainKind::Float))
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 4 * NODES_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
            max_recorded_anchor_events: NODES_MAX,
            max_recorded_anchor_bytes: SCALARS_MAX,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_documents: 1,
            max_nodes: NODES_MAX,
            max_total_scalar_bytes: SCALARS_MAX,
            max_merge_keys: 0,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: NODES_MAX,
            max_replay_stack_depth: 4,
            max_alias_expansions_per_anchor: ALIASES_MAX,
        },
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

fn position(location: Location) -> Position {
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).max(1);
    Position { line: number(location.line()), column: number(location.column()) }
}

/// The source text of a scalar.
fn source(text: &str, location: Location) -> Option<String> {
    let start = usize::try_from(location.span().byte_offset()?).ok()?;
    let length = usize::try_from(location.span().byte_len()?).ok()?;
    Some(text.get(start..start.checked_add(length)?)?.trim_end().to_owned())
}

fn convert(text: &str, raw: Spanned<Raw>) -> Result<Node, Problem> {
    let place = position(raw.referenced);
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Text(words) => Value::Text(words),
        Raw::Plain(kind) => {
            let written = source(text, raw.defined).ok_or_else(|| Problem::Syntax {
                format: "YAML",
                place,
                message: "this value cannot be read, write it in quotes".to_owned(),
            })?;
            Value::Plain { kind, text: written, is_text: true }
        }
        Raw::List(items) => {
            Value::List(items.into_iter().map(|item| convert(text, item)).collect::<Result<_, _>>()?)
        }
        Raw::Map(entries) => {
            let entry = |(key, value): (Spanned<String>, Spanned<Raw>)| {
                Ok((Key { place: position(key.referenced), text: key.value }, convert(text, value)?))
            };
            Value::Map(entries.into_iter().map(entry).collect::<Result<_, _>>()?)
        }
    };
    Ok(Node { place, value })
}

/// Reads a document.
pub(super) fn read(text: &str) -> Result<Node, Problem> {
    let raw = serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options()).map_err(|error| {
        let error = error.without_snippet();
        if let serde_saphyr::Error::DuplicateMappingKey { key, location } = error {
            return written_twice(position(*location), key.as_deref().unwrap_or_default());
        }
        let mut message = without_place(&error.to_string()).to_owned();
        if message.contains("nchor") {
            message.push_str(" (a value that starts with `*` or `&` is written in quotes)");
        }
        let place = error.location().map_or(Position::START, position);
        Problem::Syntax { format: "YAML", place, message }
    })?;
    let node = convert(text, raw)?;
    check(&node)?;
    Ok(node)
}
