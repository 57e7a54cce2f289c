//! Writes the package's files as one layer, the same bytes from the same files.

use super::context::Context;
use super::tree::{Item, Tree};
use super::{BuildError, BuildOptions};
use crate::hashing::Hashing;
use crate::oci::{Descriptor, LAYER_GZIP_TYPE};
use aos_core::id::Digest;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use tar::{EntryType, Header};

/// The level that gzip(1) uses, named so that a library's default cannot change our bytes.
const LEVEL: u32 = 6;
/// "Unknown" in RFC 1952.
const GZIP_NO_SYSTEM: u8 = 255;

/// A packed layer.
pub(super) struct Layer {
    /// The compressed layer.
    pub(super) descriptor: Descriptor,
    /// The digest of the tar inside.
    pub(super) diff_id: Digest,
    /// The blob, at its start.
    pub(super) file: File,
}

type Output = Hashing<GzEncoder<Hashing<BufWriter<File>>>>;

/// Packs all files.
pub(super) fn layer(context: &Context, tree: &Tree, options: &BuildOptions) -> Result<Layer, BuildError> {
    let scratch = |source| BuildError::Scratch { directory: options.scratch.clone(), source };
    let file = tempfile::tempfile_in(&options.scratch).map_err(scratch)?;
    let packed = Hashing::new(BufWriter::new(file));
    let gzip =
        GzBuilder::new().mtime(0).operating_system(GZIP_NO_SYSTEM).write(packed, Compression::new(LEVEL));
    let mut tar = tar::Builder::new(Hashing::new(gzip));
    for (path, item) in tree.iter() {
        append(context, &mut tar, path, item, options)?;
    }
    finish(tar).map_err(scratch)
}

fn finish(tar: tar::Builder<Output>) -> io::Result<Layer> {
    let (gzip, diff_id, _) = tar.into_inner()?.finish();
    let (mut buffered, digest, size) = gzip.finish()?.finish();
    buffered.flush()?;
    let mut file = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(Layer { descriptor: Descriptor::new(LAYER_GZIP_TYPE, digest, size), diff_id, file })
}

fn append(
    context: &Context,
    tar: &mut tar::Builder<Output>,
    path: &str,
    item: &Item,
    options: &BuildOptions,
) -> Result<(), BuildError> {
    let scratch = |source| BuildError::Scratch { directory: options.scratch.clone(), source };
    let time = options.source_date_epoch;
    match item {
        Item::Directory => {
            let mut header = header(EntryType::Directory, 0o755, time);
            tar.append_data(&mut header, format!("{path}/"), io::empty()).map_err(scratch)
        }
        Item::Symlink(target) => {
            let mut header = header(EntryType::Symlink, 0o777, time);
            tar.append_link(&mut header, path, target).map_err(scratch)
        }
        Item::File { from, size, executable } => {
            let (file, now) = context.open_file(from.as_str())?;
            let changed = || BuildError::Changed(from.as_str().to_owned());
            if now != *size {
                return Err(changed());
            }
            let mut header = header(EntryType::Regular, if *executable { 0o755 } else { 0o644 }, time);
            header.set_size(*size);
            let mut contents = Exact { file, left: *size };
            match tar.append_data(&mut header, path, &mut contents) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(changed()),
                other => other.map_err(scratch),
            }
        }
    }
}

/// A header without owner, with the package's time.
fn header(kind: EntryType, mode: u32, time: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(time);
    header.set_size(0);
    header
}

/// A file that must have exactly the bytes that its header promises.
struct Exact {
    file: File,
    left: u64,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = Read::by_ref(&mut self.file).take(self.left).read(buffer)?;
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than before"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}
