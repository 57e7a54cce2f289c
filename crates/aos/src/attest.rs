//! What is attached to a package that was built: the provenance (SLSA) and the list of software in it (SPDX). Signed
//! when there is a key.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use aos_build::{Built, Materials};
use aos_core::id::Digest;
use aos_package::layer::read::{Items, Kind};
use aos_package::oci::{Descriptor, PackageConfig};
use aos_package::repository::{Attachment, Lease, Repository};
use aos_package::unpack::Options;
use aos_trust::dsse::ENVELOPE_TYPE;
use aos_trust::inventory::{Component, MANIFEST_MAX, Manifest};
use aos_trust::key::PrivateKey;
use aos_trust::provenance::{self, Build, Content, Input};
use aos_trust::signature::{self, PREDICATE_ANNOTATION};
use aos_trust::spdx::{self, Description};
use aos_trust::statement::{PROVENANCE_PREDICATE, SPDX_PREDICATE, Statement};

use crate::attachment;
use crate::contents;
use crate::held;
use crate::store;

/// Who builds when nobody says otherwise. Like the predicate types it is no address.
pub(crate) const LOCAL_BUILDER: &str = "https://aos.invalid/builder/local";

/// Attaches provenance and SBOM to a package, unless it has them. Returns all that is attached to it.
pub(crate) fn attest(
    lease: &Lease,
    built: &Built,
    builder: &str,
    key: Option<&PrivateKey>,
) -> Result<Vec<Attachment>> {
    let mut attached = lease.repository().attachments(&built.digest)?;
    let subject = || signature::subject(&built.agent.name, &built.agent.version, built.digest);
    if !has(&attached, PROVENANCE_PREDICATE, key) {
        let statement = provenance::statement(subject(), &build(&built.materials, builder))?;
        attached.push(attachment::attach_statement(lease, &built.manifest, &statement, key)?);
    }
    if !has(&attached, SPDX_PREDICATE, key) {
        let document =
            software(lease.repository(), built).context("cannot list the software in the package")?;
        let statement = Statement::about(subject(), SPDX_PREDICATE, &document)?;
        attached.push(attachment::attach_statement(lease, &built.manifest, &statement, key)?);
    }
    Ok(attached)
}

/// Whether something of this predicate is attached; with a key, whether it is signed.
fn has(attached: &[Attachment], predicate: &str, key: Option<&PrivateKey>) -> bool {
    attached.iter().any(|attachment| {
        let of_predicate =
            attachment.manifest.annotations.get(PREDICATE_ANNOTATION).is_some_and(|it| it == predicate);
        of_predicate && (key.is_none() || attachment.artifact_type == ENVELOPE_TYPE)
    })
}

/// The build as provenance has it.
fn build(materials: &Materials, builder: &str) -> Build {
    let mut parameters: BTreeMap<String, String> =
        materials.arguments.iter().map(|(name, value)| (format!("arg:{name}"), value.clone())).collect();
    parameters.insert("architecture".to_owned(), materials.architecture.clone());
    parameters.insert("SOURCE_DATE_EPOCH".to_owned(), materials.source_date_epoch.to_string());
    for name in &materials.secrets {
        parameters.insert(format!("secret:{name}"), String::new());
    }
    let file = |name: &str, digest: Digest| Input {
        name: name.to_owned(),
        uri: name.to_owned(),
        content: Content::Sha256(digest),
    };
    let mut inputs: Vec<Input> = materials.bases.iter().map(|base| file(&base.name, base.digest)).collect();
    inputs.push(file("Agentfile", materials.agentfile));
    inputs.push(file("files", materials.context));
    if let Some(revision) = &materials.source_revision {
        inputs.push(Input {
            name: "source".to_owned(),
            uri: "git".to_owned(),
            content: Content::GitCommit(revision.clone()),
        });
    }
    Build {
        builder: builder.to_owned(),
        programs: BTreeMap::from([("aos".to_owned(), materials.builder_version.clone())]),
        parameters,
        inputs,
        started: None,
        finished: None,
    }
}

/// The SBOM: what dpkg's database and the manifests of languages name in the package's files.
fn software(repository: &Repository, built: &Built) -> Result<spdx::Document> {
    let (_, config) = store::package(repository, &built.manifest)?;
    let components = if names_software(repository, &built.layers, &config)? {
        components(repository, &built.layers, &config)?
    } else {
        Vec::new()
    };
    let description = Description {
        name: &built.agent.name,
        version: &built.agent.version,
        manifest: built.digest,
        created: built.materials.source_date_epoch,
        tool: concat!("aos-", env!("CARGO_PKG_VERSION")),
    };
    Ok(spdx::document(&description, components)?)
}

/// True when some layer has a file that names software.
fn names_software(repository: &Repository, layers: &[Descriptor], config: &PackageConfig) -> Result<bool> {
    for (layer, diff_id) in layers.iter().zip(&config.diff_ids) {
        for item in Items::open(repository.open_blob(&layer.digest)?, layer, *diff_id)? {
            let item = item.with_context(|| format!("cannot read the layer {}", layer.digest))?;
            let path = item.path.filter(|_| matches!(item.kind, Kind::File(_)));
            if path.is_some_and(|path| Manifest::at(path.as_str()).is_some()) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The components that the package's files name: what a later layer removes is not among them.
fn components(
    repository: &Repository,
    layers: &[Descriptor],
    config: &PackageConfig,
) -> Result<Vec<Component>> {
    let scratch = held::scratch()?;
    contents::unpack(repository, layers, config, scratch.path(), Options::default())?;
    let mut found = Vec::new();
    walk(scratch.path(), scratch.path(), &mut found)?;
    scratch.close().context("cannot remove the temporary folder")?;
    Ok(found)
}

/// Reads the manifests below a folder. Links are not followed: they may lead out of the package. A manifest that
/// cannot be read names nothing: it is a file of the package like any other.
fn walk(root: &Path, folder: &Path, found: &mut Vec<Component>) -> Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(root, &path, found)?;
            continue;
        }
        let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str) else { continue };
        let Some(manifest) = Manifest::at(name).filter(|_| kind.is_file()) else { continue };
        if entry.metadata()?.len() > MANIFEST_MAX as u64 {
            continue;
        }
        found.extend(manifest.read(name, &fs::read(&path)?).unwrap_or_default());
    }
    Ok(())
}
