//! How far a transfer is.

use aos_core::id::Digest;

/// Hears how far a transfer is. The methods are called from the transfer's task and must not
/// block; several blobs go on at once.
pub trait Progress: Send + Sync {
    /// A blob of `total` bytes is about to be transferred.
    fn blob(&self, digest: &Digest, total: u64);
    /// So many more bytes of it are where they should be, transferred or found there. The sum
    /// reaches the total, and never exceeds it.
    fn advance(&self, digest: &Digest, bytes: u64);
    /// Something that a person may want to know, in a sentence.
    fn note(&self, text: &str);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn blob(&self, _digest: &Digest, _total: u64) {}
    fn advance(&self, _digest: &Digest, _bytes: u64) {}
    fn note(&self, _text: &str) {}
}

/// Reports one blob, of which parts may be transferred again.
pub(crate) struct Meter<'a> {
    progress: &'a dyn Progress,
    digest: Digest,
    total: u64,
    reported: u64,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(progress: &'a dyn Progress, digest: Digest, total: u64) -> Self {
        progress.blob(&digest, total);
        Self { progress, digest, total, reported: 0 }
    }

    /// So many bytes are there in all.
    pub(crate) fn reach(&mut self, bytes: u64) {
        let bytes = bytes.min(self.total);
        if bytes > self.reported {
            self.progress.advance(&self.digest, bytes - self.reported);
            self.reported = bytes;
        }
    }

    pub(crate) fn finish(&mut self) {
        self.reach(self.total);
    }
}
