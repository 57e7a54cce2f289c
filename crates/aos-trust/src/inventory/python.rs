//! Python: `METADATA` of an installed distribution (core metadata, PEP 566 and 639), and pip's
//! requirements files.

use super::stanza::{optional, required, stanzas};
use super::{Component, Ecosystem, Problem};

/// The distribution whose metadata this is: the first paragraph, since the description follows.
pub(super) fn installed(path: &str, text: &str) -> Result<Vec<Component>, Problem> {
    let stanza = stanzas(text).next().ok_or(Problem::Missing("name"))??;
    let (name, version) = (required(&stanza, "name")?, required(&stanza, "version")?);
    Ok(vec![Component {
        supplier: optional(&stanza, "author"),
        license: optional(&stanza, "license-expression").or_else(|| optional(&stanza, "license")),
        ..Component::new(Ecosystem::Python, name, Some(version), path)
    }])
}

/// What a requirements file asks for: the version only where it is pinned with `==` or `===`.
/// Options, other files and what has no name are passed over.
pub(super) fn requirements(path: &str, text: &str) -> Vec<Component> {
    text.lines()
        .filter_map(|line| {
            let line = line.split(" #").next().unwrap_or_default().trim();
            let end =
                line.find(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c)).unwrap_or(line.len());
            let (name, rest) = line.split_at_checked(end)?;
            if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || rest.starts_with([':', '/', '+']) {
                return None;
            }
            Some(Component::new(Ecosystem::Python, name, pinned(rest), path))
        })
        .collect()
}

/// The version of `==1.2.3`, after extras and before markers, options and other clauses.
fn pinned(rest: &str) -> Option<&str> {
    let rest = rest.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(extras) => extras.split_once(']')?.1.trim_start(),
        None => rest,
    };
    let version = rest.strip_prefix("===").or_else(|| rest.strip_prefix("=="))?.trim_start();
    let version = version.split([' ', ';', ',', '\\', '\t']).next()?;
    (!version.is_empty() && !version.contains('*')).then_some(version)
}
