//! npm's `package-lock.json`, versions 1 to 3: `packages` by path, or nested `dependencies` by name.

use super::{Checksum, Component, Ecosystem, Problem, bounded};
use crate::object::Object;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    packages: BTreeMap<String, Object<Package>>,
    #[serde(default)]
    dependencies: Dependencies,
}

type Dependencies = BTreeMap<String, Object<Dependency>>;

#[derive(Deserialize)]
struct Package {
    name: Option<String>,
    version: Option<String>,
    integrity: Option<String>,
    license: Option<License>,
    #[serde(default)]
    link: bool,
}

/// A name; older packages have objects and lists there.
#[derive(Deserialize)]
#[serde(untagged)]
enum License {
    Name(String),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
struct Dependency {
    version: Option<String>,
    integrity: Option<String>,
    #[serde(default)]
    dependencies: Dependencies,
}

pub(super) fn read(path: &str, text: &str) -> Result<Vec<Component>, Problem> {
    let Object(lock): Object<Lock> =
        serde_json::from_str(text).map_err(|error| Problem::Format(error.to_string()))?;
    let mut components = Vec::new();
    // Version 2 has both, with the same contents.
    if lock.packages.is_empty() {
        nested(path, &lock.dependencies, &mut components);
    }
    for (place, Object(package)) in &lock.packages {
        // The empty path is the project itself; a link is a folder of it.
        let Some((_, name)) = place.rsplit_once("node_modules/").filter(|_| !package.link) else { continue };
        let name = package.name.as_deref().unwrap_or(name);
        components.push(Component {
            license: match &package.license {
                Some(License::Name(license)) => Some(bounded(license)),
                Some(License::Other(IgnoredAny)) | None => None,
            },
            checksum: package.integrity.as_deref().and_then(checksum),
            ..Component::new(Ecosystem::Npm, name, package.version.as_deref(), path)
        });
    }
    Ok(components)
}

/// The nesting is at most serde_json's 128 levels.
fn nested(path: &str, dependencies: &Dependencies, components: &mut Vec<Component>) {
    for (name, Object(dependency)) in dependencies {
        components.push(Component {
            checksum: dependency.integrity.as_deref().and_then(checksum),
            ..Component::new(Ecosystem::Npm, name, dependency.version.as_deref(), path)
        });
        nested(path, &dependency.dependencies, components);
    }
}

/// The first hash of a Subresource Integrity value, `sha512-BASE64`.
fn checksum(integrity: &str) -> Option<Checksum> {
    let (algorithm, value) = integrity.split_whitespace().next()?.split_once('-')?;
    let algorithm = match algorithm {
        "sha1" => "SHA1",
        "sha256" => "SHA256",
        "sha384" => "SHA384",
        "sha512" => "SHA512",
        _ => return None,
    };
    let bytes = STANDARD.decode(value).ok().filter(|bytes| bytes.len() <= 64)?;
    Some(Checksum { algorithm, hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect() })
}
