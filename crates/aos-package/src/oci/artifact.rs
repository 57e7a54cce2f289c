//! Artifact manifests: what is attached to a package (OCI image specification 1.1, "Guidelines for
//! Artifact Usage").
//!
//! Other tools attach things too, so fields that are not used here are passed over: the digest
//! covers them, and nothing acts on them.

use super::foreign::ForeignDescriptor;
use super::{Descriptor, MANIFEST_TYPE, OciError, describe, expect};
use crate::bounds::{ATTACHMENT_LAYERS_MAX, ATTACHMENT_MAX};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Media type of the config of an artifact that has none.
pub const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// Its contents.
pub const EMPTY: &[u8] = b"{}";

/// A manifest that is attached to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactManifest {
    schema_version: u32,
    media_type: String,
    /// What kind of artifact it is.
    pub artifact_type: String,
    /// The config, usually [`EMPTY`].
    pub config: Descriptor,
    /// The contents.
    pub layers: Vec<Descriptor>,
    /// What it is attached to.
    pub subject: Descriptor,
    /// Notes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The fields that are read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: String,
    #[serde(default)]
    artifact_type: Option<String>,
    config: ForeignDescriptor,
    layers: Vec<ForeignDescriptor>,
    subject: ForeignDescriptor,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl ArtifactManifest {
    /// The manifest of an artifact with one content and no config; the config's blob is [`EMPTY`].
    pub fn new(
        artifact_type: &str,
        content: Descriptor,
        subject: &Descriptor,
        annotations: BTreeMap<String, String>,
    ) -> Self {
        Self {
            schema_version: 2,
            media_type: MANIFEST_TYPE.to_owned(),
            artifact_type: artifact_type.to_owned(),
            config: describe(EMPTY_TYPE, EMPTY),
            layers: vec![content],
            subject: Descriptor::new(&subject.media_type, subject.digest, subject.size),
            annotations,
        }
    }

    /// Parses an artifact manifest: it has a kind, a subject, and few contents of bounded size.
    pub fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        let json = |source| OciError::Json { what: "attachment's manifest", source };
        let document: Document = serde_json::from_slice(bytes).map_err(json)?;
        expect("attachment's schemaVersion", &document.schema_version.to_string(), "2")?;
        expect("attachment's media type", &document.media_type, MANIFEST_TYPE)?;
        // The rule of the distribution specification for artifacts without an artifactType.
        let artifact_type = document.artifact_type.unwrap_or_else(|| document.config.media_type.clone());
        let manifest = Self {
            schema_version: document.schema_version,
            media_type: document.media_type,
            artifact_type,
            config: document.config.into_descriptor()?,
            layers: document
                .layers
                .into_iter()
                .map(ForeignDescriptor::into_descriptor)
                .collect::<Result<_, _>>()?,
            subject: document.subject.into_descriptor()?,
            annotations: document.annotations,
        };
        manifest.check_bounds()?;
        Ok(manifest)
    }

    fn check_bounds(&self) -> Result<(), OciError> {
        let refused = |what, found: String, max: String| {
            Err(OciError::Value { what, found, expected: format!("at most {max}") })
        };
        if self.artifact_type.is_empty() || self.artifact_type.len() > super::MEDIA_TYPE_MAX {
            let found = self.artifact_type.chars().take(64).collect();
            return refused(
                "attachment's artifactType",
                found,
                format!("{} characters, not none", super::MEDIA_TYPE_MAX),
            );
        }
        if self.layers.len() > ATTACHMENT_LAYERS_MAX {
            return refused(
                "attachment's number of contents",
                self.layers.len().to_string(),
                ATTACHMENT_LAYERS_MAX.to_string(),
            );
        }
        match self.blobs().find(|blob| blob.size > ATTACHMENT_MAX) {
            Some(blob) => {
                refused("attachment's size", blob.size.to_string(), format!("{ATTACHMENT_MAX} bytes"))
            }
            None => Ok(()),
        }
    }

    /// The bytes of the blob.
    pub fn to_json(&self) -> Result<Vec<u8>, OciError> {
        serde_json::to_vec(self).map_err(|source| OciError::Json { what: "attachment's manifest", source })
    }

    /// The config and the contents.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}
