//! dpkg's database of what is installed (dpkg-query(1), deb822(5)).

use super::stanza::{Stanza, optional, required, stanzas};
use super::{Component, Ecosystem, Problem};

/// The packages that are installed; those that are only configured or half removed are left out.
pub(super) fn read(path: &str, text: &str) -> Result<Vec<Component>, Problem> {
    stanzas(text)
        .map(|stanza| {
            let stanza = stanza?;
            if is_installed(&stanza) { component(path, &stanza).map(Some) } else { Ok(None) }
        })
        .filter_map(Result::transpose)
        .collect()
}

/// `Status: install ok installed`: want, error flag, state. The files of `status.d` have no status.
fn is_installed(stanza: &Stanza<'_>) -> bool {
    stanza.get("status").is_none_or(|status| status.split_whitespace().nth(2) == Some("installed"))
}

fn component(path: &str, stanza: &Stanza<'_>) -> Result<Component, Problem> {
    let (name, version) = (required(stanza, "package")?, required(stanza, "version")?);
    Ok(Component {
        architecture: optional(stanza, "architecture"),
        source: optional(stanza, "source"),
        supplier: optional(stanza, "maintainer"),
        ..Component::new(Ecosystem::Debian, name, Some(version), path)
    })
}
