//! Layers: the compressed tars that a package's files are in.
//!
//! - [`write`] makes them, the same bytes from the same entries on every machine.
//! - [`read`] lists what is in one.
//! - [`crate::unpack`] puts them on disk.
//!
//! A layer that is read is untrusted. It is read once, from its start to its end, in bounded
//! memory: whoever acts on its entries does so before its digest is known, and must be able to
//! undo it all. Every bound is checked as soon as it can be.

use crate::bounds::FILES_MAX;
use crate::oci::Descriptor;
use crate::tarball::{Entry, Kind, TarError, TarReader};
use aos_core::id::Digest;
use aos_core::path::RelativePath;
use std::fs::File;
use std::io;
use thiserror::Error;

mod deflate;
mod pack;
pub mod read;
mod stream;
pub mod write;

use stream::{Exceeded, Limit, Stream};

pub(crate) use stream::Budget;

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
    /// The blob is not the described one.
    #[error("the layer has {found} bytes, its descriptor says {expected}")]
    Size {
        /// What the descriptor says.
        expected: u64,
        /// What the blob has.
        found: u64,
    },
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

/// What a layer takes away from the layers below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whiteout {
    /// This path.
    Path(RelativePath),
    /// Everything in this directory; `None` is the root.
    Contents(Option<RelativePath>),
}

/// The whiteout that an entry stands for, if it is one.
fn whiteout(entry: &Entry) -> Result<Option<Whiteout>, LayerError> {
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

/// The entries of a layer, within the bounds, one after the other.
pub(crate) struct Entries {
    tar: TarReader<Stream>,
    limit: Limit,
    /// Bytes that the headers have promised.
    promised: u64,
    diff_id: Digest,
}

impl Entries {
    /// Starts to read a blob from its start, which the descriptor describes.
    pub(crate) fn open(
        blob: File,
        layer: &Descriptor,
        diff_id: Digest,
        budget: &Budget,
    ) -> Result<Self, LayerError> {
        let limit = budget.limit(layer.size);
        let tar = TarReader::new(Stream::open(blob, layer, limit)?);
        Ok(Self { tar, limit, promised: 0, diff_id })
    }

    /// The next entry, and what it hides if it is a whiteout; it is taken from the budget. `None`
    /// comes when the layer has ended and its digest is the declared one.
    pub(crate) fn next(
        &mut self,
        budget: &mut Budget,
    ) -> Result<Option<(Entry, Option<Whiteout>)>, LayerError> {
        let Some(entry) = self.tar.next_entry()? else {
            let (found, count) = self.tar.input().finish()?;
            if found != self.diff_id {
                return Err(LayerError::DiffId { expected: self.diff_id, found });
            }
            budget.take_bytes(count);
            return Ok(None);
        };
        budget.take_file()?;
        // A header that promises too much is refused before its contents are unpacked.
        self.promised = self.promised.saturating_add(entry.size);
        if self.promised > self.limit.max {
            return Err(LayerError::TooLarge { max: self.limit.max, reason: self.limit.reason });
        }
        let whiteout = whiteout(&entry)?;
        Ok(Some((entry, whiteout)))
    }

    /// The contents of the last entry.
    pub(crate) fn contents(&mut self) -> &mut TarReader<Stream> {
        &mut self.tar
    }
}
