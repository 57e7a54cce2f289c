//! Packages from archives, and into them.

use super::Repository;
use super::error::{AttachError, BlobError, RepositoryError, failed};
use super::index::Attachment;
use super::lease::Lease;
use crate::archive::{self, Archive, ArchiveError, BlobSource};
use crate::oci::{Descriptor, PackageConfig};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use thiserror::Error;

/// Why an archive is not imported. The store lists nothing of it.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The archive is refused.
    #[error("the archive is refused")]
    Archive(#[from] ArchiveError),
    /// What is attached to the package is refused.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The store failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// Why a package is not exported. The output is of no use.
#[derive(Debug, Error)]
pub enum ExportError {
    /// Something of the package cannot be used.
    #[error("the package {digest} cannot be read")]
    Package {
        /// The manifest.
        digest: aos_core::id::Digest,
        /// What is wrong.
        source: BlobError,
    },
    /// The archive cannot be written.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// A package that was read from an archive. It has no tag yet.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The manifest.
    pub descriptor: Descriptor,
    /// What the package's config says.
    pub package: PackageConfig,
    /// What came with it.
    pub attachments: Vec<Attachment>,
}

impl Repository {
    /// Reads an archive into the store, every byte verified, no layer in memory. The lease keeps
    /// the package until it gets a tag; what came attached to it is attached.
    pub fn import_archive(&self, lease: &Lease, input: impl Read) -> Result<Imported, ImportError> {
        let spool = tempfile::Builder::new()
            .prefix("import-")
            .tempdir_in(lease.directory())
            .map_err(failed("make files in", lease.directory()))?;
        let archive = archive::read(input, spool.path())?;
        for digest in archive.blobs().keys() {
            let path = spool.path().join(digest.hex());
            let file = File::open(&path).map_err(failed("open", &path))?;
            file.sync_all().map_err(failed("sync", &path))?;
        }
        self.adopt(lease, &archive)?;
        let attachments = archive.attachments.iter().map(|(entry, _)| self.attach(lease, entry));
        let attachments = attachments.collect::<Result<_, _>>()?;
        Ok(Imported { descriptor: archive.manifest, package: archive.package, attachments })
    }

    /// Gives the verified blobs of an archive their names. They are durable already.
    pub(crate) fn adopt(&self, lease: &Lease, archive: &Archive) -> Result<(), RepositoryError> {
        let shared = self.inner.lock.shared()?;
        for digest in archive.blobs().keys() {
            lease.pin_locked(&shared, *digest)?;
            let (from, to) = (archive.spool.join(digest.hex()), self.inner.paths.blob(digest));
            std::fs::rename(&from, &to).map_err(failed("make", &to))?;
        }
        Ok(())
    }

    /// Writes a package and some of what is attached to it as an archive. Every byte is verified
    /// on the way; the archive depends on the package and the attachments alone.
    pub fn export(
        &self,
        manifest: &Descriptor,
        attachments: &[Attachment],
        output: impl Write,
    ) -> Result<(), ExportError> {
        let failed = |source| ExportError::Package { digest: manifest.digest, source };
        let (parsed, config) = self.package(manifest).map_err(failed)?;
        let attached = attachments.iter().flat_map(|attachment| attachment.manifest.blobs());
        let manifests = attachments.iter().map(|attachment| &attachment.descriptor);
        let mut blobs = BTreeMap::new();
        for blob in parsed.blobs().chain([manifest]).chain(attached).chain(manifests) {
            let source = BlobSource::Verified(self.verified_blob(blob).map_err(failed)?);
            blobs.insert(blob.digest, (blob.size, source));
        }
        let descriptors: Vec<_> =
            attachments.iter().map(|attachment| attachment.descriptor.clone()).collect();
        let reference = config.agent.reference().to_string();
        Ok(archive::write_attached(output, &reference, manifest, &descriptors, blobs)?)
    }
}
