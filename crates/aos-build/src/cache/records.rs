//! Records of steps: what a step made, found by the key of what it was made from.
//!
//! ```text
//! magic, 8 bytes | SHA-256 of the rest | the rest: JSON for a step, see `listing` for the other
//! ```

use super::{Cache, touch};
use aos_core::id::Digest;
use aos_package::oci::Descriptor;
use aos_package::repository::Lease;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

/// The magic of a step's record.
pub(super) const STEP: &[u8; 8] = b"AOSSTEP1";
const DIGEST_BYTES: usize = 32;
/// Bytes of a record: what a layer of 200,000 entries lists.
const RECORD_MAX: u64 = 256 << 20;

/// A layer in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Layer {
    pub(crate) blob: Descriptor,
    /// The digest of the tar inside.
    pub(crate) diff_id: Digest,
}

/// What a step made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StepRecord {
    /// What the step does, for people.
    pub(crate) title: String,
    /// `None` for a step that changes no file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) layer: Option<Layer>,
    /// What else belongs to the result, such as the digest of a Debian release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<Digest>,
}

impl Cache {
    /// The layer of a key, pinned; `None` when it must be made.
    pub(crate) fn step(&self, key: &Digest, lease: &Lease, now: SystemTime) -> Option<StepRecord> {
        let path = self.record(key);
        let record: StepRecord = serde_json::from_slice(&read(&path, STEP)?).ok()?;
        if let Some(Layer { blob, .. }) = &record.layer
            && lease.pin(blob.digest).ok()?? != blob.size
        {
            return None;
        }
        // The time of use is for pruning only: a store that cannot be written is still of use.
        drop(touch(&path, now));
        Some(record)
    }

    /// Keeps a record; `now` is when it was used last.
    pub(crate) fn put_step(&self, key: &Digest, record: &StepRecord, now: SystemTime) -> io::Result<()> {
        self.put(key, STEP, &serde_json::to_vec(record)?, now)
    }

    /// Writes a record as a whole.
    pub(super) fn put(&self, key: &Digest, magic: &[u8; 8], body: &[u8], now: SystemTime) -> io::Result<()> {
        let path = self.record(key);
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        for bytes in [&magic[..], &Sha256::digest(body), body] {
            file.write_all(bytes)?;
        }
        file.as_file().set_modified(now)?;
        file.persist(&path).map(drop).map_err(|error| error.error)
    }

    /// What a record of this magic holds.
    pub(super) fn get(&self, key: &Digest, magic: &[u8; 8], now: SystemTime) -> Option<Vec<u8>> {
        let path = self.record(key);
        let body = read(&path, magic)?;
        drop(touch(&path, now));
        Some(body)
    }
}

/// What a whole record holds; `None` for anything else.
pub(super) fn read(path: &Path, magic: &[u8; 8]) -> Option<Vec<u8>> {
    if std::fs::symlink_metadata(path).ok()?.len() > RECORD_MAX {
        return None;
    }
    let mut bytes = std::fs::read(path).ok()?;
    let (digest, body) = bytes.strip_prefix(magic)?.split_first_chunk::<DIGEST_BYTES>()?;
    if Sha256::digest(body).as_slice() != digest {
        return None;
    }
    drop(bytes.drain(..magic.len() + DIGEST_BYTES));
    Some(bytes)
}
