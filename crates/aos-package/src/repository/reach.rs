//! What is reachable: from manifests to their configs and layers, and from them to what is
//! attached.

use super::Repository;
use super::error::{BlobError, RepositoryError};
use super::index::{is_attachment, subject_of};
use crate::bounds::FOREIGN_MANIFEST_MAX;
use crate::oci::{Descriptor, Index, Links, is_image_manifest, is_index};
use aos_core::id::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

/// Blobs that are found from some roots.
pub(super) struct Reach<'a> {
    repository: &'a Repository,
    /// Every blob that is reachable; manifests among them.
    pub(super) blobs: BTreeSet<Digest>,
    /// What is wrong with a manifest that is reachable: the blobs behind it are unknown.
    pub(super) damaged: BTreeMap<Digest, BlobError>,
    /// Manifests whose references were followed. Being reachable is not enough: what is a layer of
    /// one may be the manifest of another.
    read: BTreeSet<Digest>,
    /// Blobs of which only the digest is known, and which were followed.
    probed: BTreeSet<Digest>,
}

impl<'a> Reach<'a> {
    pub(super) fn new(repository: &'a Repository) -> Self {
        Self {
            repository,
            blobs: BTreeSet::new(),
            damaged: BTreeMap::new(),
            read: BTreeSet::new(),
            probed: BTreeSet::new(),
        }
    }

    /// Adds a manifest, or an index, and all below it. Of the manifests of an index, some may
    /// never have come.
    pub(super) fn manifest(&mut self, manifest: &Descriptor) -> Result<(), RepositoryError> {
        let mut queue = vec![manifest.clone()];
        while let Some(manifest) = queue.pop() {
            self.blobs.insert(manifest.digest);
            if !self.read.insert(manifest.digest) {
                continue;
            }
            match self.repository.read_json(&manifest, FOREIGN_MANIFEST_MAX, Links::parse) {
                Ok(links) => {
                    let sparse = is_index(&manifest.media_type);
                    for blob in links.blobs {
                        self.blobs.insert(blob.digest);
                        let nested = is_image_manifest(&blob.media_type) || is_index(&blob.media_type);
                        if nested && !(sparse && self.repository.blob_size(&blob.digest)?.is_none()) {
                            queue.push(blob);
                        }
                    }
                }
                Err(BlobError::Repository(error)) => return Err(error),
                Err(error) => {
                    self.damaged.insert(manifest.digest, error);
                }
            }
        }
        Ok(())
    }

    /// Adds everything that an index lists, and what its attachments are attached to, which it may
    /// not list.
    pub(super) fn index(&mut self, index: &Index) -> Result<(), RepositoryError> {
        for entry in &index.manifests {
            self.manifest(entry)?;
            if let Some(subject) = subject_of(entry) {
                self.blob(&subject)?;
            }
        }
        Ok(())
    }

    /// Adds a blob of which only the digest is known, and all below it if it is a manifest.
    pub(super) fn blob(&mut self, digest: &Digest) -> Result<(), RepositoryError> {
        let mut queue = vec![*digest];
        while let Some(digest) = queue.pop() {
            self.blobs.insert(digest);
            if self.read.contains(&digest) || !self.probed.insert(digest) {
                continue;
            }
            if let Some(links) = self.links(&digest)? {
                queue.extend(links.blobs.iter().map(|blob| blob.digest));
            }
        }
        Ok(())
    }

    /// What a blob refers to, if it is a manifest.
    fn links(&self, digest: &Digest) -> Result<Option<Links>, RepositoryError> {
        match self.repository.blob_size(digest)? {
            Some(1..=FOREIGN_MANIFEST_MAX) => {}
            _ => return Ok(None),
        }
        let path = self.repository.inner.paths.blob(digest);
        let read = || {
            let mut file = std::fs::File::open(&path)?;
            let mut bytes = vec![0; 1];
            file.read_exact(&mut bytes)?;
            if bytes == b"{" {
                file.take(FOREIGN_MANIFEST_MAX).read_to_end(&mut bytes)?;
            }
            std::io::Result::Ok(bytes)
        };
        let bytes = read().map_err(super::failed("read", &path))?;
        Ok(Links::parse(&bytes).ok())
    }

    /// Adds the attachments of everything that is reachable, and those of these in turn.
    pub(super) fn attachments(&mut self, index: &Index) -> Result<(), RepositoryError> {
        let entries: Vec<_> = index.manifests.iter().filter(|entry| is_attachment(entry)).collect();
        loop {
            let before = self.blobs.len();
            for entry in &entries {
                if subject_of(entry).is_some_and(|subject| self.blobs.contains(&subject)) {
                    self.manifest(entry)?;
                }
            }
            if self.blobs.len() == before {
                return Ok(());
            }
        }
    }
}
