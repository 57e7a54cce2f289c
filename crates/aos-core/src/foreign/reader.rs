//! A value of a foreign manifest with the path of its field.

use super::yaml::Yaml;
use crate::agentfile::error::below;
use crate::agentfile::tree::{Node, Value};

/// A value and its path.
#[derive(Debug, Clone)]
pub(super) struct Field<'n> {
    pub(super) path: String,
    pub(super) node: &'n Node,
}

impl<'n> Field<'n> {
    /// The whole document.
    pub(super) const fn root(node: &'n Node) -> Self {
        Self { path: String::new(), node }
    }

    /// Text, or a number, boolean or date as it is written.
    pub(super) fn text(&self) -> Option<&'n str> {
        match &self.node.value {
            Value::Text(text) | Value::Plain { text, .. } => Some(text),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The items of a list; none of anything else.
    pub(super) fn items(&self) -> Vec<Self> {
        let Value::List(items) = &self.node.value else { return Vec::new() };
        let item = |(index, node)| Self { path: format!("{}[{index}]", self.path), node };
        items.iter().enumerate().map(item).collect()
    }

    /// The entries of a mapping; none of anything else.
    pub(super) fn entries(&self) -> Vec<(&'n str, Self)> {
        let Value::Map(entries) = &self.node.value else { return Vec::new() };
        entries
            .iter()
            .map(|(key, node)| (key.text.as_str(), Self { path: below(&self.path, &key.text), node }))
            .collect()
    }

    /// A field of a mapping; `None` also for one that is written with nothing in it.
    pub(super) fn get(&self, name: &str) -> Option<Self> {
        let found = self.entries().into_iter().find_map(|(key, field)| (key == name).then_some(field));
        found.filter(|field| !matches!(field.node.value, Value::Null))
    }

    /// The first of several names for one field.
    pub(super) fn get_any(&self, names: &[&str]) -> Option<Self> {
        names.iter().find_map(|name| self.get(name))
    }

    pub(super) const fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    pub(super) const fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    /// The value as it was, for a comment.
    pub(super) fn to_yaml(&self) -> Yaml {
        match &self.node.value {
            Value::Null => Yaml::text(""),
            Value::Text(text) | Value::Plain { text, .. } => Yaml::text(text),
            Value::List(_) => Yaml::List(self.items().iter().map(Self::to_yaml).collect()),
            Value::Map(_) => Yaml::Map(
                self.entries().iter().map(|(key, field)| ((*key).to_owned(), field.to_yaml())).collect(),
            ),
        }
    }
}
