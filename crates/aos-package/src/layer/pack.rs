//! Compresses a layer on several threads, the same bytes with any number of them.
//!
//! The stream is cut into blocks of a fixed size, which are compressed independently and written
//! in order. What a block becomes depends on its bytes and, for gzip, on the 32 KiB before it:
//!
//! - **gzip**: one member (RFC 1952). Each block is a piece of its deflate stream that starts from
//!   the 32 KiB before it as dictionary and ends at a byte boundary with a sync flush, as pigz
//!   does; the checksums of the blocks are combined. A block without redundancy is stored.
//! - **zstd**: one frame for each block, one after the other (RFC 8878 section 3.1).
//!
//! The thread that writes reads the input, and hashes and writes what is compressed; one thread
//! hashes the input; the others compress. At most [`IN_FLIGHT`] blocks for each of these are
//! between them: with [`THREADS_MAX`] and both copies of a block that is less than 40 MiB.

use super::deflate::{self, DICTIONARY};
use crate::hashing::Hashing;
use crate::oci::{Descriptor, LAYER_GZIP_TYPE, LAYER_ZSTD_TYPE};
use aos_core::id::Digest;
use flate2::Crc;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Bytes that are compressed at once with gzip: enough that the dictionary's cost is small, little
/// enough that small layers also use every core. It is part of the format: another value gives
/// other bytes.
const GZIP_BLOCK: usize = 256 << 10;
/// Bytes of a zstd frame: frames share no dictionary, so they are larger. Part of the format.
const ZSTD_BLOCK: usize = 1 << 20;
/// zstd's own default level. Part of the format.
const ZSTD_LEVEL: i32 = 3;
/// Blocks in flight for each thread: one that is compressed, one that waits for the thread.
const IN_FLIGHT: usize = 2;
/// More threads than this wait for the two hashes, which are sequential.
const THREADS_MAX: usize = 8;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// gzip, which every tool reads.
    #[default]
    Gzip,
    /// zstd: faster and smaller; Debian 13's umoci does not read it.
    Zstd,
}

impl Compression {
    /// The media type of a layer.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Gzip => LAYER_GZIP_TYPE,
            Self::Zstd => LAYER_ZSTD_TYPE,
        }
    }

    /// Bytes of a block, and of what a block needs of the one before it.
    const fn block(self) -> (usize, usize) {
        match self {
            Self::Gzip => (GZIP_BLOCK, DICTIONARY),
            Self::Zstd => (ZSTD_BLOCK, 0),
        }
    }
}

/// What a [`Packer`] has made.
pub(super) struct Packed<W> {
    pub(super) output: W,
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: Digest,
    pub(super) unpacked: u64,
}

/// A piece of the input, after the end of the piece before it.
struct Block {
    /// The dictionary, the block, and one byte more that [`Packer::fill`] needs.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Block {
    fn dictionary(&self) -> &[u8] {
        self.bytes.get(..self.start).unwrap_or_default()
    }

    const fn length(&self) -> usize {
        self.end - self.start
    }

    fn contents(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// An empty block behind the last `tail` bytes of this one.
    fn next(&self, size: usize, tail: usize) -> Self {
        let before = self.bytes.get(self.end.saturating_sub(tail)..self.end).unwrap_or_default();
        let mut bytes = Vec::with_capacity(before.len() + size + 1);
        bytes.extend_from_slice(before);
        bytes.resize(before.len() + size + 1, 0);
        Self { start: before.len(), end: before.len(), bytes }
    }
}

/// A block to be compressed, and where the result goes.
struct Job {
    block: Arc<Block>,
    reply: SyncSender<io::Result<Piece>>,
}

/// A compressed block.
struct Piece {
    bytes: Vec<u8>,
    /// The checksum of the block itself, if the format has one.
    crc: Option<Crc>,
}

/// Compresses and hashes a stream.
pub(super) struct Packer<W: Write> {
    output: Hashing<W>,
    compression: Compression,
    block: Block,
    crew: Crew,
    /// The results of blocks in flight, in order.
    pending: VecDeque<Receiver<io::Result<Piece>>>,
    /// The checksum of all that is written.
    crc: Crc,
    /// Bytes that were handed on.
    count: u64,
}

impl<W: Write> Packer<W> {
    pub(super) fn new(output: W, compression: Compression, threads: NonZeroUsize) -> io::Result<Self> {
        let mut output = Hashing::new(output);
        if compression == Compression::Gzip {
            output.write_all(&deflate::HEADER)?;
        }
        let block = Block { bytes: Vec::new(), start: 0, end: 0 }.next(compression.block().0, 0);
        let crew = Crew::start(compression, threads.get().min(THREADS_MAX))?;
        Ok(Self { output, compression, block, crew, pending: VecDeque::new(), crc: Crc::new(), count: 0 })
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.room()));
            let end = self.block.end + now.len();
            if let Some(to) = self.block.bytes.get_mut(self.block.end..end) {
                to.copy_from_slice(now);
            }
            self.block.end = end;
            self.settle()?;
            bytes = later;
        }
        Ok(())
    }

    /// Takes up to `left` bytes from `input`, or one more if it has them at once: then it is longer
    /// than it should be, and the stream is spoilt. Returns how many; [`Self::settle`] comes next.
    pub(super) fn fill(&mut self, input: &mut impl Read, left: u64) -> io::Result<usize> {
        let room = self.room();
        let want = usize::try_from(left).map_or(room, |left| if left > room { room } else { left + 1 });
        let free = self.block.bytes.get_mut(self.block.end..self.block.end + want).unwrap_or_default();
        let count = loop {
            match input.read(free) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.block.end += count;
        Ok(count)
    }

    /// Hands the block on when it is full.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        if self.room() == 0 { self.hand_on() } else { Ok(()) }
    }

    /// Bytes taken so far.
    pub(super) const fn count(&self) -> u64 {
        self.count + self.block.length() as u64
    }

    fn room(&self) -> usize {
        (self.block.start + self.compression.block().0).saturating_sub(self.block.end)
    }

    fn hand_on(&mut self) -> io::Result<()> {
        while self.pending.len() >= self.crew.in_flight() {
            self.collect()?;
        }
        self.count += self.block.length() as u64;
        let (size, tail) = self.compression.block();
        let next = self.block.next(size, tail);
        let block = Arc::new(std::mem::replace(&mut self.block, next));
        self.pending.push_back(self.crew.hand_on(block)?);
        Ok(())
    }

    /// Writes the oldest block.
    fn collect(&mut self) -> io::Result<()> {
        let Some(reply) = self.pending.pop_front() else { return Ok(()) };
        let piece = reply.recv().map_err(|_| gone())??;
        piece.crc.iter().for_each(|crc| self.crc.combine(crc));
        self.output.write_all(&piece.bytes)
    }

    pub(super) fn finish(mut self) -> io::Result<Packed<W>> {
        if self.block.length() > 0 {
            self.hand_on()?;
        }
        while !self.pending.is_empty() {
            self.collect()?;
        }
        if self.compression == Compression::Gzip {
            self.output.write_all(&deflate::trailer(&self.crc))?;
        }
        let (diff_id, unpacked) = self.crew.finish()?;
        let (mut output, digest, size) = self.output.finish();
        output.flush()?;
        let descriptor = Descriptor::new(self.compression.media_type(), digest, size);
        Ok(Packed { output, descriptor, diff_id, unpacked })
    }
}

/// The threads. They end when their queues are closed; dropping this waits for them.
struct Crew {
    jobs: Option<SyncSender<Job>>,
    compressors: Vec<JoinHandle<()>>,
    blocks: Option<SyncSender<Arc<Block>>>,
    hasher: Option<JoinHandle<(Digest, u64)>>,
}

impl Crew {
    fn start(compression: Compression, threads: usize) -> io::Result<Self> {
        let (jobs, queue) = mpsc::sync_channel(threads * IN_FLIGHT);
        let (blocks, to_hash) = mpsc::sync_channel(threads * IN_FLIGHT);
        let mut crew = Self { jobs: Some(jobs), compressors: Vec::new(), blocks: Some(blocks), hasher: None };
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            let thread = std::thread::Builder::new().name("aos-pack".to_owned());
            crew.compressors.push(thread.spawn(move || compress_all(compression, &queue))?);
        }
        let thread = std::thread::Builder::new().name("aos-hash".to_owned());
        crew.hasher = Some(thread.spawn(move || hash_all(&to_hash))?);
        Ok(crew)
    }

    fn in_flight(&self) -> usize {
        self.compressors.len() * IN_FLIGHT
    }

    fn hand_on(&self, block: Arc<Block>) -> io::Result<Receiver<io::Result<Piece>>> {
        let (reply, result) = mpsc::sync_channel(1);
        let (Some(jobs), Some(blocks)) = (&self.jobs, &self.blocks) else { return Err(gone()) };
        blocks.send(Arc::clone(&block)).map_err(|_| gone())?;
        jobs.send(Job { block, reply }).map_err(|_| gone())?;
        Ok(result)
    }

    /// The digest and length of all blocks.
    fn finish(&mut self) -> io::Result<(Digest, u64)> {
        self.blocks = None;
        self.hasher.take().ok_or_else(gone)?.join().map_err(|_| gone())
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        (self.jobs, self.blocks) = (None, None);
        // A thread that panicked has reported it, and its result was missed where it was needed.
        self.compressors.drain(..).for_each(|thread| drop(thread.join()));
        self.hasher.take().into_iter().for_each(|thread| drop(thread.join()));
    }
}

/// A thread is not there any more.
fn gone() -> io::Error {
    io::Error::other("a compressing thread has ended")
}

fn hash_all(blocks: &Receiver<Arc<Block>>) -> (Digest, u64) {
    let mut hash = Hashing::new(io::sink());
    for block in blocks {
        hash.note(block.contents());
    }
    let (_, digest, count) = hash.finish();
    (digest, count)
}

fn compress_all(compression: Compression, queue: &Mutex<Receiver<Job>>) {
    let mut deflate = deflate::Deflate::new();
    loop {
        // Only one thread waits for the queue, the others for the lock.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { block, reply }) = job else { return };
        let piece = match compression {
            Compression::Gzip => deflate.compress(block.dictionary(), block.contents()),
            // A new state for each frame, so that nothing before it can have an influence.
            Compression::Zstd => zstd::bulk::compress(block.contents(), ZSTD_LEVEL),
        };
        let crc = match compression {
            Compression::Gzip => Some(checksum(block.contents())),
            Compression::Zstd => None,
        };
        // Nobody waits for the result when the writer was dropped.
        if reply.send(piece.map(|bytes| Piece { bytes, crc })).is_err() {
            return;
        }
    }
}

fn checksum(bytes: &[u8]) -> Crc {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc
}
