//! Hashes many files at once, each read once: what is small stays in memory for the layer that is
//! made of it.
//!
//! Concurrency: threads take the next file from a counter, the large ones first, so that they do
//! not end with one thread at work.

use super::{Context, Stamp};
use crate::error::BuildError;
use aos_core::id::Digest;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Read at once: beyond this, larger reads are no faster.
const BUFFER: usize = 256 << 10;
/// Bytes of a file that may stay in memory. Opening and reading such a file again would cost more
/// than hashing it.
const SMALL: u64 = BUFFER as u64;
/// Bytes of all files that stay in memory for one step: a tree of source code; what is beyond is
/// read a second time.
const KEEP_MAX: u64 = 64 << 20;
/// From here on a file is hashed before the others.
const LARGE: u64 = 4 << 20;

/// A file that is to be hashed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) path: &'a str,
    /// What the walk saw: another stamp means that the file is being changed.
    pub(crate) stamp: Stamp,
}

/// A file's digest, and its contents when they are small.
#[derive(Debug, Clone)]
pub(crate) struct Hashed {
    pub(crate) digest: Digest,
    pub(crate) contents: Option<Arc<[u8]>>,
}

struct Work<'a> {
    context: &'a Context,
    wanted: &'a [Wanted<'a>],
    order: Vec<usize>,
    next: AtomicUsize,
    kept: AtomicU64,
    stop: AtomicBool,
    read: &'a (dyn Fn(u64) + Sync),
    /// The error of the first file in the order of paths among those that failed.
    error: Mutex<Option<(usize, BuildError)>>,
}

/// Hashes all files; `read` is told of bytes as they are read.
pub(crate) fn hash_all(
    context: &Context,
    wanted: &[Wanted<'_>],
    threads: NonZeroUsize,
    read: &(dyn Fn(u64) + Sync),
) -> Result<Vec<Hashed>, BuildError> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    let size = |&index: &usize| wanted.get(index).map_or(0, |file| file.stamp.size);
    order.sort_by_key(|index| std::cmp::Reverse(if size(index) < LARGE { 0 } else { size(index) }));
    let work = Work {
        context,
        wanted,
        order,
        next: AtomicUsize::new(0),
        kept: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        read,
        error: Mutex::new(None),
    };
    let mut done: Vec<(usize, Hashed)> = Vec::new();
    std::thread::scope(|scope| {
        let extra = threads.get().min(wanted.len()).saturating_sub(1);
        let others: Vec<_> = (0..extra).map(|_| scope.spawn(|| work.run())).collect();
        done = work.run();
        for other in others {
            done.extend(other.join().unwrap_or_default());
        }
    });
    if let Some((_, error)) = work.error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    done.sort_unstable_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, hashed)| hashed).collect())
}

impl Work<'_> {
    fn run(&self) -> Vec<(usize, Hashed)> {
        let mut buffer = vec![0; BUFFER];
        let mut done = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            let Some((index, file)) = self.order.get(next).and_then(|&i| Some((i, self.wanted.get(i)?)))
            else {
                break;
            };
            match self.hash(file, &mut buffer) {
                Ok(hashed) => done.push((index, hashed)),
                Err(error) => {
                    self.stop.store(true, Ordering::Relaxed);
                    let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
                    if first.as_ref().is_none_or(|(other, _)| index < *other) {
                        *first = Some((index, error));
                    }
                }
            }
        }
        done
    }

    fn hash(&self, wanted: &Wanted<'_>, buffer: &mut [u8]) -> Result<Hashed, BuildError> {
        let (mut file, stamp) = self.context.open_file(wanted.path)?;
        let changed = || BuildError::Changed(wanted.path.to_owned());
        if stamp != wanted.stamp {
            return Err(changed());
        }
        let mut hash = Sha256::new();
        let mut count = 0_u64;
        let mut first = 0;
        loop {
            let read = file.read(buffer).map_err(|source| BuildError::Read {
                path: self.context.directory().join(wanted.path),
                source,
            })?;
            if read == 0 {
                break;
            }
            hash.update(buffer.get(..read).unwrap_or_default());
            (self.read)(read as u64);
            first = if count == 0 { read } else { 0 };
            count += read as u64;
        }
        if count != stamp.size || is_changed(&file, &stamp) {
            return Err(changed());
        }
        // A small file came in one read, and is still in the buffer.
        let keep = first as u64 == count && count <= SMALL && self.admit(count);
        let contents = keep.then(|| buffer.get(..first).unwrap_or_default().into());
        Ok(Hashed { digest: Digest::from_bytes(hash.finalize().into()), contents })
    }

    /// Whether so many bytes more may stay in memory.
    fn admit(&self, bytes: u64) -> bool {
        self.kept.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= KEEP_MAX
    }
}

/// True when an open file is no longer what it was.
pub(crate) fn is_changed(file: &File, before: &Stamp) -> bool {
    rustix::fs::fstat(file).map_or(true, |stat| Stamp::of(&stat) != *before)
}
