//! Reading blobs: verified, within bounds.

use super::Repository;
use super::error::{BlobError, RepositoryError, failed};
use super::files::read_bounded;
use crate::bounds::{FOREIGN_MANIFEST_MAX, IMAGE_CONFIG_MAX, MANIFEST_MAX};
use crate::hashing::{Hashing, digest_of};
use crate::oci::{
    ArtifactManifest, Descriptor, ForeignConfig, ForeignManifest, Links, Manifest, OciError, PackageConfig,
};
use aos_core::id::Digest;
use std::fs::File;
use std::io::{self, Read};

/// Reads a blob, and fails unless it is what was expected: with its last bytes when its contents
/// are others, so that they reach nobody, and when there is more or less of it.
pub struct VerifiedBlob {
    inner: Hashing<File>,
    digest: Digest,
    size: u64,
    verified: bool,
}

impl VerifiedBlob {
    /// Bytes that the blob has.
    pub const fn size(&self) -> u64 {
        self.size
    }
}

impl Read for VerifiedBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.inner.read(buffer)?;
        let (digest, found) = (self.digest, self.inner.count());
        if found > self.size || (count == 0 && found < self.size) {
            return Err(io::Error::other(BlobError::Size { digest, expected: self.size, found }));
        }
        if found == self.size && !self.verified {
            let found = self.inner.digest();
            if found != digest {
                return Err(io::Error::other(BlobError::Altered { expected: digest, found }));
            }
            self.verified = true;
        }
        Ok(count)
    }
}

impl Repository {
    /// Bytes of a blob that is there. Unless it is pinned ([`super::Lease::pin`] answers the same)
    /// or reachable from a tag, it may be collected at any moment.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, RepositoryError> {
        let path = self.inner.paths.blob(digest);
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
            Ok(_) => Err(failed("read", &path)(io::Error::other("it is not a file"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// Opens a blob at its start. What is read is not verified; an open file outlives collection.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, BlobError> {
        let path = self.inner.paths.blob(digest);
        match File::open(&path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BlobError::Missing(*digest)),
            Err(error) => Err(failed("open", &path)(error).into()),
        }
    }

    /// Opens a blob whose reading fails unless its size and contents are those of the descriptor.
    pub fn verified_blob(&self, blob: &Descriptor) -> Result<VerifiedBlob, BlobError> {
        let inner = Hashing::new(self.open_blob(&blob.digest)?);
        Ok(VerifiedBlob { inner, digest: blob.digest, size: blob.size, verified: false })
    }

    /// The contents of a blob of at most `max` bytes, verified.
    pub fn read_blob(&self, blob: &Descriptor, max: u64) -> Result<Vec<u8>, BlobError> {
        let digest = blob.digest;
        if blob.size > max {
            return Err(BlobError::TooLarge { digest, found: blob.size, max });
        }
        let path = self.inner.paths.blob(&digest);
        let bytes = match read_bounded(&path, blob.size) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                let found = self.blob_size(&digest)?.unwrap_or_default();
                return Err(BlobError::Size { digest, expected: blob.size, found });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(BlobError::Missing(digest)),
            Err(error) => return Err(failed("read", &path)(error).into()),
        };
        if bytes.len() as u64 != blob.size {
            return Err(BlobError::Size { digest, expected: blob.size, found: bytes.len() as u64 });
        }
        let found = digest_of(&bytes);
        if found == digest { Ok(bytes) } else { Err(BlobError::Altered { expected: digest, found }) }
    }

    /// A blob that is JSON of this kind.
    pub(super) fn read_json<T>(
        &self,
        blob: &Descriptor,
        max: u64,
        parse: impl FnOnce(&[u8]) -> Result<T, OciError>,
    ) -> Result<T, BlobError> {
        let bytes = self.read_blob(blob, max)?;
        parse(&bytes).map_err(|source| BlobError::Json { digest: blob.digest, source: Box::new(source) })
    }

    /// The manifest and config of a package.
    pub fn package(&self, manifest: &Descriptor) -> Result<(Manifest, PackageConfig), BlobError> {
        let manifest = self.read_json(manifest, MANIFEST_MAX, Manifest::parse)?;
        let config = self.read_json(&manifest.config, IMAGE_CONFIG_MAX, PackageConfig::parse)?;
        Ok((manifest, config))
    }

    /// The manifest and config of an image that somebody else made, for one architecture.
    pub fn image(&self, manifest: &Descriptor) -> Result<(ForeignManifest, ForeignConfig), BlobError> {
        let manifest = self.read_json(manifest, FOREIGN_MANIFEST_MAX, ForeignManifest::parse)?;
        let config = self.read_json(&manifest.config, IMAGE_CONFIG_MAX, ForeignConfig::parse)?;
        Ok((manifest, config))
    }

    /// The manifest of an attachment.
    pub(super) fn artifact(&self, manifest: &Descriptor) -> Result<ArtifactManifest, BlobError> {
        self.read_json(manifest, MANIFEST_MAX, ArtifactManifest::parse)
    }

    /// Checks that a blob is there with its size.
    pub(super) fn present(&self, blob: &Descriptor) -> Result<(), BlobError> {
        let (digest, expected) = (blob.digest, blob.size);
        match self.blob_size(&digest)? {
            None => Err(BlobError::Missing(digest)),
            Some(found) if found == expected => Ok(()),
            Some(found) => Err(BlobError::Size { digest, expected, found }),
        }
    }

    /// Checks that an image manifest and all that it refers to is there; returns its artifact type.
    pub(super) fn complete(&self, manifest: &Descriptor) -> Result<Option<String>, BlobError> {
        let links = self.read_json(manifest, FOREIGN_MANIFEST_MAX, Links::parse)?;
        links.blobs.iter().try_for_each(|blob| self.present(blob))?;
        Ok(links.artifact_type)
    }
}
