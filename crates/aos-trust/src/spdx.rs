//! An SBOM: an SPDX 2.3 document in JSON (ISO/IEC 5962, <https://spdx.github.io/spdx-spec/v2.3/>).
//!
//! Pure and deterministic: the same package, components and time give the same bytes, in whatever
//! order the components are given. A licence that a manifest declares is kept as a comment: the
//! licence properties take only SPDX's own names, and nothing here checks that it is one.

use crate::inventory::{Component, Ecosystem};
use crate::time::utc;
use aos_core::id::{Digest, PackageName, Version};
use serde::Serialize;
use std::collections::BTreeSet;
use thiserror::Error;

/// Components of one document.
pub const COMPONENTS_MAX: usize = 200_000;

const NO_ASSERTION: &str = "NOASSERTION";
const ROOT: &str = "SPDXRef-Package";

/// Why there is no document.
#[derive(Debug, Error)]
pub enum SpdxError {
    /// There are too many components.
    #[error("the package has {0} components, at most {COMPONENTS_MAX} can be listed")]
    TooMany(usize),
    /// The JSON cannot be written.
    #[error("cannot write the SPDX document")]
    Json(#[source] serde_json::Error),
}

/// What the document describes.
#[derive(Debug, Clone)]
pub struct Description<'a> {
    /// The package's name.
    pub name: &'a PackageName,
    /// Its version.
    pub version: &'a Version,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// When it was built, in seconds since 1970: `SOURCE_DATE_EPOCH`.
    pub created: u64,
    /// The program that writes it: `aos-0.1.0`.
    pub tool: &'a str,
}

/// A document. Its JSON is also the predicate of an in-toto statement.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: String,
    document_namespace: String,
    creation_info: CreationInfo,
    packages: Vec<Package>,
    relationships: Vec<Relationship>,
}

#[derive(Debug, Serialize)]
struct CreationInfo {
    created: String,
    creators: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Package {
    name: String,
    #[serde(rename = "SPDXID")]
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    supplier: Option<String>,
    download_location: &'static str,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checksums: Vec<Checksum>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_info: Option<String>,
    license_concluded: &'static str,
    license_declared: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    license_comments: Option<String>,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<ExternalRef>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalRef {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: String,
    relationship_type: &'static str,
    related_spdx_element: String,
}

/// The document of a package and its components.
pub fn document(
    of: &Description<'_>,
    components: impl IntoIterator<Item = Component>,
) -> Result<Document, SpdxError> {
    // The set sorts them and keeps one of each.
    let components: BTreeSet<Component> = components.into_iter().collect();
    if components.len() > COMPONENTS_MAX {
        return Err(SpdxError::TooMany(components.len()));
    }
    let manifest = Checksum { algorithm: "SHA256", checksum_value: of.manifest.hex() };
    let mut packages = vec![Package {
        checksums: vec![manifest],
        ..package(ROOT.to_owned(), of.name.to_string(), Some(of.version.to_string()))
    }];
    let mut relationships = vec![Relationship {
        spdx_element_id: "SPDXRef-DOCUMENT".to_owned(),
        relationship_type: "DESCRIBES",
        related_spdx_element: ROOT.to_owned(),
    }];
    for (number, component) in components.into_iter().enumerate() {
        let id = format!("SPDXRef-{}-{number}", ecosystem(component.ecosystem));
        relationships.push(Relationship {
            spdx_element_id: ROOT.to_owned(),
            relationship_type: "CONTAINS",
            related_spdx_element: id.clone(),
        });
        packages.push(of_component(id, component));
    }
    Ok(Document {
        spdx_version: "SPDX-2.3",
        data_license: "CC0-1.0",
        id: "SPDXRef-DOCUMENT",
        name: format!("{}-{}", of.name, of.version),
        // Unique to the package's bytes; like the predicate types it is no address.
        document_namespace: format!("https://aos.invalid/spdx/{}/{}", of.name, of.manifest.hex()),
        creation_info: CreationInfo {
            created: utc(of.created),
            creators: vec![format!("Tool: {}", of.tool)],
        },
        packages,
        relationships,
    })
}

impl Document {
    /// The JSON, on one line.
    pub fn to_json(&self) -> Result<Vec<u8>, SpdxError> {
        serde_json::to_vec(self).map_err(SpdxError::Json)
    }
}

fn ecosystem(of: Ecosystem) -> &'static str {
    match of {
        Ecosystem::Debian => "deb",
        Ecosystem::Cargo => "cargo",
        Ecosystem::Npm => "npm",
        Ecosystem::Python => "pypi",
    }
}

fn package(id: String, name: String, version_info: Option<String>) -> Package {
    Package {
        name,
        id,
        version_info,
        supplier: None,
        download_location: NO_ASSERTION,
        files_analyzed: false,
        checksums: Vec::new(),
        source_info: None,
        license_concluded: NO_ASSERTION,
        license_declared: NO_ASSERTION,
        license_comments: None,
        copyright_text: NO_ASSERTION,
        external_refs: Vec::new(),
    }
}

fn of_component(id: String, component: Component) -> Package {
    let purl = ExternalRef {
        reference_category: "PACKAGE-MANAGER",
        reference_type: "purl",
        reference_locator: component.purl(),
    };
    let source = component.source.map(|source| format!(", built from the source package {source}"));
    Package {
        supplier: component.supplier.map(|name| format!("Organization: {name}")),
        checksums: component
            .checksum
            .map(|checksum| Checksum { algorithm: checksum.algorithm, checksum_value: checksum.hex })
            .into_iter()
            .collect(),
        source_info: Some(format!("named in {}{}", component.found_in, source.unwrap_or_default())),
        license_comments: component.license.map(|license| format!("declared as: {license}")),
        external_refs: vec![purl],
        ..package(id, component.name, component.version)
    }
}

#[cfg(test)]
mod tests;
