//! Writes the layer of a step.

use crate::cache::Layer;
use crate::context::{Context, FileDigests, Found, What, is_changed};
use crate::error::BuildError;
use crate::options::Options;
use crate::run::Changes;
use crate::spool::Spool;
use crate::tree::{Entry, Item, Listing, Node};
use crate::trees::Stored;
use aos_core::id::Digest;
use aos_core::path::RelativePath;
use aos_package::layer::write::{Header, Kind, LayerWriter, WriteError};
use aos_package::repository::Lease;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// Permission bits that a layer may have; directories may have the sticky bit as well.
const MODE: u32 = 0o777;
const STICKY: u32 = 0o1000;
/// Bytes between two reports of progress.
const REPORT: u64 = 4 << 20;

/// Where a file's contents are.
#[derive(Debug, Clone)]
pub(crate) enum Contents {
    /// Nowhere: it is no file.
    None,
    /// In memory, hashed.
    Memory(Arc<[u8]>),
    /// In the directory that is built: the number of the file among those that were listed.
    Context(usize),
    /// In the changes of a step that ran; not hashed yet.
    Changed(Box<str>),
    /// In an unpacked tree, by the digest in the entry.
    Stored,
    /// In a spool, from this offset on.
    Spooled(u64),
}

/// One item of a layer that is to be written.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) path: Box<str>,
    pub(crate) item: Item,
    pub(crate) contents: Contents,
    /// Seconds since 1970; `None` is the package's time.
    pub(crate) mtime: Option<u64>,
}

/// What contents are read from.
#[derive(Default)]
pub(crate) struct Sources<'a> {
    pub(crate) context: Option<(&'a Context, &'a FileDigests)>,
    /// The files of the context that were listed.
    pub(crate) files: &'a [Found],
    pub(crate) changes: Option<&'a Changes>,
    pub(crate) stored: Option<&'a Stored>,
    pub(crate) spool: Option<&'a Spool>,
}

/// A layer in the store and what it lists.
#[derive(Debug)]
pub(crate) struct WrittenLayer {
    pub(crate) layer: Layer,
    pub(crate) listing: Listing,
}

/// Bytes of the files of a layer.
pub(crate) fn bytes_of<'a>(items: impl IntoIterator<Item = &'a Item>) -> u64 {
    items.into_iter().fold(0, |sum, item| match item {
        Item::Entry(Entry { node: Node::File { size, .. }, .. }) => sum.saturating_add(*size),
        _ => sum,
    })
}

/// Sorts items as a layer has them: by path, and what hides a directory's contents right after the
/// directory.
pub(crate) fn sort(plan: &mut [Planned]) {
    plan.sort_by(|a, b| (&a.path, a.item == Item::Opaque).cmp(&(&b.path, b.item == Item::Opaque)));
}

/// Writes a sorted layer into the store. `progress` is told of bytes that are done.
pub(crate) fn write(
    plan: Vec<Planned>,
    sources: &Sources<'_>,
    options: &Options,
    lease: &Lease,
    progress: &dyn Fn(u64),
) -> Result<WrittenLayer, BuildError> {
    let output = lease.writer(None)?;
    let mut writer = LayerWriter::with_threads(output, options.compression, options.threads)
        .map_err(|source| BuildError::Layer(WriteError::Output(source)))?;
    let mut listing = Listing::with_capacity(plan.len());
    let (mut done, mut reported) = (0_u64, 0);
    for planned in plan {
        if options.cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let item = append(&mut writer, &planned, sources, options)?;
        done = done.saturating_add(bytes_of([&item]));
        if done - reported >= REPORT {
            progress(done);
            reported = done;
        }
        listing.push((planned.path, item));
    }
    let written = writer.finish().map_err(BuildError::Layer)?;
    let blob = written.output.commit(&written.descriptor.media_type)?;
    progress(done);
    Ok(WrittenLayer { layer: Layer { blob, diff_id: written.diff_id }, listing })
}

fn append<W: io::Write>(
    writer: &mut LayerWriter<W>,
    planned: &Planned,
    sources: &Sources<'_>,
    options: &Options,
) -> Result<Item, BuildError> {
    let unfit = |reason: String| BuildError::Unfit { path: planned.path.to_string(), reason };
    let path: RelativePath = planned.path.parse().map_err(|error| unfit(format!("{error}")))?;
    let target: RelativePath;
    let (kind, mode, uid, gid) = match &planned.item {
        Item::Entry(Entry { node, mode, uid, gid }) => match node {
            Node::Directory => (Kind::Directory, mode & (MODE | STICKY), *uid, *gid),
            Node::File { size, .. } => (Kind::File { size: *size }, mode & MODE, *uid, *gid),
            Node::Symlink(target) => (Kind::Symlink(target), MODE, *uid, *gid),
        },
        Item::HardLink(to) => {
            target = to.parse().map_err(|error| unfit(format!("{error}")))?;
            (Kind::HardLink(&target), 0o644, 0, 0)
        }
        Item::Whiteout => (Kind::Whiteout, 0o644, 0, 0),
        Item::Opaque => (Kind::Opaque, 0o644, 0, 0),
    };
    let mtime = planned.mtime.unwrap_or(options.source_date_epoch);
    let header = Header { path: &path, kind, mode, uid, gid, mtime };
    let digest = match &planned.contents {
        Contents::None => writer.append(&header, io::empty()).map(|()| None)?,
        Contents::Memory(bytes) => writer.append(&header, &**bytes).map(|()| None)?,
        Contents::Context(number) => from_context(writer, &header, sources, *number)?,
        Contents::Changed(from) => {
            let changes = sources.changes.ok_or(BuildError::Internal("no changes to read from"))?;
            Some(hashed(writer, &header, changes.open(Path::new(&**from))?)?)
        }
        Contents::Stored => {
            let stored = sources.stored.ok_or(BuildError::Internal("no tree to read from"))?;
            let Item::Entry(Entry { node: Node::File { digest, .. }, .. }) = &planned.item else {
                return Err(BuildError::Internal("only files have contents"));
            };
            Some(hashed(writer, &header, stored.open(digest)?)?)
        }
        Contents::Spooled(offset) => {
            let spool = sources.spool.ok_or(BuildError::Internal("no spool to read from"))?;
            let size = bytes_of([&planned.item]);
            Some(hashed(writer, &header, spool.open(*offset, size))?)
        }
    };
    settle(planned, digest, sources)
}

/// Reads a file of the context, which must be what it was when it was listed and hashed. It is hashed
/// again only when a change in between might not show in its stamp.
fn from_context<W: io::Write>(
    writer: &mut LayerWriter<W>,
    header: &Header<'_>,
    sources: &Sources<'_>,
    number: usize,
) -> Result<Option<Digest>, BuildError> {
    let (Some((context, digests)), Some(Found { path, what: What::File(stamp) })) =
        (sources.context, sources.files.get(number))
    else {
        return Err(BuildError::Internal("no file to read from"));
    };
    let changed = || BuildError::Changed(path.to_string());
    let (file, now) = context.open_file(path)?;
    if now != *stamp {
        return Err(changed());
    }
    let digest = if digests.is_old(stamp) {
        writer.append(header, &file).map(|()| None).map_err(BuildError::Layer)
    } else {
        hashed(writer, header, &file).map(Some)
    };
    let digest = digest.map_err(|error| match error {
        BuildError::Layer(WriteError::Changed { .. }) => changed(),
        error => error,
    })?;
    if is_changed(&file, stamp) { Err(changed()) } else { Ok(digest) }
}

fn hashed<W: io::Write>(
    writer: &mut LayerWriter<W>,
    header: &Header<'_>,
    contents: impl Read,
) -> Result<Digest, BuildError> {
    let mut contents = Hashing { inner: contents, hash: Sha256::new() };
    writer.append(header, &mut contents)?;
    Ok(Digest::from_bytes(contents.hash.finalize().into()))
}

/// The item with the digest that was read. Another one than was planned means a change in between.
fn settle(planned: &Planned, found: Option<Digest>, sources: &Sources<'_>) -> Result<Item, BuildError> {
    let mut item = planned.item.clone();
    let (Item::Entry(Entry { node: Node::File { digest, .. }, .. }), Some(found)) = (&mut item, found) else {
        return Ok(item);
    };
    match &planned.contents {
        Contents::Changed(_) => *digest = found,
        Contents::Context(number) if *digest != found => {
            let from = sources.files.get(*number).map_or(&planned.path, |found| &found.path);
            return Err(BuildError::Changed(from.to_string()));
        }
        _ if *digest != found => return Err(BuildError::Changed(planned.path.to_string())),
        _ => {}
    }
    Ok(item)
}

struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}
