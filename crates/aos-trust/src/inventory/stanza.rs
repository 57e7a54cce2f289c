//! The `Name: value` paragraphs of Debian's control files (deb822(5)) and of Python's metadata.

use super::Problem;
use std::collections::BTreeMap;

/// One paragraph: the first value of each name, lower-case, with its continuation lines left out.
pub(super) type Stanza<'t> = BTreeMap<String, &'t str>;

/// The paragraphs of a text; lines are counted from 1.
pub(super) struct Stanzas<'t> {
    lines: std::iter::Enumerate<std::str::Lines<'t>>,
}

pub(super) fn stanzas(text: &str) -> Stanzas<'_> {
    Stanzas { lines: text.lines().enumerate() }
}

impl<'t> Iterator for Stanzas<'t> {
    type Item = Result<Stanza<'t>, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut stanza = Stanza::new();
        for (index, line) in self.lines.by_ref() {
            if line.trim_end().is_empty() {
                if stanza.is_empty() {
                    continue;
                }
                return Some(Ok(stanza));
            }
            if line.starts_with([' ', '\t', '#']) {
                continue;
            }
            let Some((name, value)) = line.split_once(':') else {
                return Some(Err(Problem::Stanza(index + 1)));
            };
            stanza.entry(name.to_ascii_lowercase()).or_insert(value.trim());
        }
        (!stanza.is_empty()).then_some(Ok(stanza))
    }
}

/// A value that must be there.
pub(super) fn required<'t>(stanza: &Stanza<'t>, name: &'static str) -> Result<&'t str, Problem> {
    match stanza.get(name).copied() {
        Some(value) if !value.is_empty() => Ok(value),
        _ => Err(Problem::Missing(name)),
    }
}

/// A value that may be there.
pub(super) fn optional(stanza: &Stanza<'_>, name: &str) -> Option<String> {
    stanza.get(name).filter(|value| !value.is_empty()).map(|value| super::bounded(value))
}
