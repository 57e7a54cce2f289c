//! Checking that a store is whole.

use super::Repository;
use super::collect::Blobs;
use super::error::{BlobError, RepositoryError, failed};
use super::index::{is_attachment, subject_of};
use super::lease::Leases;
use super::reach::Reach;
use crate::hashing::Hashing;
use crate::oci::{Descriptor, Index, MANIFEST_TYPE, REF_NAME, check_layout, is_image_manifest};
use aos_core::id::{Digest, PackageRef};
use aos_core::reference::Reference;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use thiserror::Error;

/// Threads that hash at once: hashing is as fast as a disk with four.
const THREADS_MAX: usize = 4;

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The index, manifests, and names and sizes of blobs.
    Names,
    /// Every byte.
    Contents,
}

/// Something that is not as it should be.
#[derive(Debug, Error)]
pub enum Problem {
    /// A file of the layout cannot be used.
    #[error("`{}` is damaged: {reason}", .path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// An entry of the index is wrong.
    #[error("the index lists {digest} wrongly: {reason}")]
    Entry {
        /// The manifest.
        digest: Digest,
        /// Why.
        reason: String,
    },
    /// A blob that something needs is not there, or is not what it should be.
    #[error("{needed_by} is damaged: {source}")]
    Blob {
        /// The manifest that needs it, by its tag if it has one.
        needed_by: String,
        /// What is wrong.
        source: BlobError,
    },
    /// A blob is there with other contents.
    #[error("the blob {expected} is altered: its contents have digest {found}")]
    Altered {
        /// The name.
        expected: Digest,
        /// The digest of the contents.
        found: Digest,
    },
    /// A file in the directory of blobs is none.
    #[error("`{}` is not a blob", .0.display())]
    Strange(PathBuf),
    /// Nothing needs a blob.
    #[error("nothing refers to the blob {digest} of {bytes} bytes")]
    Orphan {
        /// The blob.
        digest: Digest,
        /// Its size.
        bytes: u64,
    },
    /// Nothing has a tag that would keep a manifest.
    #[error("{0} has no tag")]
    Untagged(Digest),
    /// A file of a process that ended.
    #[error("`{}` is left over from a process that was interrupted", .0.display())]
    Leftover(PathBuf),
}

impl Problem {
    /// True when something that is needed is wrong. The others are garbage, which
    /// [`Repository::gc`] removes and which harms nothing.
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::Layout { .. }
            | Self::Entry { .. }
            | Self::Blob { .. }
            | Self::Altered { .. }
            | Self::Strange(_) => true,
            Self::Orphan { .. } | Self::Untagged(_) | Self::Leftover(_) => false,
        }
    }
}

impl Repository {
    /// Checks the store. `extra_roots` are those of [`Repository::gc`]. Nothing is changed; other
    /// processes can use the store meanwhile.
    pub fn check(
        &self,
        depth: Depth,
        extra_roots: &BTreeSet<Digest>,
    ) -> Result<Vec<Problem>, RepositoryError> {
        let (mut problems, blobs) = self.check_names(extra_roots)?;
        if depth == Depth::Contents {
            problems.extend(self.check_contents(&blobs)?);
        }
        Ok(problems)
    }

    /// Removes a blob whose contents are not those of its name, so that it can come again. Returns
    /// false when its contents are right or it is not there.
    pub fn discard_altered(&self, digest: &Digest) -> Result<bool, RepositoryError> {
        let _locked = self.inner.lock.exclusive()?;
        match self.contents_digest(digest)? {
            Some(found) if found != *digest => {
                let path = self.inner.paths.blob(digest);
                std::fs::remove_file(&path).map_err(failed("remove", &path)).map(|()| true)
            }
            _ => Ok(false),
        }
    }

    fn check_names(
        &self,
        extra_roots: &BTreeSet<Digest>,
    ) -> Result<(Vec<Problem>, Vec<Digest>), RepositoryError> {
        // Nobody pins or writes meanwhile, so what looks like garbage is some.
        let locked = self.inner.lock.exclusive()?;
        let mut problems = Vec::new();
        let layout = self.inner.paths.layout.join("oci-layout");
        let checked = super::files::read_bounded(&layout, crate::bounds::INDEX_MAX);
        let reason = match checked {
            Ok(Some(bytes)) => check_layout(&bytes).err().map(|error| text(&error)),
            Ok(None) => Some("it is too long".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        problems.extend(reason.map(|reason| Problem::Layout { path: layout, reason }));
        let index = match self.read_index(&locked) {
            Ok(index) => Some(index),
            Err(error @ (RepositoryError::Index { .. } | RepositoryError::IndexTooLarge { .. })) => {
                problems.push(Problem::Layout { path: self.inner.paths.index(), reason: text(&error) });
                None
            }
            Err(error) => return Err(error),
        };
        let leases = Leases::read(&self.inner.paths.leases)?;
        let Blobs { blobs, strange } = self.all_blobs()?;
        problems.extend(strange.into_iter().map(Problem::Strange));
        problems.extend(self.leftovers(&leases)?.into_iter().map(Problem::Leftover));
        if let Some(index) = index {
            self.check_index(&index, &mut problems)?;
            self.check_orphans(&index, &leases, extra_roots, &blobs, &mut problems)?;
        }
        Ok((problems, blobs.into_iter().map(|(digest, _)| digest).collect()))
    }

    fn check_index(&self, index: &Index, problems: &mut Vec<Problem>) -> Result<(), RepositoryError> {
        let mut seen = BTreeSet::new();
        for entry in &index.manifests {
            let (digest, name) = (entry.digest, entry.annotations.get(REF_NAME));
            if !seen.insert((digest, name)) {
                problems.push(Problem::Entry { digest, reason: "it is there twice".to_owned() });
            }
            problems.extend(wrong_entry(entry).map(|reason| Problem::Entry { digest, reason }));
            let checked = if is_attachment(entry) {
                self.check_attachment(entry)
            } else {
                self.complete(entry).map(drop)
            };
            match checked {
                Ok(()) => {}
                Err(BlobError::Repository(error)) => return Err(error),
                Err(source) => {
                    let needed_by = name.cloned().unwrap_or_else(|| digest.to_string());
                    problems.push(Problem::Blob { needed_by, source });
                }
            }
        }
        Ok(())
    }

    fn check_attachment(&self, entry: &Descriptor) -> Result<(), BlobError> {
        let attachment = self.attachment(entry)?;
        attachment.manifest.blobs().try_for_each(|blob| self.present(blob))?;
        let subject = &attachment.manifest.subject;
        if subject_of(entry) != Some(subject.digest) {
            let found = entry.annotations.get(crate::oci::SUBJECT).cloned().unwrap_or_default();
            let expected = subject.digest.to_string();
            let source =
                crate::oci::OciError::Value { what: "attachment's subject in the index", found, expected };
            return Err(BlobError::Json { digest: entry.digest, source: Box::new(source) });
        }
        self.complete(subject).map(drop)
    }

    fn check_orphans(
        &self,
        index: &Index,
        leases: &Leases,
        extra_roots: &BTreeSet<Digest>,
        blobs: &[(Digest, u64)],
        problems: &mut Vec<Problem>,
    ) -> Result<(), RepositoryError> {
        let mut listed = Reach::new(self);
        let mut tagged = BTreeMap::new();
        listed.index(index)?;
        for entry in &index.manifests {
            if !is_attachment(entry) {
                *tagged.entry(entry.digest).or_insert(false) |= entry.annotations.contains_key(REF_NAME);
            }
        }
        for digest in extra_roots.iter().chain(&leases.pinned) {
            listed.blob(digest)?;
        }
        let untagged =
            tagged.into_iter().filter(|(digest, has_tag)| !has_tag && !leases.pinned.contains(digest));
        problems.extend(untagged.map(|(digest, _)| Problem::Untagged(digest)));
        if listed.damaged.is_empty() {
            let orphans = blobs.iter().filter(|(digest, _)| !listed.blobs.contains(digest));
            problems.extend(orphans.map(|&(digest, bytes)| Problem::Orphan { digest, bytes }));
        }
        Ok(())
    }

    /// Hashes blobs on several threads. One that is collected meanwhile is nobody's.
    fn check_contents(&self, blobs: &[Digest]) -> Result<Vec<Problem>, RepositoryError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let next = AtomicUsize::new(0);
        let work = || {
            let mut problems = Vec::new();
            while let Some(&expected) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.contents_digest(&expected)? {
                    Some(found) if found != expected => problems.push(Problem::Altered { expected, found }),
                    _ => {}
                }
            }
            Ok(problems)
        };
        let results: Vec<Result<Vec<Problem>, RepositoryError>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().map(join).collect()
        });
        let mut problems = Vec::new();
        for result in results {
            problems.extend(result?);
        }
        Ok(problems)
    }

    /// The digest of a blob's contents, if it is there.
    fn contents_digest(&self, digest: &Digest) -> Result<Option<Digest>, RepositoryError> {
        let path = self.inner.paths.blob(digest);
        let mut blob = match self.open_blob(digest) {
            Ok(file) => Hashing::new(file),
            Err(BlobError::Missing(_)) => return Ok(None),
            Err(BlobError::Repository(error)) => return Err(error),
            Err(other) => return Err(failed("open", &path)(io::Error::other(other))),
        };
        io::copy(&mut blob, &mut io::sink()).map_err(failed("read", &path))?;
        Ok(Some(blob.digest()))
    }
}

/// What is wrong with an entry by itself.
fn wrong_entry(entry: &Descriptor) -> Option<String> {
    if is_attachment(entry) {
        return (entry.media_type != MANIFEST_TYPE)
            .then(|| format!("{} is not the media type of an attachment", entry.media_type));
    }
    if !is_image_manifest(&entry.media_type) {
        return Some(format!("{} is not the media type of an image manifest", entry.media_type));
    }
    let name = entry.annotations.get(REF_NAME)?;
    let tag = name.parse::<Reference>().is_ok_and(|r| r.tag.is_some() && r.digest.is_none());
    (!tag && name.parse::<PackageRef>().is_err()).then(|| format!("{name:?} is not a name and a tag"))
}

/// An error with its causes.
fn text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
