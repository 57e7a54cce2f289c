//! The JSON of an OCI image, as far as packages use it (OCI image specification 1.1).
//!
//! What packages do not use is an error: nothing in an archive is carried along unread. The image
//! config is the exception, since its digest covers it and other tools have properties of their
//! own there.

mod artifact;
mod foreign;

pub use artifact::{ArtifactManifest, EMPTY, EMPTY_TYPE};
pub(crate) use foreign::Links;
pub use foreign::{
    DOCKER_INDEX_TYPE, DOCKER_MANIFEST_TYPE, ForeignConfig, ForeignDocument, ForeignEntry, ForeignIndex,
    ForeignManifest, Platform, is_image_manifest, is_index,
};

use crate::bounds::LAYERS_MAX;
use crate::hashing::digest_of;
use aos_core::config::{CONFIG_PROPERTY, ConfigError, ResolvedAgent, RunConfig};
use aos_core::id::Digest;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use thiserror::Error;

/// The manifest's `artifactType`: what makes an image an AOS package.
pub const ARTIFACT_TYPE: &str = "application/vnd.aos.agent.v1";
/// Media type of a manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an index.
pub const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an image config.
pub const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of a layer that is written.
pub const LAYER_GZIP_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Media type of a layer that is also read.
pub const LAYER_ZSTD_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Media type of a layer without compression, which base images may have.
pub const LAYER_TAR_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
/// Characters of a media type: two names of at most 127 (RFC 6838) and a slash.
const MEDIA_TYPE_MAX: usize = 255;
/// The annotation of a store's index that says where a package comes from.
pub const ORIGIN: &str = "org.aos.origin";
/// The annotation of a store's index that says what an attachment is attached to.
pub const SUBJECT: &str = "org.aos.subject";
/// The annotation of the index that names a manifest.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The contents of the file `oci-layout`.
pub const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Why the JSON of an image is refused.
#[derive(Debug, Error)]
pub enum OciError {
    /// The JSON is wrong, or has a field that packages do not use.
    #[error("the {what} is not valid")]
    Json {
        /// Which file.
        what: &'static str,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A value is not the one that packages have.
    #[error("the {what} is {found:?}, expected {expected}")]
    Value {
        /// Which value.
        what: &'static str,
        /// What is there.
        found: String,
        /// What packages have.
        expected: String,
    },
    /// The resolved Agentfile is wrong.
    #[error("the image config's property {CONFIG_PROPERTY} is not valid")]
    Agent(#[from] ConfigError),
}

fn expect(what: &'static str, found: &str, expected: &str) -> Result<(), OciError> {
    if found == expected {
        return Ok(());
    }
    let found = found.chars().take(128).collect();
    Err(OciError::Value { what, found, expected: expected.to_owned() })
}

/// A reference to a blob by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// What kind of artifact the manifest is; only in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Notes; in an index, the name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// The descriptor of a blob.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        let media_type = media_type.to_owned();
        Self { media_type, digest, size, artifact_type: None, annotations: BTreeMap::new() }
    }
}

/// The file `index.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Index {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
}

impl Index {
    /// An index of these manifests.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: Some(INDEX_TYPE.to_owned()), manifests }
    }

    /// Parses an index.
    pub fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        let json = |source| OciError::Json { what: "index", source };
        let index: Self = serde_json::from_slice(bytes).map_err(json)?;
        expect("index's schemaVersion", &index.schema_version.to_string(), "2")?;
        if let Some(found) = &index.media_type {
            expect("index's media type", found, INDEX_TYPE)?;
        }
        Ok(index)
    }

    /// The bytes of the file.
    pub fn to_json(&self) -> Result<Vec<u8>, OciError> {
        serde_json::to_vec(self).map_err(|source| OciError::Json { what: "index", source })
    }
}

/// Checks the file `oci-layout`.
pub fn check_layout(bytes: &[u8]) -> Result<(), OciError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Layout {
        image_layout_version: String,
    }
    let json = |source| OciError::Json { what: "oci-layout", source };
    let layout: Layout = serde_json::from_slice(bytes).map_err(json)?;
    expect("layout's version", &layout.image_layout_version, "1.0.0")
}

/// An image manifest that is a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    schema_version: u32,
    media_type: String,
    artifact_type: String,
    /// The image config.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// The manifest of a package.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: MANIFEST_TYPE.to_owned(),
            artifact_type: ARTIFACT_TYPE.to_owned(),
            config,
            layers,
            annotations: BTreeMap::new(),
        }
    }

    /// Parses and checks a manifest: types, and the number of layers.
    pub fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        let json = |source| OciError::Json { what: "manifest", source };
        let manifest: Self = serde_json::from_slice(bytes).map_err(json)?;
        expect("manifest's schemaVersion", &manifest.schema_version.to_string(), "2")?;
        expect("manifest's media type", &manifest.media_type, MANIFEST_TYPE)?;
        expect("manifest's artifactType", &manifest.artifact_type, ARTIFACT_TYPE)?;
        expect("config's media type", &manifest.config.media_type, CONFIG_TYPE)?;
        for layer in &manifest.layers {
            if layer.media_type != LAYER_ZSTD_TYPE {
                expect("layer's media type", &layer.media_type, LAYER_GZIP_TYPE)?;
            }
        }
        if manifest.layers.len() > LAYERS_MAX {
            return Err(OciError::Value {
                what: "number of layers",
                found: manifest.layers.len().to_string(),
                expected: format!("at most {LAYERS_MAX}"),
            });
        }
        Ok(manifest)
    }

    /// The bytes of the blob.
    pub fn to_json(&self) -> Result<Vec<u8>, OciError> {
        serde_json::to_vec(self).map_err(|source| OciError::Json { what: "manifest", source })
    }

    /// The config and the layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

#[derive(Serialize, Deserialize)]
struct ImageConfig<'a> {
    architecture: String,
    config: Execution,
    #[serde(skip_deserializing)]
    created: String,
    #[serde(skip_deserializing)]
    history: Vec<History>,
    #[serde(borrow, rename = "org.aos.agent")]
    agent: &'a RawValue,
    os: String,
    rootfs: RootFs,
}

#[derive(Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
struct Execution {
    entrypoint: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<String, NoFields>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    working_dir: String,
}

/// The value of an exposed port: `{}`, as image configs have it.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct NoFields {}

#[derive(Serialize)]
struct History {
    created: String,
    created_by: String,
}

#[derive(Serialize, Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
    r#type: String,
}

impl Execution {
    /// What other tools start: the same that AOS starts.
    fn of(agent: &ResolvedAgent) -> Self {
        let run = agent.run.as_ref();
        let argv = |run: &RunConfig| run.entrypoint.argv().map(str::to_owned).collect();
        let env = |run: &RunConfig| run.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Self {
            entrypoint: run.map(argv).unwrap_or_default(),
            env: run.map(env).unwrap_or_default(),
            exposed_ports: agent.expose.iter().map(|port| (port.to_string(), NoFields {})).collect(),
            labels: agent
                .labels
                .iter()
                .map(|(k, v)| (k.as_str().to_owned(), v.as_str().to_owned()))
                .collect(),
            working_dir: run.map_or("/", |run| run.workdir.as_str()).to_owned(),
        }
    }
}

/// The parts of an image config that a package needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageConfig {
    /// The resolved Agentfile.
    pub agent: ResolvedAgent,
    /// The digests of the unpacked layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// The architecture, in Go's names (`amd64`, `arm64`).
    pub architecture: String,
}

impl PackageConfig {
    /// The bytes of the image config. `created` is in seconds since 1970.
    pub fn to_json(&self, created: u64) -> Result<Vec<u8>, OciError> {
        let json = |source| OciError::Json { what: "image config", source };
        let text = self.agent.to_canonical_json()?;
        let created = rfc3339(created);
        let history = || History { created: created.clone(), created_by: "aos build".to_owned() };
        let config = ImageConfig {
            architecture: self.architecture.clone(),
            config: Execution::of(&self.agent),
            history: self.diff_ids.iter().map(|_| history()).collect(),
            created: created.clone(),
            agent: serde_json::from_slice(&text).map_err(json)?,
            os: "linux".to_owned(),
            rootfs: RootFs { diff_ids: self.diff_ids.clone(), r#type: "layers".to_owned() },
        };
        serde_json::to_vec(&config).map_err(json)
    }

    /// Parses an image config. What other tools would start must be what AOS starts.
    pub fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        let json = |source| OciError::Json { what: "image config", source };
        let config: ImageConfig<'_> = serde_json::from_slice(bytes).map_err(json)?;
        expect("image config's os", &config.os, "linux")?;
        expect("image config's rootfs type", &config.rootfs.r#type, "layers")?;
        let agent = ResolvedAgent::from_canonical_json(config.agent.get().as_bytes())?;
        if config.config != Execution::of(&agent) {
            return Err(OciError::Value {
                what: "image config's section `config`",
                found: "different".to_owned(),
                expected: format!("the entrypoint, env, labels and workdir of {CONFIG_PROPERTY}"),
            });
        }
        Ok(Self { agent, diff_ids: config.rootfs.diff_ids, architecture: config.architecture })
    }
}

/// The descriptor of a blob in memory.
pub(crate) fn describe(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, digest_of(bytes), bytes.len() as u64)
}

/// Go's name of the architecture this program is built for, as OCI images use it.
pub const fn host_architecture() -> &'static str {
    match std::env::consts::ARCH.as_bytes() {
        b"x86_64" => "amd64",
        b"aarch64" => "arm64",
        b"x86" => "386",
        b"powerpc64" => "ppc64le",
        b"loongarch64" => "loong64",
        _ => std::env::consts::ARCH,
    }
}

/// RFC 3339 of seconds since 1970 in UTC, by the civil calendar's 400-year cycle of 146,097 days
/// counted from 1 March of year 0 (H. Hinnant, "chrono-compatible low-level date algorithms").
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }

    #[test]
    fn other_fields_and_values_are_refused() {
        let index = String::from_utf8(Index::new(vec![]).to_json().unwrap()).unwrap();
        assert!(Index::parse(index.as_bytes()).is_ok());
        for (from, to) in [("2", "1"), ("index", "indez"), ("manifests", "manifestz"), ("{", "{\"x\":1,")] {
            assert!(Index::parse(index.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
        }
        assert!(check_layout(LAYOUT.as_bytes()).is_ok());
        assert!(check_layout(LAYOUT.replace("1.0.0", "1.0.1").as_bytes()).is_err());
        let manifest = Manifest::new(describe(CONFIG_TYPE, b""), vec![describe(LAYER_GZIP_TYPE, b"")]);
        let text = String::from_utf8(manifest.to_json().unwrap()).unwrap();
        assert_eq!(Manifest::parse(text.as_bytes()).unwrap(), manifest);
        for (from, to) in [
            (ARTIFACT_TYPE, "application/x"),
            (CONFIG_TYPE, "application/x"),
            (LAYER_GZIP_TYPE, "application/vnd.docker.image.rootfs.diff.tar.gzip"),
            ("\"size\":0", "\"size\":-1"),
            ("\"layers\"", "\"urls\":[],\"layers\""),
        ] {
            assert!(Manifest::parse(text.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
        }
        let many = Manifest { layers: vec![describe(LAYER_GZIP_TYPE, b""); LAYERS_MAX + 1], ..manifest };
        assert!(Manifest::parse(&many.to_json().unwrap()).is_err());
    }
}
