//! Cargo's `Cargo.lock`: the packages that have a source; those without are the project's own.

use super::{Checksum, Component, Ecosystem, Problem};
use serde::Deserialize;

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
}

pub(super) fn read(path: &str, text: &str) -> Result<Vec<Component>, Problem> {
    let lock: Lock = toml::from_str(text).map_err(|error| Problem::Format(error.message().to_owned()))?;
    let external = lock.package.into_iter().filter(|package| package.source.is_some());
    Ok(external
        .map(|package| Component {
            checksum: package.checksum.and_then(checksum),
            ..Component::new(Ecosystem::Cargo, &package.name, Some(&package.version), path)
        })
        .collect())
}

fn checksum(hex: String) -> Option<Checksum> {
    let good = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    good.then_some(Checksum { algorithm: "SHA256", hex })
}
