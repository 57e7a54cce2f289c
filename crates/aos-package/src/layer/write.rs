//! Writes layers: the same entries give the same bytes, on every machine and with any number of
//! cores.
//!
//! The tar is GNU's: ustar headers, `L` and `K` records for names beyond 100 bytes, base-256 for
//! numbers beyond their octal fields. Nothing that the caller does not say gets into it: no names
//! of owners, no access times.
//!
//! Entries come in the order of their paths' bytes, each path once, a directory's [`Kind::Opaque`]
//! right after the directory: then two writers cannot produce different layers of the same files.
//!
//! The caller's thread makes the tar; compression and the hash of the tar run on other threads
//! (see [`super::pack`]).

use super::pack::Packer;
use super::{OPAQUE, WHITEOUT};
use crate::bounds::{DEPTH_MAX, FILES_MAX, LAYER_UNPACKED_MAX, LINK_MAX, PATH_MAX, RATIO_FREE, RATIO_MAX};
use crate::oci::Descriptor;
use aos_core::id::Digest;
use aos_core::path::{RelativePath, SEGMENT_MAX_BYTES};
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use tar::EntryType;
use thiserror::Error;

pub use super::pack::Compression;

/// The unit of a tar.
const BLOCK: usize = 512;
/// Bytes of a name in a header without an extension.
const NAME_MAX: usize = 100;
/// What GNU tar calls the record of a long name.
const LONG_NAME: &str = "././@LongLink";
/// More bytes than a tar has around the contents of one file, its end included.
const FRAME_MAX: u64 = 16 << 10;
/// Permission bits that an entry may have; special bits have no use in a package.
const MODE_MASK: u32 = 0o777;

/// What an entry of a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A file of exactly this many bytes.
    File {
        /// Bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link and its target.
    Symlink(&'a str),
    /// A hard link to an earlier file of this layer.
    HardLink(&'a RelativePath),
    /// What the layers below have at this path is hidden.
    Whiteout,
    /// What the layers below have in this directory is hidden.
    Opaque,
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Its path below the root; of a whiteout, the path that is hidden.
    pub path: &'a RelativePath,
    /// What it is.
    pub kind: Kind<'a>,
    /// Permission bits, at most 0o777, and 0o1000 of directories.
    pub mode: u32,
    /// The number of its owner.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u64,
}

/// Why a layer cannot be written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The layer's bytes cannot be written.
    #[error("cannot write the layer")]
    Output(#[from] io::Error),
    /// The contents of an entry cannot be read.
    #[error("cannot read the contents of `{path}`")]
    Contents {
        /// The entry.
        path: String,
        /// What went wrong.
        source: io::Error,
    },
    /// A file has more or fewer bytes than its header promises.
    #[error("`{path}` has not the {size} bytes that it had: it changed while it was read")]
    Changed {
        /// The entry.
        path: String,
        /// Bytes promised.
        size: u64,
    },
    /// Entries are not in order, or one comes twice.
    #[error("`{path}` comes after `{last}`: entries of a layer must be sorted and unique")]
    Order {
        /// The entry.
        path: String,
        /// The entry before it.
        last: String,
    },
    /// An entry is not acceptable in a layer.
    #[error("`{path}` cannot be an entry of a layer: {reason}")]
    Entry {
        /// The entry.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// An entry failed before.
    #[error("the layer is spoilt: an entry of it failed")]
    Spoilt,
    /// There are too many entries.
    #[error("the layer has more than {FILES_MAX} entries")]
    TooManyFiles,
    /// The layer is what readers refuse as a bomb.
    #[error(
        "the layer's {unpacked} bytes are {size} when they are packed: with a ratio over {RATIO_MAX} nobody would unpack it"
    )]
    Ratio {
        /// Bytes of the tar.
        unpacked: u64,
        /// Bytes of the blob.
        size: u64,
    },
    /// The layer exceeds its bound.
    #[error("the layer has more than {LAYER_UNPACKED_MAX} bytes")]
    TooLarge,
}

/// A layer that has been written.
#[derive(Debug)]
pub struct Written<W> {
    /// Where it was written to; flushed.
    pub output: W,
    /// Its media type, digest and size.
    pub descriptor: Descriptor,
    /// The digest of the tar inside.
    pub diff_id: Digest,
    /// Bytes of the tar.
    pub unpacked: u64,
    /// Its entries.
    pub entries: u64,
}

/// Writes one layer. Dropping it before [`Self::finish`] leaves an unusable stream behind.
pub struct LayerWriter<W: Write> {
    packer: Packer<W>,
    /// The path of the last entry, and whether that was its opaque mark.
    last: Option<(String, bool)>,
    entries: u64,
    /// An entry failed, so that what follows it cannot be a layer.
    spoilt: bool,
}

impl<W: Write> LayerWriter<W> {
    /// Writes to `output` with a compressing thread for each core. The bytes do not depend on
    /// their number.
    pub fn new(output: W, compression: Compression) -> io::Result<Self> {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self::with_threads(output, compression, cores)
    }

    /// Writes to `output` with this many compressing threads.
    pub fn with_threads(output: W, compression: Compression, threads: NonZeroUsize) -> io::Result<Self> {
        let packer = Packer::new(output, compression, threads)?;
        Ok(Self { packer, last: None, entries: 0, spoilt: false })
    }

    /// Adds an entry. `contents` is read for files only; it must have exactly the promised bytes.
    /// After an error the layer cannot be finished.
    pub fn append(&mut self, header: &Header<'_>, contents: impl Read) -> Result<(), WriteError> {
        if std::mem::replace(&mut self.spoilt, true) {
            return Err(WriteError::Spoilt);
        }
        let name = name(header);
        check(header, &name)?;
        self.check_order(header)?;
        let size = if let Kind::File { size } = header.kind { size } else { 0 };
        self.take(size)?;
        self.header(header, &name, size)?;
        self.contents(header, contents, size)?;
        self.entries += 1;
        self.spoilt = false;
        Ok(())
    }

    /// Ends the layer: everything is compressed, written and flushed.
    pub fn finish(mut self) -> Result<Written<W>, WriteError> {
        if self.spoilt {
            return Err(WriteError::Spoilt);
        }
        self.packer.write(&[0; 2 * BLOCK])?;
        let packed = self.packer.finish()?;
        let (unpacked, size) = (packed.unpacked, packed.descriptor.size);
        if unpacked > RATIO_FREE.max(size.saturating_mul(RATIO_MAX)) {
            return Err(WriteError::Ratio { unpacked, size });
        }
        Ok(Written {
            output: packed.output,
            descriptor: packed.descriptor,
            diff_id: packed.diff_id,
            unpacked: packed.unpacked,
            entries: self.entries,
        })
    }
}

impl<W: Write> LayerWriter<W> {
    fn take(&mut self, size: u64) -> Result<(), WriteError> {
        if self.entries >= FILES_MAX as u64 {
            return Err(WriteError::TooManyFiles);
        }
        let end = self.packer.count().saturating_add(size).saturating_add(FRAME_MAX);
        if end > LAYER_UNPACKED_MAX { Err(WriteError::TooLarge) } else { Ok(()) }
    }

    fn check_order(&mut self, header: &Header<'_>) -> Result<(), WriteError> {
        let now = (header.path.as_str(), header.kind == Kind::Opaque);
        if let Some((path, opaque)) = &mut self.last {
            if (path.as_str(), *opaque) >= now {
                let (path, last) = (now.0.to_owned(), path.clone());
                return Err(WriteError::Order { path, last });
            }
            path.clear();
            path.push_str(now.0);
            *opaque = now.1;
        } else {
            self.last = Some((now.0.to_owned(), now.1));
        }
        Ok(())
    }

    fn header(&mut self, header: &Header<'_>, name: &str, size: u64) -> Result<(), WriteError> {
        let (kind, link) = match header.kind {
            Kind::File { .. } | Kind::Whiteout | Kind::Opaque => (EntryType::Regular, ""),
            Kind::Directory => (EntryType::Directory, ""),
            Kind::Symlink(target) => (EntryType::Symlink, target),
            Kind::HardLink(target) => (EntryType::Link, target.as_str()),
        };
        let mut block = tar::Header::new_gnu();
        block.set_entry_type(kind);
        block.set_mode(header.mode);
        block.set_uid(header.uid.into());
        block.set_gid(header.gid.into());
        block.set_mtime(header.mtime);
        block.set_size(size);
        self.text(EntryType::GNULongName, name, &mut block.as_old_mut().name)?;
        self.text(EntryType::GNULongLink, link, &mut block.as_old_mut().linkname)?;
        block.set_cksum();
        Ok(self.packer.write(block.as_bytes())?)
    }

    /// Puts a text into its field, after a record of the whole when it is too long for that.
    fn text(&mut self, record: EntryType, text: &str, field: &mut [u8; NAME_MAX]) -> io::Result<()> {
        if text.len() > NAME_MAX {
            let mut block = tar::Header::new_gnu();
            block.set_entry_type(record);
            block.set_mode(0o644);
            block.set_uid(0);
            block.set_gid(0);
            block.set_mtime(0);
            // GNU tar counts the NUL that ends the name.
            block.set_size(text.len() as u64 + 1);
            for (to, from) in block.as_old_mut().name.iter_mut().zip(LONG_NAME.bytes()) {
                *to = from;
            }
            block.set_cksum();
            self.packer.write(block.as_bytes())?;
            self.packer.write(text.as_bytes())?;
            self.pad(text.len() as u64 + 1, 1)?;
        }
        field.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
        Ok(())
    }

    /// Fills up a block after `size` bytes, `missing` of which are not written yet.
    fn pad(&mut self, size: u64, missing: usize) -> io::Result<()> {
        // Less than a block, so the conversion is exact.
        let padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK + missing;
        self.packer.write([0; BLOCK + 1].get(..padding).unwrap_or_default())
    }

    fn contents(
        &mut self,
        header: &Header<'_>,
        mut contents: impl Read,
        size: u64,
    ) -> Result<(), WriteError> {
        let mut left = size;
        while left > 0 {
            let read = |source| WriteError::Contents { path: header.path.to_string(), source };
            let count = self.packer.fill(&mut contents, left).map_err(read)?;
            let changed = || WriteError::Changed { path: header.path.to_string(), size };
            if count == 0 {
                return Err(changed());
            }
            left = left.checked_sub(count as u64).ok_or_else(changed)?;
            self.packer.settle()?;
        }
        Ok(self.pad(size, 0)?)
    }
}

/// The name of an entry in the tar.
fn name(header: &Header<'_>) -> String {
    let path = header.path.as_str();
    match header.kind {
        Kind::Directory => format!("{path}/"),
        Kind::Opaque => format!("{path}/{OPAQUE}"),
        Kind::Whiteout => match path.rsplit_once('/') {
            Some((above, name)) => format!("{above}/{WHITEOUT}{name}"),
            None => format!("{WHITEOUT}{path}"),
        },
        Kind::File { .. } | Kind::Symlink(_) | Kind::HardLink(_) => path.to_owned(),
    }
}

/// Refuses what a reader of layers would refuse or understand differently. `name` is the entry's
/// name in the tar, which is longer than the path of a whiteout.
fn check(header: &Header<'_>, name: &str) -> Result<(), WriteError> {
    let sticky = if header.kind == Kind::Directory { 0o1000 } else { 0 };
    let name = name.strip_suffix('/').unwrap_or(name);
    let reason = match header.kind {
        _ if name.len() > PATH_MAX => "its path is too long",
        _ if name.split('/').count() > DEPTH_MAX => "its path has too many segments",
        _ if name.split('/').any(|name| name.len() > SEGMENT_MAX_BYTES) => "its name is too long",
        _ if header.path.segments().any(|name| name.starts_with(WHITEOUT)) => {
            "names that start with `.wh.` mean deletion in layers"
        }
        _ if header.mode & !(MODE_MASK | sticky) != 0 => "its mode has special bits",
        Kind::Symlink(target) if target.is_empty() || target.contains('\0') => "its target is not a path",
        Kind::Symlink(target) if target.len() > LINK_MAX => "its target is too long",
        Kind::HardLink(target) if target >= header.path => "its target does not come before it",
        _ => return Ok(()),
    };
    Err(WriteError::Entry { path: header.path.to_string(), reason })
}
