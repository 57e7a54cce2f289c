//! The index: tags, attachments, and what has neither.

use super::Repository;
use super::error::{AttachError, BlobError, RepositoryError, ResolveError, TagError, failed};
use super::files::{replace, sync_directory};
use super::lease::Lease;
use super::lock::{Exclusive, Locked};
use crate::bounds::{ATTACHMENTS_MAX, STORE_INDEX_MAX};
use crate::oci::{
    ArtifactManifest, Descriptor, Index, MANIFEST_TYPE, ORIGIN, OciError, REF_NAME, SUBJECT,
    is_image_manifest,
};
use aos_core::id::Digest;
use aos_core::reference::Reference;
use std::collections::BTreeSet;

/// Where a package comes from: the annotation `org.aos.origin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Built on this machine.
    Built,
    /// Pulled from a registry.
    Pulled,
    /// Read from a file.
    Imported,
}

impl Origin {
    /// The text of the annotation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Built => "built",
            Self::Pulled => "pulled",
            Self::Imported => "imported",
        }
    }

    /// The origin of an entry of the index. What does not say that it was built here was not.
    fn of(descriptor: &Descriptor) -> Self {
        match descriptor.annotations.get(ORIGIN).map(String::as_str) {
            Some("built") => Self::Built,
            Some("pulled") => Self::Pulled,
            _ => Self::Imported,
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A tag and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    /// The name and tag.
    pub reference: Reference,
    /// The manifest.
    pub descriptor: Descriptor,
    /// Where it comes from.
    pub origin: Origin,
}

/// A manifest of the index that is not an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The manifest.
    pub descriptor: Descriptor,
    /// Its tags, as they are written; without one it stays until it is collected.
    pub names: Vec<String>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Something attached to a manifest: a signature, an SBOM, a provenance statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The artifact manifest.
    pub descriptor: Descriptor,
    /// What kind of artifact it is.
    pub artifact_type: String,
    /// What the artifact manifest says.
    pub manifest: ArtifactManifest,
}

/// True for the entry of an attachment.
pub(super) fn is_attachment(entry: &Descriptor) -> bool {
    entry.annotations.contains_key(SUBJECT)
}

/// What the entry of an attachment says that it is attached to.
pub(super) fn subject_of(entry: &Descriptor) -> Option<Digest> {
    entry.annotations.get(SUBJECT)?.parse().ok()
}

/// An entry's descriptor, as a manifest would refer to it.
fn plain(entry: &Descriptor) -> Descriptor {
    let annotations = std::collections::BTreeMap::new();
    Descriptor { annotations, ..entry.clone() }
}

impl Repository {
    /// Reads the index.
    pub(super) fn read_index(&self, _witness: &impl Locked) -> Result<Index, RepositoryError> {
        let path = self.inner.paths.index();
        let bytes = super::files::read_bounded(&path, STORE_INDEX_MAX).map_err(failed("read", &path))?;
        let bytes = bytes
            .ok_or(RepositoryError::IndexTooLarge { found: STORE_INDEX_MAX + 1, max: STORE_INDEX_MAX })?;
        let index = Index::parse(&bytes).and_then(distinct);
        index.map_err(|source| RepositoryError::Index { path, source: Box::new(source) })
    }

    /// Replaces the index, after making the names of all blobs durable.
    pub(super) fn write_index(&self, _witness: &Exclusive<'_>, index: &Index) -> Result<(), RepositoryError> {
        let paths = &self.inner.paths;
        let path = paths.index();
        let bytes = index
            .to_json()
            .map_err(|source| RepositoryError::Index { path: path.clone(), source: Box::new(source) })?;
        if bytes.len() as u64 > STORE_INDEX_MAX {
            return Err(RepositoryError::IndexTooLarge { found: bytes.len() as u64, max: STORE_INDEX_MAX });
        }
        self.sync_blobs()?;
        replace(&path, &bytes, &paths.tmp).map_err(failed("write", &path))
    }

    /// Makes the names of all blobs durable.
    fn sync_blobs(&self) -> Result<(), RepositoryError> {
        let path = &self.inner.paths.blobs;
        sync_directory(path).map_err(failed("sync", path))
    }

    /// Gives a manifest, of which everything is in the store, a tag. Returns the digest that had
    /// the tag, if it was another; that manifest stays in the index until it is collected.
    pub fn tag(
        &self,
        _lease: &Lease,
        reference: &Reference,
        descriptor: &Descriptor,
        origin: Origin,
    ) -> Result<Option<Digest>, TagError> {
        if reference.tag.is_none() || reference.digest.is_some() {
            return Err(TagError::Reference(reference.to_string()));
        }
        self.tag_as(&reference.to_string(), descriptor, origin)
    }

    /// Gives a manifest a tag that is written in another way than a reference.
    pub(crate) fn tag_as(
        &self,
        name: &str,
        descriptor: &Descriptor,
        origin: Origin,
    ) -> Result<Option<Digest>, TagError> {
        if !is_image_manifest(&descriptor.media_type) {
            return Err(TagError::MediaType(descriptor.media_type.chars().take(128).collect()));
        }
        let locked = self.inner.lock.exclusive()?;
        let artifact_type = self
            .complete(descriptor)
            .map_err(|source| TagError::Incomplete { digest: descriptor.digest, source })?;
        let mut entry = Descriptor::new(&descriptor.media_type, descriptor.digest, descriptor.size);
        entry.artifact_type = artifact_type;
        entry.annotations.insert(ORIGIN.to_owned(), origin.as_str().to_owned());
        let old = self.read_index(&locked)?;
        let (index, replaced) = retag(&old, entry, name);
        if index == old {
            // The entry is there; that its blobs came again, in place of altered ones, must last too.
            self.sync_blobs()?;
        } else {
            self.write_index(&locked, &index)?;
        }
        Ok(replaced)
    }

    /// Takes a tag away. Returns what had it; that stays in the index until it is collected.
    pub fn untag(&self, reference: &Reference) -> Result<Option<Digest>, RepositoryError> {
        let locked = self.inner.lock.exclusive()?;
        let mut index = self.read_index(&locked)?;
        let removed = unname(&mut index, &reference.to_string());
        if removed.is_some() {
            settle(&mut index);
            self.write_index(&locked, &index)?;
        }
        Ok(removed)
    }

    /// Takes manifests out of the index, with all their tags and attachments, whether they can be
    /// read or not. Their blobs stay until they are collected.
    pub fn forget(&self, digests: &BTreeSet<Digest>) -> Result<(), RepositoryError> {
        let locked = self.inner.lock.exclusive()?;
        let mut index = self.read_index(&locked)?;
        let before = index.manifests.len();
        index.manifests.retain(|entry| {
            let of_subject = subject_of(entry).is_some_and(|subject| digests.contains(&subject));
            !digests.contains(&entry.digest) && !of_subject
        });
        if index.manifests.len() != before {
            self.write_index(&locked, &index)?;
        }
        Ok(())
    }

    /// All tags, by their references. An entry whose name is no reference is no tag;
    /// [`Repository::check`] tells of it.
    pub fn tags(&self) -> Result<Vec<Tagged>, RepositoryError> {
        let index = self.read_index(&self.inner.lock.shared()?)?;
        let tagged = |entry: &Descriptor| {
            let reference = entry.annotations.get(REF_NAME)?.parse().ok()?;
            Some(Tagged { reference, descriptor: plain(entry), origin: Origin::of(entry) })
        };
        let mut tags: Vec<_> = index.manifests.iter().filter_map(tagged).collect();
        tags.sort_by_key(|tagged| tagged.reference.to_string());
        Ok(tags)
    }

    /// All manifests but attachments, by digest, with and without tags.
    pub fn listed(&self) -> Result<Vec<Listed>, RepositoryError> {
        let index = self.read_index(&self.inner.lock.shared()?)?;
        let mut found: Vec<Listed> = Vec::new();
        let mut entries: Vec<_> = index.manifests.iter().filter(|entry| !is_attachment(entry)).collect();
        entries.sort_by_key(|entry| entry.digest);
        for entry in entries {
            let name = entry.annotations.get(REF_NAME).cloned();
            match found.last_mut() {
                Some(last) if last.descriptor.digest == entry.digest => last.names.extend(name),
                _ => found.push(Listed {
                    descriptor: plain(entry),
                    names: name.into_iter().collect(),
                    origin: Origin::of(entry),
                }),
            }
        }
        Ok(found)
    }

    /// The manifest that a reference means: by its digest if it has one, which any manifest of the
    /// index may have; by its tag; or else the highest version among the tags of its name.
    pub fn resolve(&self, reference: &Reference) -> Result<Descriptor, ResolveError> {
        let index = self.read_index(&self.inner.lock.shared()?)?;
        let named = |entry: &Descriptor| entry.annotations.get(REF_NAME)?.parse::<Reference>().ok();
        let of_name = |entry: &&Descriptor| {
            named(entry)
                .is_some_and(|other| (&other.registry, &other.path) == (&reference.registry, &reference.path))
        };
        let found = if let Some(digest) = &reference.digest {
            index.manifests.iter().find(|entry| entry.digest == *digest)
        } else if reference.tag.is_some() {
            index.manifests.iter().find(|entry| named(entry).as_ref() == Some(reference))
        } else {
            let version = |entry: &Descriptor| named(entry)?.tag?.version();
            let versions = index.manifests.iter().filter(of_name).filter(|entry| version(entry).is_some());
            versions.max_by_key(|entry| version(entry))
        };
        found.map(plain).ok_or_else(|| ResolveError::NotFound {
            reference: reference.to_string(),
            known: index.manifests.iter().filter(of_name).filter_map(named).map(|r| r.to_string()).collect(),
        })
    }

    /// Lists an artifact manifest whose subject is in the store. Everything of both is there, and
    /// the subject is what the artifact manifest says.
    pub fn attach(&self, _lease: &Lease, descriptor: &Descriptor) -> Result<Attachment, AttachError> {
        let digest = descriptor.digest;
        let locked = self.inner.lock.exclusive()?;
        let attachment = self
            .attachment(descriptor)
            .and_then(|attachment| {
                attachment.manifest.blobs().try_for_each(|blob| self.present(blob))?;
                Ok(attachment)
            })
            .map_err(|source| AttachError::Attachment { digest, source })?;
        let subject = &attachment.manifest.subject;
        self.complete(subject).map_err(|source| AttachError::Subject {
            digest,
            subject: subject.digest,
            source: Box::new(source),
        })?;
        let mut index = self.read_index(&locked)?;
        if index.manifests.iter().any(|entry| entry.digest == digest) {
            return Ok(attachment);
        }
        let siblings = index.manifests.iter().filter(|entry| subject_of(entry) == Some(subject.digest));
        if siblings.count() >= ATTACHMENTS_MAX {
            return Err(AttachError::TooMany { subject: subject.digest, max: ATTACHMENTS_MAX });
        }
        let mut entry = Descriptor::new(MANIFEST_TYPE, digest, descriptor.size);
        entry.artifact_type = Some(attachment.artifact_type.clone());
        entry.annotations.insert(SUBJECT.to_owned(), subject.digest.to_string());
        index.manifests.push(entry);
        settle(&mut index);
        self.write_index(&locked, &index)?;
        Ok(attachment)
    }

    /// Takes an attachment out of the index. Its blobs stay until they are collected.
    pub fn detach(&self, attachment: &Digest) -> Result<bool, RepositoryError> {
        let locked = self.inner.lock.exclusive()?;
        let mut index = self.read_index(&locked)?;
        let before = index.manifests.len();
        index.manifests.retain(|entry| !(is_attachment(entry) && entry.digest == *attachment));
        if index.manifests.len() == before {
            return Ok(false);
        }
        self.write_index(&locked, &index).map(|()| true)
    }

    /// What is attached to a manifest, by digest.
    pub fn attachments(&self, subject: &Digest) -> Result<Vec<Attachment>, BlobError> {
        let locked = self.inner.lock.shared()?;
        let index = self.read_index(&locked)?;
        let mut found = Vec::new();
        for entry in index.manifests.iter().filter(|entry| subject_of(entry) == Some(*subject)) {
            let attachment = self.attachment(entry)?;
            if attachment.manifest.subject.digest == *subject {
                found.push(attachment);
            }
        }
        found.sort_by_key(|attachment| attachment.descriptor.digest);
        Ok(found)
    }

    /// Reads an artifact manifest.
    pub(super) fn attachment(&self, entry: &Descriptor) -> Result<Attachment, BlobError> {
        let manifest = self.artifact(entry)?;
        let descriptor = Descriptor {
            artifact_type: Some(manifest.artifact_type.clone()),
            ..Descriptor::new(MANIFEST_TYPE, entry.digest, entry.size)
        };
        Ok(Attachment { descriptor, artifact_type: manifest.artifact_type.clone(), manifest })
    }
}

/// Refuses an index in which a tag means two things.
fn distinct(index: Index) -> Result<Index, OciError> {
    let mut names = BTreeSet::new();
    match index
        .manifests
        .iter()
        .filter_map(|entry| entry.annotations.get(REF_NAME))
        .find(|name| !names.insert(*name))
    {
        None => Ok(index),
        Some(name) => Err(OciError::Value {
            what: "index's list of tags",
            found: name.chars().take(256).collect(),
            expected: "each tag once".to_owned(),
        }),
    }
}

/// The index with this manifest under this name. The manifest that had it keeps its place.
fn retag(index: &Index, mut entry: Descriptor, name: &str) -> (Index, Option<Digest>) {
    let mut index = index.clone();
    let digest = entry.digest;
    let replaced = unname(&mut index, name).filter(|old| *old != digest);
    entry.annotations.insert(REF_NAME.to_owned(), name.to_owned());
    index.manifests.push(entry);
    settle(&mut index);
    (index, replaced)
}

/// Takes a name away from the entry that has it.
fn unname(index: &mut Index, name: &str) -> Option<Digest> {
    let mut removed = None;
    for entry in &mut index.manifests {
        if entry.annotations.get(REF_NAME).is_some_and(|other| other == name) {
            entry.annotations.remove(REF_NAME);
            removed = Some(entry.digest);
        }
    }
    removed
}

/// Brings the entries into their order, by digest and name, and keeps an entry without a name
/// only where it is the one of its manifest.
fn settle(index: &mut Index) {
    let named: BTreeSet<Digest> = index
        .manifests
        .iter()
        .filter(|entry| entry.annotations.contains_key(REF_NAME))
        .map(|entry| entry.digest)
        .collect();
    index
        .manifests
        .retain(|entry| entry.annotations.contains_key(REF_NAME) || !named.contains(&entry.digest));
    index.manifests.sort_by(|a, b| {
        let key = |entry: &Descriptor| (entry.digest, entry.annotations.get(REF_NAME).cloned());
        key(a).cmp(&key(b))
    });
    index
        .manifests
        .dedup_by(|a, b| a.digest == b.digest && a.annotations.get(REF_NAME) == b.annotations.get(REF_NAME));
}
