//! Contents of files in one temporary file, until a layer is written of them in its own order.

use aos_core::id::Digest;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Copied at once.
const BUFFER: usize = 128 << 10;

/// The temporary file; it has no name and goes with this value.
pub(crate) struct Spool {
    file: File,
    length: u64,
    buffer: Vec<u8>,
}

/// Contents in the spool.
pub(crate) struct Spooled {
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
}

impl Spool {
    pub(crate) fn new(directory: &Path) -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile_in(directory)?, length: 0, buffer: vec![0; BUFFER] })
    }

    /// Adds contents to their end.
    pub(crate) fn add(&mut self, contents: &mut impl Read) -> io::Result<Spooled> {
        let offset = self.length;
        let mut hash = Sha256::new();
        loop {
            let count = contents.read(&mut self.buffer)?;
            if count == 0 {
                break;
            }
            let bytes = self.buffer.get(..count).unwrap_or_default();
            hash.update(bytes);
            self.file.write_all(bytes)?;
            self.length += count as u64;
        }
        let digest = Digest::from_bytes(hash.finalize().into());
        Ok(Spooled { offset, size: self.length - offset, digest })
    }

    /// Reads contents.
    pub(crate) const fn open(&self, offset: u64, size: u64) -> Reading<'_> {
        Reading { file: &self.file, at: offset, left: size }
    }
}

/// Contents that are read.
pub(crate) struct Reading<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(buffer.get_mut(..want).unwrap_or_default(), self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
