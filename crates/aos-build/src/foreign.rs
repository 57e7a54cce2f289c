//! Layers of other tools that a package cannot have as they are: uncompressed ones, and those with
//! devices or pipes. They are written anew, with everything else as it was.

use crate::cache::Layer;
use crate::error::BuildError;
use crate::layer::{self, Sources, WrittenLayer};
use crate::options::Options;
use crate::tarball::{Collected, TarballError, path};
use aos_core::id::Digest;
use aos_package::bounds::{LAYER_UNPACKED_MAX, RATIO_FREE, RATIO_MAX, ZSTD_WINDOW_LOG_MAX};
use aos_package::layer::LayerError;
use aos_package::oci::{LAYER_GZIP_TYPE, LAYER_TAR_TYPE, LAYER_ZSTD_TYPE};
use aos_package::repository::{Lease, Repository};
use aos_package::tarball::TarError;
use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read};
use tar::Archive;

/// True when a layer was refused for what writing it anew mends.
pub(crate) const fn is_mendable(error: &LayerError) -> bool {
    matches!(error, LayerError::MediaType(_) | LayerError::Tar(TarError::Kind { .. }))
}

/// Writes a layer anew.
pub(crate) fn mend(
    layer: &Layer,
    repository: &Repository,
    options: &Options,
    lease: &Lease,
) -> Result<WrittenLayer, BuildError> {
    let digest = layer.blob.digest;
    let refused = |source: TarballError| BuildError::Foreign { digest, source };
    let blob = repository.open_blob(&digest)?;
    let mut input = open(blob, layer).map_err(|error| refused(error.into()))?;
    let mut collected = Collected::new(lease.directory()).map_err(|error| refused(error.into()))?;
    read(&mut input, &mut collected).map_err(refused)?;
    let found = Digest::from_bytes(input.hash.finalize().into());
    if found != layer.diff_id {
        let source = LayerError::DiffId { expected: layer.diff_id, found };
        return Err(BuildError::Refused { digest, source });
    }
    let (mut items, contents) = collected.finish().map_err(refused)?;
    layer::sort(&mut items);
    let sources = Sources { spool: Some(&contents), ..Sources::default() };
    layer::write(items, &sources, options, lease, &|_| {})
}

fn read(input: &mut Bounded, collected: &mut Collected) -> Result<(), TarballError> {
    let mut archive = Archive::new(&mut *input);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = path(&entry.path_bytes())?;
        collected.take(&mut entry, path, u64::MAX)?;
    }
    // What is behind the end of the tar belongs to its digest.
    io::copy(input, &mut io::sink())?;
    Ok(())
}

/// The bytes of a layer, hashed, and no more of them than a layer may have.
struct Bounded {
    inner: Box<dyn Read>,
    hash: Sha256,
    left: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => return Err(io::Error::other("it unpacks to more than a layer may have")),
        }
        Ok(count)
    }
}

fn open(blob: File, layer: &Layer) -> io::Result<Bounded> {
    let left = layer.blob.size.saturating_mul(RATIO_MAX).clamp(RATIO_FREE, LAYER_UNPACKED_MAX);
    let inner: Box<dyn Read> = match layer.blob.media_type.as_str() {
        LAYER_TAR_TYPE => Box::new(blob),
        LAYER_GZIP_TYPE => Box::new(MultiGzDecoder::new(blob)),
        LAYER_ZSTD_TYPE => {
            let mut decoder = zstd::stream::read::Decoder::new(blob)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        other => return Err(io::Error::other(format!("{other} is not the media type of a layer"))),
    };
    Ok(Bounded { inner, hash: Sha256::new(), left })
}
