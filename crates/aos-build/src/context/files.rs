//! The digests of files that have not changed since an earlier build, so that an unchanged tree is
//! listed and not read.
//!
//! On disk, one file for each context directory, replaced as a whole; numbers are little-endian:
//!
//! ```text
//! "AOSFILE1" | SHA-256 of the rest | number of entries u32
//! entry: path's length u16 | path | stamp (see [`super::stamp`]) | SHA-256 of the contents
//! ```
//!
//! Entries are sorted by path. A file that is damaged, of another format or too large is as good as
//! none.
//!
//! **Races.** A change within one tick of the kernel's clock leaves the stamp as it was. So an entry
//! is kept only when the change time lies further before the beginning of the build than a tick
//! takes; what is younger is hashed again by the next build. A store through a shared memory
//! mapping that was made before the build shows in the stamp only when the kernel writes the page
//! back; who builds from files that are being written through mappings gets what git gets as well.

use super::hash::{self, Hashed, Wanted};
use super::stamp::{Moment, STAMP_BYTES};
use super::{Context, Found, Stamp, What};
use crate::error::BuildError;
use aos_core::id::Digest;
use aos_package::bounds::FILES_MAX;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

const MAGIC: &[u8; 8] = b"AOSFILE1";
const DIGEST_BYTES: usize = 32;
/// The magic, the digest and the number of entries.
const HEADER: usize = MAGIC.len() + DIGEST_BYTES + 4;
/// Bytes of the file: 200,000 entries with paths of some hundred bytes.
const FILE_MAX: u64 = 128 << 20;
/// Entries that are kept: those of the largest directory, and as many of parts that this build did
/// not look at.
const ENTRIES_MAX: usize = 2 * FILES_MAX;
/// File systems of this machine take times from a clock that ticks every 10 ms at the slowest
/// (CONFIG_HZ=100); ten of these.
const TICK_LOCAL: Duration = Duration::from_millis(100);
/// Others may round to two seconds (FAT), and have clocks of their own.
const TICK_OTHER: Duration = Duration::from_secs(10);
/// `f_type` of ext4, XFS, Btrfs, tmpfs, overlayfs, ZFS, F2FS and bcachefs (statfs(2)).
const LOCAL: [i64; 8] =
    [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630, 0x2fc1_2fc1, 0xf2f5_2010, 0xca45_1a4e];

/// What an earlier build left: sorted entries in the bytes of the file.
#[derive(Debug, Default)]
struct Known {
    bytes: Vec<u8>,
    /// Where each entry starts.
    starts: Vec<u32>,
}

/// One entry.
#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    path: &'a [u8],
    stamp: &'a [u8],
    digest: [u8; DIGEST_BYTES],
}

impl Known {
    /// Reads the file; anything but a whole one is empty.
    fn load(path: &Path) -> Self {
        let small = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() <= FILE_MAX);
        if !small {
            return Self::default();
        }
        std::fs::read(path).ok().and_then(Self::parse).unwrap_or_default()
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (digest, body) = rest.split_first_chunk::<DIGEST_BYTES>()?;
        if Sha256::digest(body).as_slice() != digest {
            return None;
        }
        let (count, _) = body.split_first_chunk::<4>()?;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok().filter(|&n| n <= ENTRIES_MAX)?;
        let mut starts = Vec::with_capacity(count);
        let mut at = HEADER;
        for _ in 0..count {
            starts.push(u32::try_from(at).ok()?);
            let length = bytes.get(at..)?.first_chunk::<2>()?;
            at = at.checked_add(2 + usize::from(u16::from_le_bytes(*length)) + STAMP_BYTES + DIGEST_BYTES)?;
        }
        (at == bytes.len()).then_some(Self { bytes, starts })
    }

    fn entry(&self, index: usize) -> Option<Entry<'_>> {
        let at = usize::try_from(*self.starts.get(index)?).ok()?;
        let (length, rest) = self.bytes.get(at..)?.split_first_chunk::<2>()?;
        let (path, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let (stamp, rest) = rest.split_at_checked(STAMP_BYTES)?;
        Some(Entry { path, stamp, digest: *rest.first_chunk()? })
    }

    /// The entry of a path, from `from` on when paths are asked for in their order.
    fn find(&self, path: &[u8], from: &mut usize) -> Option<Entry<'_>> {
        // Most often it is the next one.
        for _ in 0..2 {
            match self.entry(*from).map(|entry| (entry.path.cmp(path), entry)) {
                Some((std::cmp::Ordering::Equal, entry)) => {
                    *from += 1;
                    return Some(entry);
                }
                Some((std::cmp::Ordering::Less, _)) => *from += 1,
                _ => break,
            }
        }
        let found = self.starts.binary_search_by(|&start| {
            let at = usize::try_from(start).unwrap_or(usize::MAX);
            let length = self.bytes.get(at..).and_then(|bytes| bytes.first_chunk::<2>());
            let length = length.map_or(0, |length| usize::from(u16::from_le_bytes(*length)));
            self.bytes.get(at + 2..at + 2 + length).unwrap_or_default().cmp(path)
        });
        *from = found.map_or_else(|after| after, |at| at + 1);
        found.ok().and_then(|index| self.entry(index))
    }

    fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.starts.len()).filter_map(|index| self.entry(index))
    }
}

/// What this build has seen of a path.
#[derive(Debug, Clone, Copy)]
enum Seen {
    /// It was hashed, and may be kept.
    New(Stamp, Digest),
    /// It was hashed too soon after its change.
    Young,
}

/// The digests of a context's files.
pub(crate) struct FileDigests {
    path: PathBuf,
    known: Known,
    /// The device of the context, and the first moments too late for its files and for others'.
    device: u64,
    young: (Moment, Moment),
    seen: Mutex<BTreeMap<Box<str>, Seen>>,
}

impl std::fmt::Debug for FileDigests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileDigests({})", self.path.display())
    }
}

impl FileDigests {
    /// Reads what is known of the context. `directory` is the cache's, `started` a time before
    /// any file of the context was looked at.
    pub(crate) fn load(directory: &Path, context: &Context, started: SystemTime) -> Self {
        let whole = std::fs::canonicalize(context.directory());
        let whole = whole.unwrap_or_else(|_| context.directory().to_owned());
        let name = Sha256::digest(whole.as_os_str().as_encoded_bytes());
        let path = directory.join(Digest::from_bytes(name.into()).hex());
        let known = Known::load(&path);
        let before = |tick| moment(started.checked_sub(tick).unwrap_or(SystemTime::UNIX_EPOCH));
        let local = rustix::fs::fstatfs(&context.root).is_ok_and(|fs| LOCAL.contains(&fs.f_type));
        let device = rustix::fs::fstat(&context.root).map_or(0, |stat| stat.st_dev);
        let young = (before(if local { TICK_LOCAL } else { TICK_OTHER }), before(TICK_OTHER));
        Self { path, known, device, young, seen: Mutex::new(BTreeMap::new()) }
    }

    /// The digests of all files among `found`, in their order; what is not known is read.
    pub(crate) fn of(
        &self,
        context: &Context,
        found: &[Found],
        threads: NonZeroUsize,
        read: &(dyn Fn(u64) + Sync),
    ) -> Result<Vec<Hashed>, BuildError> {
        let mut digests = Vec::with_capacity(found.len());
        let mut wanted = Vec::new();
        let mut next = 0;
        for (path, stamp) in found.iter().filter_map(|found| match found.what {
            What::File(stamp) => Some((&*found.path, stamp)),
            _ => None,
        }) {
            let entry = self.known.find(path.as_bytes(), &mut next);
            match entry.filter(|entry| entry.stamp == stamp.to_bytes()) {
                Some(entry) => {
                    digests.push(Some(Hashed { digest: Digest::from_bytes(entry.digest), contents: None }));
                }
                None => {
                    digests.push(None);
                    wanted.push(Wanted { path, stamp });
                }
            }
        }
        let mut hashed = hash::hash_all(context, &wanted, threads, read)?.into_iter();
        self.learn(&wanted, hashed.as_slice());
        digests
            .into_iter()
            .map(|known| known.or_else(|| hashed.next()).ok_or(BuildError::Internal("a file has no digest")))
            .collect()
    }

    fn learn(&self, wanted: &[Wanted<'_>], hashed: &[Hashed]) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (file, hashed) in wanted.iter().zip(hashed) {
            let what =
                if self.is_old(&file.stamp) { Seen::New(file.stamp, hashed.digest) } else { Seen::Young };
            seen.insert(file.path.into(), what);
        }
    }

    /// True when a file changed so long before the build began that every later change shows in its
    /// stamp.
    pub(crate) fn is_old(&self, stamp: &Stamp) -> bool {
        let (own, other) = self.young;
        stamp.changed < if stamp.device == self.device { own } else { other }
    }

    /// Writes what was learned, if anything was. What cannot be written is learned again.
    pub(crate) fn save(&self) -> std::io::Result<()> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        if !seen.values().any(|seen| matches!(seen, Seen::New(..))) {
            return Ok(());
        }
        let mut entries: BTreeMap<&[u8], (Vec<u8>, [u8; DIGEST_BYTES])> = BTreeMap::new();
        for entry in self.known.iter() {
            entries.insert(entry.path, (entry.stamp.to_vec(), entry.digest));
        }
        for (path, seen) in &seen {
            match seen {
                Seen::Young => drop(entries.remove(path.as_bytes())),
                Seen::New(stamp, digest) => {
                    entries.insert(path.as_bytes(), (stamp.to_bytes().to_vec(), *digest.as_bytes()));
                }
            }
        }
        if entries.len() > ENTRIES_MAX {
            entries.retain(|path, _| str::from_utf8(path).is_ok_and(|path| seen.contains_key(path)));
        }
        write(&self.path, &entries)
    }
}

fn write(path: &Path, entries: &BTreeMap<&[u8], (Vec<u8>, [u8; DIGEST_BYTES])>) -> std::io::Result<()> {
    let mut body = u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    for (name, (stamp, digest)) in entries {
        let length = u16::try_from(name.len()).map_err(std::io::Error::other)?;
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(name);
        body.extend_from_slice(stamp);
        body.extend_from_slice(digest);
    }
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(MAGIC)?;
    file.write_all(&Sha256::digest(&body))?;
    file.write_all(&body)?;
    // Not synced: after a power cut the digest above says whether all of it is there.
    file.persist(path).map(drop).map_err(|error| error.error)
}

fn moment(time: SystemTime) -> Moment {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Moment { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanoseconds: since.subsec_nanos() }
}
