//! The tar inside a layer's blob, decompressed and hashed on threads of their own.
//!
//! One thread decompresses into chunks; each goes to a thread that hashes it and to whoever reads
//! the [`Stream`]. At most [`QUEUE`] chunks wait for each of the two, so the memory does not depend
//! on the layer. Chunks are used again: a new one costs as much as filling it.

use super::LayerError;
use crate::bounds::{
    FILES_MAX, LAYER_UNPACKED_MAX, RATIO_FREE, RATIO_MAX, UNPACKED_MAX, ZSTD_WINDOW_LOG_MAX,
};
use crate::hashing::Hashing;
use crate::oci::{Descriptor, LAYER_GZIP_TYPE, LAYER_ZSTD_TYPE};
use aos_core::id::Digest;
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::JoinHandle;
use thiserror::Error;

/// Read at once from the blob.
const BUFFER: usize = 128 << 10;
/// Bytes of a chunk: what fits into a core's cache together with the decoder's window, and large
/// enough that handing it on costs nothing.
const CHUNK: usize = 128 << 10;
/// Chunks that wait for one reader: 2 MiB, some milliseconds of decompressing.
const QUEUE: usize = 16;

/// How far a stream may go, and why.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) max: u64,
    pub(super) reason: &'static str,
}

/// The limit was passed.
#[derive(Debug, Error)]
#[error("more than {} bytes, {}", .0.max, .0.reason)]
pub(super) struct Exceeded(pub(super) Limit);

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

    /// Takes one entry, or a directory that is made for one.
    pub(crate) fn take_file(&mut self) -> Result<(), LayerError> {
        self.files = self.files.checked_sub(1).ok_or(LayerError::TooManyFiles)?;
        Ok(())
    }

    /// Takes the bytes of a layer, which has kept to [`Self::limit`].
    pub(super) const fn take_bytes(&mut self, count: u64) {
        self.bytes = self.bytes.saturating_sub(count);
    }

    /// Entries and bytes that were taken.
    pub(crate) const fn taken(&self) -> (u64, u64) {
        ((FILES_MAX - self.files) as u64, UNPACKED_MAX - self.bytes)
    }

    /// The narrowest limit for a layer of `packed` bytes.
    pub(super) fn limit(&self, packed: u64) -> Limit {
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

/// Opens what decompresses a blob. Layers of foreign images have more types than those of packages.
fn decoder(blob: BufReader<File>, media_type: &str) -> Result<Box<dyn Read + Send>, LayerError> {
    Ok(match media_type {
        LAYER_GZIP_TYPE | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
            Box::new(MultiGzDecoder::new(blob))
        }
        LAYER_ZSTD_TYPE | "application/vnd.docker.image.rootfs.diff.tar.zstd" => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(blob)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
            Box::new(blob)
        }
        other => return Err(LayerError::MediaType(other.chars().take(128).collect())),
    })
}

type Chunk = Arc<Vec<u8>>;

/// The decompressed bytes of a layer. Reading fails when the limit is passed.
pub(crate) struct Stream {
    /// Closed at the end.
    chunks: Option<Receiver<io::Result<Chunk>>>,
    /// The chunk that is read, and how much of it has been.
    current: Option<Chunk>,
    position: usize,
    /// Takes chunks that nobody reads any more.
    spare: Sender<Vec<u8>>,
    decoder: Option<JoinHandle<()>>,
    hasher: Option<JoinHandle<(Digest, u64)>>,
}

impl Stream {
    /// Starts to decompress a blob, which must be at its start.
    pub(super) fn open(blob: File, layer: &Descriptor, limit: Limit) -> Result<Self, LayerError> {
        let found = blob.metadata()?.len();
        if found != layer.size {
            return Err(LayerError::Size { expected: layer.size, found });
        }
        let input = decoder(BufReader::with_capacity(BUFFER, blob), &layer.media_type)?;
        let (to_reader, chunks) = mpsc::sync_channel(QUEUE);
        let (to_hasher, to_hash) = mpsc::sync_channel::<Chunk>(QUEUE);
        let (spare, used) = mpsc::channel();
        let mut stream = Self {
            chunks: Some(chunks),
            current: None,
            position: 0,
            spare: spare.clone(),
            decoder: None,
            hasher: None,
        };
        let thread = std::thread::Builder::new().name("aos-hash".to_owned());
        stream.hasher = Some(thread.spawn(move || hash_all(&to_hash, &spare))?);
        let thread = std::thread::Builder::new().name("aos-unpack".to_owned());
        let decode = move || decode_all(input, limit, &to_reader, &to_hasher, &used);
        stream.decoder = Some(thread.spawn(decode)?);
        Ok(stream)
    }

    /// The digest and length of the stream, once it has been read to its end.
    pub(super) fn finish(&mut self) -> io::Result<(Digest, u64)> {
        let gone = || io::Error::other("a decompressing thread has ended");
        self.chunks = None;
        self.decoder.take().ok_or_else(gone)?.join().map_err(|_| gone())?;
        self.hasher.take().ok_or_else(gone)?.join().map_err(|_| gone())
    }

    /// Gives the current chunk back and takes the next one; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        self.position = 0;
        if let Some(chunk) = self.current.take() {
            give_back(chunk, &self.spare);
        }
        let Some(next) = self.chunks.as_ref().and_then(|chunks| chunks.recv().ok()) else {
            return Ok(false);
        };
        self.current = Some(next?);
        Ok(true)
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let length = self.current.as_ref().map_or(0, |chunk| chunk.len());
        if self.position >= length && !self.advance()? {
            return Ok(&[]);
        }
        let chunk = self.current.as_ref().map(|chunk| chunk.as_slice()).unwrap_or_default();
        Ok(chunk.get(self.position..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The decoder ends when nobody takes its chunks, and the hasher after it. A panic of
        // theirs has been reported, and whoever needed their result has missed it.
        self.chunks = None;
        self.decoder.take().into_iter().for_each(|thread| drop(thread.join()));
        self.hasher.take().into_iter().for_each(|thread| drop(thread.join()));
    }
}

/// Makes a chunk's memory available again if this was its last reader.
fn give_back(chunk: Chunk, spare: &Sender<Vec<u8>>) {
    if let Some(bytes) = Arc::into_inner(chunk) {
        // Nobody needs it any more when the decoder has ended.
        drop(spare.send(bytes));
    }
}

fn hash_all(chunks: &Receiver<Chunk>, spare: &Sender<Vec<u8>>) -> (Digest, u64) {
    let mut hash = Hashing::new(io::sink());
    for chunk in chunks {
        hash.note(&chunk);
        give_back(chunk, spare);
    }
    let (_, digest, count) = hash.finish();
    (digest, count)
}

/// Decompresses all, until the end, an error, or the reader's.
fn decode_all(
    mut input: Box<dyn Read + Send>,
    limit: Limit,
    to_reader: &SyncSender<io::Result<Chunk>>,
    to_hasher: &SyncSender<Chunk>,
    used: &Receiver<Vec<u8>>,
) {
    let mut total = 0;
    loop {
        let mut bytes = used.try_recv().unwrap_or_default();
        let result = match fill(&mut input, &mut bytes) {
            Ok(()) if bytes.is_empty() => return,
            Ok(()) => {
                total += bytes.len() as u64;
                if total > limit.max { Err(io::Error::other(Exceeded(limit))) } else { Ok(Arc::new(bytes)) }
            }
            Err(error) => Err(error),
        };
        let ends = match &result {
            Ok(chunk) => to_hasher.send(Arc::clone(chunk)).is_err(),
            Err(_) => true,
        };
        if to_reader.send(result).is_err() || ends {
            return;
        }
    }
}

/// Fills a chunk, or as much of it as there is.
fn fill(input: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<()> {
    bytes.resize(CHUNK, 0);
    let mut filled = 0;
    while let Some(free) = bytes.get_mut(filled..).filter(|free| !free.is_empty()) {
        match input.read(free) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(())
}
