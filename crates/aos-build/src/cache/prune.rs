//! What is in the cache, and removing it by age and size.

use super::{Cache, listing, records};
use crate::cache::StepRecord;
use aos_core::id::Digest;
use rustix::fs::FlockOperation;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use thiserror::Error;

/// Why the cache cannot be listed or pruned.
#[derive(Debug, Error)]
#[error("cannot {action} `{}`", .path.display())]
pub struct CacheError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What an entry of the cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// The layer of a step.
    Step,
    /// What a layer lists.
    Listing,
    /// The digests of a directory's files.
    Files,
    /// Unpacked layers.
    Tree,
    /// A cache mount.
    Mount,
}

/// An entry of the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CacheEntry {
    /// What it is.
    pub kind: EntryKind,
    /// Its name: the key of a step, as hexadecimal digits.
    pub name: String,
    /// What the step does; empty for what is no step.
    pub title: String,
    /// Bytes, those of a step's layer included. A layer that several steps made counts once, with
    /// the step that was used last.
    pub bytes: u64,
    /// When it was last used, in seconds since 1970.
    pub last_used: u64,
    /// The layer of a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<Digest>,
    #[serde(skip)]
    path: PathBuf,
}

/// What to remove. Both bounds hold together; with none, everything goes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Prune {
    /// Keep at most so many bytes, those that were used last.
    pub keep_bytes: Option<u64>,
    /// Remove only, or also, what was not used for so long.
    pub older: Option<Duration>,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// The entries.
    pub removed: Vec<CacheEntry>,
    /// Their bytes. Those of layers come free when the repository collects its garbage.
    pub bytes: u64,
    /// Entries that should go and stay, since builds are using them.
    pub busy: usize,
}

impl Cache {
    /// Everything in the cache, the last used first.
    pub fn list(&self) -> Result<Vec<CacheEntry>, CacheError> {
        let mut entries = Vec::new();
        for shard in children(&self.steps())? {
            for path in children(&shard)? {
                entries.extend(step(&shard, &path));
            }
        }
        for (kind, directory) in [
            (EntryKind::Files, self.files()),
            (EntryKind::Tree, self.trees()),
            (EntryKind::Mount, self.mounts()),
        ] {
            entries.extend(children(&directory)?.iter().filter_map(|path| whole(kind, path)));
        }
        entries.sort_by(|a, b| (b.last_used, a.kind, &a.name).cmp(&(a.last_used, b.kind, &b.name)));
        let mut seen = BTreeSet::new();
        for entry in &mut entries {
            if entry.layer.is_some_and(|layer| !seen.insert(layer)) {
                entry.bytes = std::fs::metadata(&entry.path).map_or(0, |metadata| metadata.len());
            }
        }
        Ok(entries)
    }

    /// The layers that records name: what a garbage collection of the store should keep.
    pub fn layers(&self) -> Result<BTreeSet<Digest>, CacheError> {
        Ok(self.list()?.into_iter().filter_map(|entry| entry.layer).collect())
    }

    /// Removes entries. Those that builds are using stay. The blobs of removed steps are garbage
    /// from then on, unless a package has them.
    pub fn prune(&self, what: Prune, now: SystemTime) -> Result<Pruned, CacheError> {
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let lock = self.lock_file().map_err(failed("open", &self.root))?;
        let alone = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        let mut pruned = Pruned::default();
        let mut kept = 0_u64;
        for entry in self.list()? {
            let old = what.older.is_some_and(|age| seconds.saturating_sub(entry.last_used) > age.as_secs());
            let over = what.keep_bytes.is_some_and(|max| kept.saturating_add(entry.bytes) > max);
            if !(old || over || (what.older.is_none() && what.keep_bytes.is_none())) {
                kept = kept.saturating_add(entry.bytes);
                continue;
            }
            if matches!(entry.kind, EntryKind::Tree | EntryKind::Mount) && !alone {
                pruned.busy += 1;
                continue;
            }
            remove(&entry.path).map_err(failed("remove", &entry.path))?;
            pruned.bytes = pruned.bytes.saturating_add(entry.bytes);
            pruned.removed.push(entry);
        }
        Ok(pruned)
    }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> CacheError + 'a {
    move |source| CacheError { action, path: path.to_owned(), source }
}

/// The paths in a directory, sorted.
fn children(directory: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let read = failed("list", directory);
    let mut paths = Vec::new();
    match std::fs::read_dir(directory) {
        Ok(entries) => {
            for entry in entries {
                paths.push(entry.map_err(&read)?.path());
            }
        }
        // What another process removed is as if it had not been there.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
        Err(error) => return Err(read(error)),
    }
    paths.sort();
    Ok(paths)
}

/// A record; one that is damaged counts with its own size, so that it can be removed.
fn step(shard: &Path, path: &Path) -> Option<CacheEntry> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    let name =
        |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut entry = CacheEntry {
        kind: EntryKind::Listing,
        name: format!("{}{}", name(shard), name(path)),
        title: String::new(),
        bytes: metadata.len(),
        last_used: used(&metadata),
        layer: None,
        path: path.to_owned(),
    };
    if records::read(path, listing::LISTING).is_none() {
        entry.kind = EntryKind::Step;
        let record = records::read(path, records::STEP);
        if let Some(record) = record.and_then(|body| serde_json::from_slice::<StepRecord>(&body).ok()) {
            entry.title = record.title;
            if let Some(layer) = record.layer {
                entry.bytes = entry.bytes.saturating_add(layer.blob.size);
                entry.layer = Some(layer.blob.digest);
            }
        }
    }
    Some(entry)
}

fn whole(kind: EntryKind, path: &Path) -> Option<CacheEntry> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some(CacheEntry {
        kind,
        name: path.file_name()?.to_string_lossy().into_owned(),
        title: String::new(),
        bytes: bytes_below(path),
        last_used: used(&metadata),
        layer: None,
        path: path.to_owned(),
    })
}

fn used(metadata: &std::fs::Metadata) -> u64 {
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Bytes of a file, or of the files below a directory. What goes meanwhile has none.
fn bytes_below(path: &Path) -> u64 {
    let mut open = vec![path.to_owned()];
    let mut links: BTreeMap<(u64, u64), ()> = BTreeMap::new();
    let mut bytes = 0_u64;
    while let Some(path) = open.pop() {
        let Ok(stat) = rustix::fs::lstat(&path) else { continue };
        if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
            open.extend(children(&path).unwrap_or_default());
        } else if stat.st_nlink == 1 || links.insert((stat.st_dev, stat.st_ino), ()).is_none() {
            bytes = bytes.saturating_add(u64::try_from(stat.st_size).unwrap_or(0));
        }
    }
    bytes
}

/// Removes a file or a tree, which may be gone already.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
