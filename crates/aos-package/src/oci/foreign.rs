//! The JSON of images that other tools made: OCI and Docker's schema 2, read with what a base
//! image needs, within bounds. What is not used is passed over.

use super::{Descriptor, LAYER_GZIP_TYPE, LAYER_TAR_TYPE, LAYER_ZSTD_TYPE, OciError, expect};
use crate::bounds::{FOREIGN_LAYERS_MAX, FOREIGN_PLATFORMS_MAX};
use aos_core::id::Digest;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Docker's media type of a manifest (Image Manifest Version 2, Schema 2).
pub const DOCKER_MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's media type of an index.
pub const DOCKER_INDEX_TYPE: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's media type of a layer, which is a gzip tar too.
const DOCKER_LAYER_TYPE: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// True for the media types of an image manifest, OCI's and Docker's.
pub fn is_image_manifest(media_type: &str) -> bool {
    [super::MANIFEST_TYPE, DOCKER_MANIFEST_TYPE].contains(&media_type)
}

/// True for the media types of an index, OCI's and Docker's.
pub fn is_index(media_type: &str) -> bool {
    [super::INDEX_TYPE, DOCKER_INDEX_TYPE].contains(&media_type)
}

/// A descriptor with fields that are not used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ForeignDescriptor {
    #[serde(default)]
    pub(super) media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// What a manifest of an index is for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// The architecture, in Go's names.
    #[serde(default)]
    pub architecture: String,
    /// The system.
    #[serde(default)]
    pub os: String,
    /// Which of the architecture, such as `v8`.
    #[serde(default)]
    pub variant: Option<String>,
}

impl ForeignDescriptor {
    pub(super) fn into_descriptor(self) -> Result<Descriptor, OciError> {
        if self.media_type.len() > super::MEDIA_TYPE_MAX {
            let found = self.media_type.chars().take(64).collect();
            let expected = format!("at most {} characters", super::MEDIA_TYPE_MAX);
            return Err(OciError::Value { what: "media type", found, expected });
        }
        Ok(Descriptor {
            artifact_type: self.artifact_type,
            ..Descriptor::new(&self.media_type, self.digest, self.size)
        })
    }
}

/// An image manifest or index, of whichever tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForeignDocument {
    /// One image.
    Manifest(ForeignManifest),
    /// Images for several platforms.
    Index(ForeignIndex),
}

/// The manifest of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignManifest {
    /// What kind of artifact it is, if it says so.
    pub artifact_type: Option<String>,
    /// The config.
    pub config: Descriptor,
    /// The layers, lowest first; those of Docker have the OCI media type of the same format.
    pub layers: Vec<Descriptor>,
    /// Notes.
    pub annotations: BTreeMap<String, String>,
}

/// Images for several platforms, and what a layout lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignIndex {
    /// The manifests in their order, each with what it is for and its annotations.
    pub manifests: Vec<ForeignEntry>,
}

/// A manifest of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignEntry {
    /// The manifest, with its annotations.
    pub descriptor: Descriptor,
    /// What it is for.
    pub platform: Option<Platform>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<ForeignDescriptor>,
    #[serde(default)]
    layers: Option<Vec<ForeignDescriptor>>,
    #[serde(default)]
    manifests: Option<Vec<ForeignDescriptor>>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl ForeignDocument {
    /// Parses either. Which it is, its media type and its fields must agree about
    /// (CVE-2021-41190: one document must not be both).
    pub fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        let json = |source| OciError::Json { what: "image's manifest", source };
        let document: Document = serde_json::from_slice(bytes).map_err(json)?;
        expect("image manifest's schemaVersion", &document.schema_version.to_string(), "2")?;
        let media_type = document.media_type.unwrap_or_default();
        let refused = |expected: &str| OciError::Value {
            what: "image manifest's media type",
            found: media_type.chars().take(128).collect(),
            expected: expected.to_owned(),
        };
        match (document.config, document.layers, document.manifests) {
            (Some(config), Some(layers), None) => {
                if !media_type.is_empty() && !is_image_manifest(&media_type) {
                    return Err(refused("that of an image manifest, since it has layers"));
                }
                at_most("number of layers", layers.len(), FOREIGN_LAYERS_MAX)?;
                let layers = layers.into_iter().map(layer).collect::<Result<_, _>>()?;
                let (config, annotations) = (config.into_descriptor()?, document.annotations);
                let artifact_type = document.artifact_type;
                Ok(Self::Manifest(ForeignManifest { artifact_type, config, layers, annotations }))
            }
            (None, None, Some(manifests)) => {
                if !media_type.is_empty() && !is_index(&media_type) {
                    return Err(refused("that of an index, since it has manifests"));
                }
                at_most("number of platforms", manifests.len(), FOREIGN_PLATFORMS_MAX)?;
                let manifests = manifests.into_iter().map(entry).collect::<Result<_, _>>()?;
                Ok(Self::Index(ForeignIndex { manifests }))
            }
            _ => Err(refused("an image manifest (config and layers) or an index (manifests), not both")),
        }
    }
}

fn at_most(what: &'static str, found: usize, max: usize) -> Result<(), OciError> {
    if found <= max {
        return Ok(());
    }
    Err(OciError::Value { what, found: found.to_string(), expected: format!("at most {max}") })
}

/// A layer, with the OCI media type of its format.
fn layer(descriptor: ForeignDescriptor) -> Result<Descriptor, OciError> {
    let mut layer = descriptor.into_descriptor()?;
    if layer.media_type == DOCKER_LAYER_TYPE {
        layer.media_type = LAYER_GZIP_TYPE.to_owned();
    }
    if [LAYER_GZIP_TYPE, LAYER_ZSTD_TYPE, LAYER_TAR_TYPE].contains(&layer.media_type.as_str()) {
        return Ok(layer);
    }
    Err(OciError::Value {
        what: "layer's media type",
        found: layer.media_type,
        expected: "a tar layer, plain or compressed by gzip or zstd".to_owned(),
    })
}

fn entry(mut descriptor: ForeignDescriptor) -> Result<ForeignEntry, OciError> {
    let (platform, annotations) = (descriptor.platform.take(), std::mem::take(&mut descriptor.annotations));
    Ok(ForeignEntry { descriptor: Descriptor { annotations, ..descriptor.into_descriptor()? }, platform })
}

impl ForeignManifest {
    /// Parses the manifest of one image.
    pub fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        match ForeignDocument::parse(bytes)? {
            ForeignDocument::Manifest(manifest) => Ok(manifest),
            ForeignDocument::Index(_) => Err(OciError::Value {
                what: "image's manifest",
                found: "an index".to_owned(),
                expected: "the manifest of one platform".to_owned(),
            }),
        }
    }

    /// The config and the layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

impl ForeignIndex {
    /// Parses an index.
    pub fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        match ForeignDocument::parse(bytes)? {
            ForeignDocument::Index(index) => Ok(index),
            ForeignDocument::Manifest(_) => Err(OciError::Value {
                what: "image's index",
                found: "a manifest".to_owned(),
                expected: "an index".to_owned(),
            }),
        }
    }

    /// The first manifest for Linux on this architecture, in Go's names. One for the baseline of
    /// the architecture is preferred to one for a variant of it.
    pub fn select(&self, architecture: &str) -> Result<&Descriptor, OciError> {
        let fits = |entry: &&ForeignEntry| {
            let platform = entry.platform.as_ref();
            platform.is_some_and(|p| p.os == "linux" && p.architecture == architecture)
        };
        // `v8` is the only variant of arm64 that images are built for.
        let baseline = |entry: &&ForeignEntry| {
            let variant = entry.platform.as_ref().and_then(|p| p.variant.as_deref());
            matches!(variant, None | Some("" | "v8"))
        };
        let candidates = || self.manifests.iter().filter(fits);
        let found = candidates().find(baseline).or_else(|| candidates().next());
        found.map(|entry| &entry.descriptor).ok_or_else(|| OciError::Value {
            what: "image's list of platforms",
            found: self.platforms(),
            expected: format!("linux/{architecture}"),
        })
    }

    fn platforms(&self) -> String {
        let names = self.manifests.iter().filter_map(|entry| entry.platform.as_ref());
        let names: Vec<_> = names.map(|p| format!("{}/{}", p.os, p.architecture)).collect();
        names.join(", ").chars().take(256).collect()
    }
}

/// What a base image's config says of its root and of how it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignConfig {
    /// The architecture, in Go's names.
    pub architecture: String,
    /// The digests of the unpacked layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// The environment, `NAME=value` each.
    pub env: Vec<String>,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments that may be replaced.
    pub command: Vec<String>,
    /// The directory it starts in; empty for the root.
    pub working_dir: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct ConfigDocument {
    architecture: String,
    os: String,
    #[serde(default)]
    config: Option<Execution>,
    rootfs: RootFs,
}

/// Docker writes `null` for what is not there.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Execution {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

impl ForeignConfig {
    /// Parses an image config.
    pub fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        let json = |source| OciError::Json { what: "image config", source };
        let document: ConfigDocument = serde_json::from_slice(bytes).map_err(json)?;
        expect("image config's os", &document.os, "linux")?;
        at_most("number of layers", document.rootfs.diff_ids.len(), FOREIGN_LAYERS_MAX)?;
        let execution = document.config.unwrap_or_default();
        Ok(Self {
            architecture: document.architecture,
            diff_ids: document.rootfs.diff_ids,
            env: execution.env.unwrap_or_default(),
            entrypoint: execution.entrypoint.unwrap_or_default(),
            command: execution.cmd.unwrap_or_default(),
            working_dir: execution.working_dir.unwrap_or_default(),
            labels: execution.labels.unwrap_or_default(),
        })
    }
}

/// What a manifest or index refers to, of whatever kind it is: what must be kept with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Links {
    /// The config, the layers and the manifests. The subject is none of them.
    pub(crate) blobs: Vec<Descriptor>,
    /// What kind of artifact it is, if it says so.
    pub(crate) artifact_type: Option<String>,
}

impl Links {
    /// Parses any document with a config, layers or manifests.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        let json = |source| OciError::Json { what: "manifest", source };
        let document: Document = serde_json::from_slice(bytes).map_err(json)?;
        let some = |list: Option<Vec<ForeignDescriptor>>| list.unwrap_or_default();
        let all = document.config.into_iter().chain(some(document.layers)).chain(some(document.manifests));
        let blobs = all.map(ForeignDescriptor::into_descriptor).collect::<Result<_, _>>()?;
        Ok(Self { blobs, artifact_type: document.artifact_type })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{INDEX_TYPE, MANIFEST_TYPE};
    use super::*;
    use serde_json::{Value, json};

    fn descriptor(media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": format!("sha256:{}", "a".repeat(64)), "size": 5, "urls": []})
    }

    fn docker() -> Value {
        json!({
            "schemaVersion": 2, "mediaType": DOCKER_MANIFEST_TYPE, "extra": true,
            "config": descriptor("application/vnd.docker.container.image.v1+json"),
            "layers": [descriptor(DOCKER_LAYER_TYPE), descriptor(LAYER_TAR_TYPE), descriptor(LAYER_ZSTD_TYPE)],
        })
    }

    fn index(platforms: &[(&str, &str, Option<&str>)]) -> Value {
        let manifests: Vec<Value> = (0_u64..)
            .zip(platforms)
            .map(|(size, (os, architecture, variant))| {
                let mut entry = descriptor(MANIFEST_TYPE);
                entry["size"] = json!(size);
                entry["platform"] = json!({"os": os, "architecture": architecture, "os.version": "x"});
                if let Some(variant) = variant {
                    entry["platform"]["variant"] = json!(variant);
                }
                entry
            })
            .collect();
        json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests})
    }

    #[test]
    fn docker_and_oci_manifests() {
        let manifest = ForeignManifest::parse(docker().to_string().as_bytes()).unwrap();
        let types: Vec<_> = manifest.layers.iter().map(|layer| layer.media_type.as_str()).collect();
        assert_eq!(types, [LAYER_GZIP_TYPE, LAYER_TAR_TYPE, LAYER_ZSTD_TYPE]);
        assert_eq!(manifest.blobs().count(), 4);
        assert!(ForeignIndex::parse(docker().to_string().as_bytes()).is_err());
        let mut untyped = docker();
        untyped["mediaType"] = json!(MANIFEST_TYPE);
        assert!(ForeignManifest::parse(untyped.to_string().as_bytes()).is_ok());
        untyped.as_object_mut().unwrap().remove("mediaType");
        assert!(ForeignManifest::parse(untyped.to_string().as_bytes()).is_ok());
    }

    #[test]
    fn documents_that_are_not_one_thing() {
        let refused = |change: &dyn Fn(&mut Value)| {
            let mut document = docker();
            change(&mut document);
            ForeignDocument::parse(document.to_string().as_bytes()).unwrap_err().to_string()
        };
        let both = refused(&|document| document["manifests"] = json!([]));
        assert!(both.contains("not both"), "{both}");
        assert!(refused(&|document| document["mediaType"] = json!(INDEX_TYPE)).contains("media type"));
        assert!(refused(&|document| document["schemaVersion"] = json!(1)).contains("schemaVersion"));
        assert!(refused(&|document| document["layers"][0]["mediaType"] = json!("text/html")).contains("tar"));
        assert!(
            refused(&|document| document["layers"] = json!(vec![descriptor(LAYER_GZIP_TYPE); 128]))
                .contains("at most 127")
        );
        let long = refused(&|document| document["config"]["mediaType"] = json!("x".repeat(256)));
        assert!(long.contains("at most 255"), "{long}");
        refused(&|document| document["config"]["digest"] = json!("sha512:00"));
        refused(&|document| document["config"]["size"] = json!(-1));
        let mut confused = index(&[("linux", "amd64", None)]);
        confused["mediaType"] = json!(MANIFEST_TYPE);
        assert!(ForeignDocument::parse(confused.to_string().as_bytes()).is_err());
        assert!(ForeignDocument::parse(b"[]").is_err() && ForeignDocument::parse(b"{}").is_err());
    }

    #[test]
    fn selection_by_architecture() {
        let document = index(&[
            ("windows", "amd64", None),
            ("unknown", "unknown", None),
            ("linux", "arm", Some("v7")),
            ("linux", "amd64", Some("v3")),
            ("linux", "amd64", None),
            ("linux", "arm64", Some("v8")),
        ]);
        let index = ForeignIndex::parse(document.to_string().as_bytes()).unwrap();
        for (architecture, place) in [("amd64", 4), ("arm64", 5), ("arm", 2)] {
            assert_eq!(index.select(architecture).unwrap().size, place, "{architecture}");
        }
        let error = index.select("riscv64").unwrap_err().to_string();
        assert!(error.contains("windows/amd64") && error.contains("linux/riscv64"), "{error}");
    }

    #[test]
    fn configs_with_nulls_and_more() {
        let id = format!("sha256:{}", "b".repeat(64));
        let mut document = json!({
            "architecture": "amd64", "os": "linux", "container": "x", "config": {
                "Env": ["PATH=/bin"], "Cmd": ["sh"], "Entrypoint": null, "Labels": null, "User": ""
            }, "rootfs": {"type": "layers", "diff_ids": [id]},
        });
        let config = ForeignConfig::parse(document.to_string().as_bytes()).unwrap();
        assert_eq!((config.env.len(), config.command.len(), config.entrypoint.len()), (1, 1, 0));
        assert_eq!(config.diff_ids.len(), 1);
        document["config"] = Value::Null;
        assert!(ForeignConfig::parse(document.to_string().as_bytes()).is_ok());
        document["os"] = json!("windows");
        assert!(ForeignConfig::parse(document.to_string().as_bytes()).is_err());
    }
}
