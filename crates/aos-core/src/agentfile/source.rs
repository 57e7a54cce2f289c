//! Where the fields of a joined Agentfile are written: in the file itself, or in one that it extends.

use super::error::Position;
use std::collections::BTreeMap;

/// One file.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// The name that errors give it.
    pub(super) origin: String,
    /// Where each field stands, by its path such as `build.stages[0].steps[2].copy.from`.
    pub(super) places: BTreeMap<String, Position>,
}

/// The files, that of the agent first, then its parents.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    files: Vec<Source>,
    /// Elements of joined lists, such as `build.stages[3]`: the file, and the path in it.
    moved: BTreeMap<String, (usize, String)>,
}

/// A field in its file.
#[derive(Debug)]
pub(super) struct Located<'a> {
    pub(super) origin: &'a str,
    pub(super) place: Position,
    pub(super) field: String,
}

/// The path above: without the last key or index; empty for the whole file.
fn above(path: &str) -> Option<&str> {
    if path.is_empty() {
        None
    } else {
        Some(path.rfind(['.', '[']).and_then(|cut| path.get(..cut)).unwrap_or(""))
    }
}

impl Source {
    pub(super) fn place(&self, field: &str) -> Position {
        let mut path = Some(field);
        while let Some(at) = path {
            if let Some(&place) = self.places.get(at) {
                return place;
            }
            path = above(at);
        }
        Position::START
    }
}

impl Sources {
    /// Files in their order, and the elements that stand elsewhere than their paths say.
    pub(super) const fn new(files: Vec<Source>, moved: BTreeMap<String, (usize, String)>) -> Self {
        Self { files, moved }
    }

    /// The name of the agent's own file.
    pub(super) fn origin(&self) -> &str {
        self.files.first().map_or("", |file| file.origin.as_str())
    }

    /// The file and path of a field.
    pub(super) fn locate(&self, field: &str) -> Located<'_> {
        let mut path = Some(field);
        while let Some(at) = path {
            if let Some((file, to)) = self.moved.get(at) {
                let rest = field.get(at.len()..).unwrap_or_default();
                return self.located(*file, format!("{to}{rest}"));
            }
            path = above(at);
        }
        let own = self.files.iter().position(|file| file.places.contains_key(field));
        self.located(own.unwrap_or(0), field.to_owned())
    }

    fn located(&self, file: usize, field: String) -> Located<'_> {
        match self.files.get(file) {
            Some(source) => Located { origin: &source.origin, place: source.place(&field), field },
            None => Located { origin: self.origin(), place: Position::START, field },
        }
    }
}
