//! Writes YAML: a text stands in quotes unless it is a plain word, so that no text can become
//! anything else than itself.

use crate::quoted::is_hidden;
use std::fmt::Write as _;

/// A value to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Yaml {
    Text(String),
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>),
}

/// Words that YAML 1.1 or 1.2 reads as something else than text.
const RESERVED: [&str; 10] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan"];

impl Yaml {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A mapping of the entries that are there.
    pub(super) fn map<'k>(entries: impl IntoIterator<Item = (&'k str, Option<Self>)>) -> Self {
        let entry = |(key, value): (&str, Option<Self>)| Some((key.to_owned(), value?));
        Self::Map(entries.into_iter().filter_map(entry).collect())
    }

    /// A list of texts.
    pub(super) fn texts<T: ToString>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(texts.into_iter().map(|text| Self::Text(text.to_string())).collect())
    }

    /// The value, unless it holds nothing.
    pub(super) fn unless_empty(self) -> Option<Self> {
        let empty = match &self {
            Self::Text(_) => false,
            Self::List(items) => items.is_empty(),
            Self::Map(entries) => entries.is_empty(),
        };
        (!empty).then_some(self)
    }
}

/// A text as a scalar: a plain word, or in double quotes with every character that does not show
/// escaped.
fn scalar(text: &str) -> String {
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c))
        && !RESERVED.contains(&text.to_ascii_lowercase().as_str());
    if word {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            _ if is_hidden(c) || ('\u{e000}'..='\u{ffff}').contains(&c) => {
                // Writing to a String does not fail.
                if write!(quoted, "\\U{:08x}", c as u32).is_err() {
                    quoted.push('?');
                }
            }
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The value in one line.
pub(super) fn line(value: &Yaml) -> String {
    match value {
        Yaml::Text(text) => scalar(text),
        Yaml::List(items) => {
            let items: Vec<String> = items.iter().map(line).collect();
            format!("[{}]", items.join(", "))
        }
        Yaml::Map(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|(key, value)| format!("{}: {}", scalar(key), line(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

/// The value as a document, in blocks.
pub(super) fn document(value: &Yaml) -> String {
    let mut text = String::new();
    block(&mut text, value, 0);
    text
}

/// Short lists of texts stand in one line.
const LINE_MAX: usize = 80;

fn fits_a_line(value: &Yaml) -> bool {
    match value {
        Yaml::Text(_) => true,
        Yaml::List(items) => {
            items.iter().all(|item| matches!(item, Yaml::Text(_))) && line(value).len() <= LINE_MAX
        }
        Yaml::Map(entries) => entries.is_empty(),
    }
}

fn block(text: &mut String, value: &Yaml, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Yaml::Text(_) => text.push_str(&format!("{indent}{}\n", line(value))),
        Yaml::List(items) => {
            for item in items {
                if fits_a_line(item) {
                    text.push_str(&format!("{indent}- {}\n", line(item)));
                } else {
                    let mut inner = String::new();
                    block(&mut inner, item, depth + 1);
                    // The first line of the item stands behind its dash.
                    let inner = inner.strip_prefix(&"  ".repeat(depth + 1)).unwrap_or(&inner);
                    text.push_str(&format!("{indent}- {inner}"));
                }
            }
        }
        Yaml::Map(entries) => {
            for (key, value) in entries {
                let key = scalar(key);
                if fits_a_line(value) {
                    text.push_str(&format!("{indent}{key}: {}\n", line(value)));
                } else {
                    text.push_str(&format!("{indent}{key}:\n"));
                    block(text, value, depth + 1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agentfile::{Format, read};
    use crate::foreign::reader::Field;
    use proptest::prelude::*;

    fn values() -> impl Strategy<Value = Yaml> {
        let text = prop_oneof![
            "\\PC{0,8}",
            "[a-z/.: #\"'\\\\\n\t\u{85}\u{feff}*&!|>%@`-]{0,8}",
            Just("no".to_owned()),
            Just("1.0".to_owned())
        ];
        let leaf = text.prop_map(Yaml::Text);
        leaf.prop_recursive(3, 24, 4, |inner| {
            let entries = prop::collection::btree_map("\\PC{1,6}", inner.clone(), 1..4);
            prop_oneof![
                prop::collection::vec(inner, 1..4).prop_map(Yaml::List),
                entries.prop_map(|map| Yaml::Map(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn what_is_written_reads_back(value in values()) {
            for text in [document(&value), format!("{}\n", line(&value))] {
                let read = read(&text, Format::Yaml, "f").unwrap();
                prop_assert_eq!(Field::root(&read).to_yaml(), value.clone(), "{}", text);
            }
            prop_assert!(!line(&value).contains('\n'));
        }
    }
}
