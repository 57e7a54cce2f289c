//! Layers: unpacking their compression within bounds, and examining them before anything of them
//! touches the disk.

use crate::bounds::{
    FILES_MAX, LAYER_UNPACKED_MAX, RATIO_FREE, RATIO_MAX, UNPACKED_MAX, ZSTD_WINDOW_LOG_MAX,
};
use crate::hashing::Hashing;
use crate::oci::{Descriptor, LAYER_GZIP_TYPE, LAYER_ZSTD_TYPE};
use crate::tarball::{Entry, Kind, TarError, TarReader};
use aos_core::id::Digest;
use aos_core::path::RelativePath;
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufReader, Read};
use thiserror::Error;

/// Read at once from decoders and to hashes: large enough that their cost per call vanishes.
const BUFFER: usize = 64 << 10;
/// The prefix of a whiteout's name (OCI image specification, "Whiteouts").
const WHITEOUT: &str = ".wh.";
/// The name of the whiteout of everything in its directory.
const OPAQUE: &str = ".wh..wh..opq";

/// Why a layer is refused.
#[derive(Debug, Error)]
pub enum LayerError {
    /// The layer cannot be read.
    #[error("cannot read the layer")]
    Read(#[from] io::Error),
    /// The tar is wrong.
    #[error(transparent)]
    Tar(TarError),
    /// The unpacked layer exceeds a bound.
    #[error("the layer unpacks to more than {max} bytes, {reason}")]
    TooLarge {
        /// The bound.
        max: u64,
        /// Where it comes from.
        reason: &'static str,
    },
    /// There are too many files.
    #[error("the package has more than {FILES_MAX} files")]
    TooManyFiles,
    /// The unpacked layer is not the declared one.
    #[error("the unpacked layer has digest {found}, the image config says {expected}")]
    DiffId {
        /// What the config says.
        expected: Digest,
        /// What the layer has.
        found: Digest,
    },
    /// The media type is not one of a layer.
    #[error("{0} is not the media type of a layer")]
    MediaType(String),
    /// A whiteout is not valid.
    #[error("`{0}` is not a valid whiteout")]
    Whiteout(String),
}

impl From<TarError> for LayerError {
    fn from(error: TarError) -> Self {
        match error {
            TarError::Read(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<Exceeded>())
            {
                Some(&Exceeded(Limit { max, reason })) => Self::TooLarge { max, reason },
                None => Self::Read(error),
            },
            other => Self::Tar(other),
        }
    }
}

/// How far a stream may go, and why.
#[derive(Debug, Clone, Copy)]
struct Limit {
    max: u64,
    reason: &'static str,
}

/// The limit was passed.
#[derive(Debug, Error)]
#[error("more than {} bytes, {}", .0.max, .0.reason)]
struct Exceeded(Limit);

/// Fails once more than the limit has been read.
struct Limited<R> {
    inner: R,
    limit: Limit,
    count: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        if self.count > self.limit.max { Err(io::Error::other(Exceeded(self.limit))) } else { Ok(count) }
    }
}

/// What the layers of one package may still unpack to.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: u64,
    files: usize,
}

impl Budget {
    pub(crate) const fn of_package() -> Self {
        Self { bytes: UNPACKED_MAX, files: FILES_MAX }
    }

    /// The narrowest limit for a layer of `packed` bytes.
    fn limit(&self, packed: u64) -> Limit {
        let by_ratio = packed.saturating_mul(RATIO_MAX).max(RATIO_FREE);
        [
            Limit { max: by_ratio, reason: "which is too much for its packed size" },
            Limit { max: LAYER_UNPACKED_MAX, reason: "the bound of one layer" },
            Limit { max: self.bytes, reason: "what is left of the bound of one package" },
        ]
        .into_iter()
        .min_by_key(|limit| limit.max)
        .unwrap_or(Limit { max: 0, reason: "" })
    }
}

type LayerStream = BufReader<Hashing<Limited<Box<dyn Read>>>>;

/// Opens the tar inside a layer's blob.
fn open(blob: File, layer: &Descriptor, limit: Limit) -> Result<TarReader<LayerStream>, LayerError> {
    let packed = BufReader::with_capacity(BUFFER, blob);
    let plain: Box<dyn Read> = match layer.media_type.as_str() {
        LAYER_GZIP_TYPE => Box::new(MultiGzDecoder::new(packed)),
        LAYER_ZSTD_TYPE => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        other => return Err(LayerError::MediaType(other.to_owned())),
    };
    let limited = Limited { inner: plain, limit, count: 0 };
    Ok(TarReader::new(BufReader::with_capacity(BUFFER, Hashing::new(limited))))
}

/// What a layer takes away from the layers below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whiteout {
    /// This path.
    Path(RelativePath),
    /// Everything in this directory; `None` is the root.
    Contents(Option<RelativePath>),
}

/// The whiteout that an entry stands for, if it is one.
pub(crate) fn whiteout(entry: &Entry) -> Result<Option<Whiteout>, LayerError> {
    let path = entry.path.as_str();
    let (above, name) = path.rsplit_once('/').map_or((None, path), |(above, name)| (Some(above), name));
    let bad = || LayerError::Whiteout(path.to_owned());
    let Some(hidden) = name.strip_prefix(WHITEOUT) else {
        let below_whiteout = path.split('/').any(|segment| segment.starts_with(WHITEOUT));
        return if below_whiteout { Err(bad()) } else { Ok(None) };
    };
    if entry.kind != Kind::File || entry.size > 0 {
        return Err(bad());
    }
    let parse = |text: &str| text.parse::<RelativePath>().map_err(|_| bad());
    if name == OPAQUE {
        return Ok(Some(Whiteout::Contents(above.map(parse).transpose()?)));
    }
    if hidden.starts_with(WHITEOUT) {
        return Err(bad());
    }
    let hidden = above.map_or_else(|| hidden.to_owned(), |above| format!("{above}/{hidden}"));
    Ok(Some(Whiteout::Path(parse(&hidden)?)))
}

/// Reads a whole layer without keeping it: every entry is acceptable, the sizes are within bounds
/// and the contents have the declared digest. Returns its whiteouts, and takes what it unpacks to
/// from the budget.
pub(crate) fn examine(
    blob: File,
    layer: &Descriptor,
    diff_id: Digest,
    budget: &mut Budget,
) -> Result<Vec<Whiteout>, LayerError> {
    let limit = budget.limit(layer.size);
    let mut tar = open(blob, layer, limit)?;
    let mut whiteouts = Vec::new();
    let mut contents = 0_u64;
    while let Some(entry) = tar.next_entry()? {
        budget.files = budget.files.checked_sub(1).ok_or(LayerError::TooManyFiles)?;
        // A header that promises too much is refused before its contents are unpacked.
        contents = contents.saturating_add(entry.size);
        if contents > limit.max {
            return Err(LayerError::TooLarge { max: limit.max, reason: limit.reason });
        }
        whiteouts.extend(whiteout(&entry)?);
    }
    let (_, found, count) = tar.into_inner().into_inner().finish();
    if found != diff_id {
        return Err(LayerError::DiffId { expected: diff_id, found });
    }
    budget.bytes = budget.bytes.saturating_sub(count);
    Ok(whiteouts)
}

/// The entries of a layer that [`examine`] has accepted.
pub(crate) fn entries(blob: File, layer: &Descriptor) -> Result<TarReader<impl Read>, LayerError> {
    let limit = Limit { max: LAYER_UNPACKED_MAX, reason: "the bound of one layer" };
    open(blob, layer, limit)
}
