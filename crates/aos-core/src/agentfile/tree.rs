//! A document of any of the formats as one tree, whose nodes know their places.

use super::error::{Position, Problem, below};
use crate::quoted::Quoted;
use std::collections::{BTreeMap, BTreeSet};

/// Collections inside collections: the schema needs nine.
pub(crate) const DEPTH_MAX: usize = 16;
/// Nodes of a document, aliases expanded: an Agentfile at all its bounds has fewer that matter.
pub(crate) const NODES_MAX: usize = 20_000;

/// A value and its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Position,
    pub(crate) value: Value,
}

/// A value of the document.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    /// A number, boolean or date, as it is written. `is_text` when the format lets a field decide
    /// that it is text: an unquoted YAML scalar.
    Plain {
        kind: PlainKind,
        text: String,
        is_text: bool,
    },
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// What a plain scalar looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlainKind {
    Integer,
    Float,
    Boolean,
    Date,
}

/// A mapping's key and its place.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) place: Position,
    pub(crate) text: String,
}

impl Value {
    /// What the value is, for "expected a list, found ...".
    pub(crate) const fn describe(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Plain { kind: PlainKind::Integer, .. } => "an integer",
            Self::Plain { kind: PlainKind::Float, .. } => "a fraction",
            Self::Plain { kind: PlainKind::Boolean, .. } => "a boolean",
            Self::Plain { kind: PlainKind::Date, .. } => "a date",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// What each format says of a key that is written twice, at its second place. Two of the parsers find
/// it before the tree is there, so that the field above has no name yet.
pub(crate) fn written_twice(place: Position, key: &str) -> Problem {
    let key = if key.is_empty() { String::new() } else { format!("{} ", Quoted(key)) };
    Problem::Field { place, field: String::new(), message: format!("the key {key}is written twice") }
}

/// Checks the bounds of a whole document and that no key is written twice.
pub(crate) fn check(root: &Node) -> Result<(), Problem> {
    let mut count = 0_usize;
    check_node(root, "", 0, &mut count)
}

fn check_node(node: &Node, path: &str, depth: usize, count: &mut usize) -> Result<(), Problem> {
    *count += 1;
    let problem = |place, message| Err(Problem::Field { place, field: path.to_owned(), message });
    if depth > DEPTH_MAX {
        return problem(node.place, format!("nested deeper than {DEPTH_MAX} levels"));
    }
    if *count > NODES_MAX {
        return problem(node.place, format!("the file has more than {NODES_MAX} values"));
    }
    match &node.value {
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                check_node(item, &format!("{path}[{index}]"), depth + 1, count)?;
            }
        }
        Value::Map(entries) => {
            let mut seen = BTreeSet::new();
            for (key, value) in entries {
                if !seen.insert(&key.text) {
                    return Err(written_twice(key.place, &key.text));
                }
                check_node(value, &below(path, &key.text), depth + 1, count)?;
            }
        }
        Value::Null | Value::Plain { .. } | Value::Text(_) => {}
    }
    Ok(())
}

/// The places of all fields, by path: a key's own for a mapping's field, the value's in a list.
pub(crate) fn places(root: &Node) -> BTreeMap<String, Position> {
    let mut places = BTreeMap::new();
    collect(root, "", root.place, &mut places);
    places
}

fn collect(node: &Node, path: &str, place: Position, places: &mut BTreeMap<String, Position>) {
    places.insert(path.to_owned(), place);
    match &node.value {
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, &format!("{path}[{index}]"), item.place, places);
            }
        }
        Value::Map(entries) => {
            for (key, value) in entries {
                collect(value, &below(path, &key.text), key.place, places);
            }
        }
        Value::Null | Value::Plain { .. } | Value::Text(_) => {}
    }
}
