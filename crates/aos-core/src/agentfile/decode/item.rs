//! A node of a document with the path of its field, and what a field can be asked for.

use crate::agentfile::error::{Position, Problem, below};
use crate::agentfile::fields::Fields;
use crate::agentfile::tree::{Key, Node, PlainKind, Value};
use crate::quoted::Quoted;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

pub(super) type Result<T> = std::result::Result<T, Problem>;

/// A node and the path of its field.
pub(super) struct Item<'n> {
    pub(super) node: &'n Node,
    pub(super) path: String,
}

/// A mapping whose keys are all known.
pub(super) struct Section<'n> {
    place: Position,
    path: String,
    pub(super) fields: Vec<(&'n str, Item<'n>)>,
}

pub(super) fn not_enforced(name: &str) -> String {
    format!("{} is not supported by this version of AOS, which could not enforce it: remove it", Quoted(name))
}

impl<'n> Item<'n> {
    pub(super) fn problem(&self, message: impl Display) -> Problem {
        Problem::Field { place: self.node.place, field: self.path.clone(), message: message.to_string() }
    }

    pub(super) fn expected(&self, what: &str) -> Problem {
        self.problem(format!("expected {what}, found {}", self.node.value.describe()))
    }

    /// Text. A scalar that YAML leaves unquoted is text as it is written.
    pub(super) fn text(&self, what: &str) -> Result<&'n str> {
        match &self.node.value {
            Value::Text(text) | Value::Plain { text, is_text: true, .. } => Ok(text),
            _ => Err(self.expected(what)),
        }
    }

    /// Text, or an integer as its digits.
    pub(super) fn text_or_integer(&self, what: &str) -> Result<&'n str> {
        match &self.node.value {
            Value::Plain { kind: PlainKind::Integer, text, .. } => Ok(text),
            _ => self.text(what),
        }
    }

    /// Text, an integer as its digits, or a date as TOML has it without quotes.
    pub(super) fn text_integer_or_date(&self, what: &str) -> Result<&'n str> {
        match &self.node.value {
            Value::Plain { kind: PlainKind::Date, text, .. } => Ok(text),
            _ => self.text_or_integer(what),
        }
    }

    pub(super) fn parse<T: FromStr<Err: Display>>(&self, what: &str) -> Result<T> {
        self.text(what)?.parse().map_err(|error| self.problem(error))
    }

    pub(super) fn parse_quantity<T: FromStr<Err: Display>>(&self, what: &str) -> Result<T> {
        self.text_or_integer(what)?.parse().map_err(|error| self.problem(error))
    }

    /// The items of a list, at most `max`.
    pub(super) fn list(&self, what: &str, max: usize) -> Result<Vec<Item<'n>>> {
        let Value::List(items) = &self.node.value else {
            return Err(self.expected(what));
        };
        if items.len() > max {
            return Err(self.problem(format!("{} elements, at most {max} are allowed", items.len())));
        }
        let item = |(index, node)| Item { node, path: format!("{}[{index}]", self.path) };
        Ok(items.iter().enumerate().map(item).collect())
    }

    /// A list of typed texts, at most `max` and none of them twice; integers count as their digits.
    pub(super) fn list_of<T: FromStr<Err: Display> + PartialEq>(
        &self,
        what: &str,
        max: usize,
    ) -> Result<Vec<T>> {
        let mut values: Vec<T> = Vec::new();
        for item in self.list(what, max)? {
            let text = item.text_or_integer("text")?;
            let value = text.parse().map_err(|error| item.problem(error))?;
            if values.contains(&value) {
                return Err(item.problem(format!("{} appears twice", Quoted(text))));
            }
            values.push(value);
        }
        Ok(values)
    }

    /// The entries of a mapping, each with its key as a field of its own.
    pub(super) fn entries(&self, what: &str) -> Result<Vec<(Item<'n>, &'n str, Position)>> {
        let Value::Map(entries) = &self.node.value else {
            return Err(self.expected(what));
        };
        let entry = |(key, node): &'n (Key, Node)| {
            (Item { node, path: below(&self.path, &key.text) }, key.text.as_str(), key.place)
        };
        Ok(entries.iter().map(entry).collect())
    }

    /// A mapping of typed names to typed text, at most `max`.
    pub(super) fn table<K, V>(&self, what: &str, max: usize) -> Result<BTreeMap<K, V>>
    where
        K: FromStr<Err: Display> + Ord,
        V: FromStr<Err: Display>,
    {
        let entries = self.entries(what)?;
        if entries.len() > max {
            return Err(self.problem(format!("{} entries, at most {max} are allowed", entries.len())));
        }
        let mut table = BTreeMap::new();
        for (item, key, place) in entries {
            let name = key.parse().map_err(|error: K::Err| Problem::Field {
                place,
                field: item.path.clone(),
                message: error.to_string(),
            })?;
            table.insert(name, item.parse("text")?);
        }
        Ok(table)
    }

    /// A mapping of known fields.
    pub(super) fn section(&self, what: &str, fields: &Fields) -> Result<Section<'n>> {
        let mut taken = Vec::new();
        for (item, key, place) in self.entries(what)? {
            if fields.known.contains(&key) {
                taken.push((key, item));
                continue;
            }
            let message = if fields.later.contains(&key) {
                not_enforced(key)
            } else {
                format!("unknown field {}, known are {}", Quoted(key), fields.known.join(", "))
            };
            return Err(Problem::Field { place, field: item.path, message });
        }
        Ok(Section { place: self.node.place, path: self.path.clone(), fields: taken })
    }
}

impl<'n> Section<'n> {
    pub(super) fn optional(&self, name: &str) -> Option<&Item<'n>> {
        self.fields.iter().find_map(|(key, item)| (*key == name).then_some(item))
    }

    pub(super) fn required(&self, name: &str, expected: &str) -> Result<&Item<'n>> {
        self.optional(name).ok_or_else(|| self.missing(name, expected))
    }

    /// What is said when a field is not there.
    pub(super) fn missing(&self, name: &str, expected: &str) -> Problem {
        Problem::Field {
            place: self.place,
            field: below(&self.path, name),
            message: format!("missing, expected {expected}"),
        }
    }
}
