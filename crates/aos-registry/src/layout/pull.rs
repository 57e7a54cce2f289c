//! From a directory into a store.

use super::{Directory, LayoutError, failed};
use crate::bounds::PIECE;
use crate::entries::Entries;
use crate::progress::{Meter, Progress};
use crate::pull::attachments::{attachment_blobs, chain, chosen, is_its_own};
use crate::pull::{PullError, Pulled, package_blobs, refused};
use crate::shown::shown;
use aos_core::id::Digest;
use aos_core::reference::Reference;
use aos_package::bounds::{FOREIGN_MANIFEST_MAX, MANIFEST_MAX};
use aos_package::oci::{ArtifactManifest, Descriptor, MANIFEST_TYPE, REF_NAME, SUBJECT, is_index};
use aos_package::repository::{BlobError, Lease};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Pulls a package and what is attached to it from a directory into the store of the lease;
/// without a name, the only one that is there. It blocks.
pub fn pull(
    path: &Path,
    name: Option<&Reference>,
    lease: &Lease,
    progress: &dyn Progress,
) -> Result<Pulled, LayoutError> {
    let directory = Directory::new(path);
    directory.check()?;
    let index = directory.index()?;
    let found = directory.find(&index, name)?;
    if is_index(&found.descriptor.media_type) {
        return Err(PullError::Index(shown(&found.name)).into());
    }
    let mut transfer = Transfer { directory: &directory, lease, progress, done: BTreeSet::new() };
    let bytes = directory.read_blob(&found.descriptor, MANIFEST_MAX)?;
    let name = shown(&found.name);
    transfer.blobs(package_blobs(&name, &bytes)?)?;
    let descriptor = lease.put(MANIFEST_TYPE, &bytes)?;
    lease.repository().package(&descriptor)?;
    let attachments = transfer.attachments(&index, &descriptor, &name)?;
    Ok(Pulled { descriptor, attachments })
}

/// From where, and where to.
struct Transfer<'a> {
    directory: &'a Directory,
    lease: &'a Lease,
    progress: &'a dyn Progress,
    /// Blobs that are there: attachments share theirs.
    done: BTreeSet<Digest>,
}

impl Transfer<'_> {
    fn blobs(&mut self, mut blobs: BTreeMap<Digest, u64>) -> Result<(), LayoutError> {
        blobs.retain(|digest, _| self.done.insert(*digest));
        blobs.into_iter().try_for_each(|(digest, size)| self.blob(digest, size))
    }

    fn blob(&self, digest: Digest, size: u64) -> Result<(), LayoutError> {
        let mut meter = Meter::new(self.progress, digest, size);
        match self.lease.pin(digest)? {
            Some(found) if found == size => {
                meter.finish();
                return Ok(());
            }
            Some(found) => return Err(BlobError::Size { digest, expected: size, found }.into()),
            None => {}
        }
        let path = self.directory.blob(&digest);
        let mut file = self.directory.open_blob(digest, size)?;
        let mut writer = self.lease.writer(Some((digest, size)))?;
        file.seek(SeekFrom::Start(writer.offset())).map_err(failed("read", &path))?;
        let mut buffer = vec![0; PIECE];
        loop {
            let count = file.read(&mut buffer).map_err(failed("read", &path))?;
            let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else { break };
            writer.write_all(piece).map_err(|source| PullError::Write { digest, source })?;
            meter.reach(writer.offset());
        }
        match writer.commit("application/octet-stream") {
            Ok(_) => Ok(()),
            Err(BlobError::Altered { .. }) => {
                Err(LayoutError::Altered { path: self.directory.path.clone(), digest })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Pulls what is attached. What cannot be used is noted and left out.
    fn attachments(
        &mut self,
        index: &Entries,
        subject: &Descriptor,
        name: &str,
    ) -> Result<Vec<Descriptor>, LayoutError> {
        let mut kept = Vec::new();
        for entry in chosen(self.listed(index, subject), self.progress) {
            match self.attachment(&entry, subject, name) {
                Ok(Some(attached)) => kept.push(attached),
                Ok(None) => {}
                Err(error) if is_left_out(&error) => {
                    self.progress.note(&format!(
                        "the attachment {} is left out: {}",
                        entry.digest,
                        chain(&error)
                    ));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(kept)
    }

    /// What may be attached: entries that say so, entries of other tools that do not say to what,
    /// and those under the fallback tag.
    fn listed(&self, index: &Entries, subject: &Descriptor) -> Vec<Descriptor> {
        let wanted = subject.digest.to_string();
        let fallback = format!("sha256-{}", subject.digest.hex());
        let mut listed = Vec::new();
        for mut entry in index.descriptors().filter(|entry| entry.digest != subject.digest) {
            let name = entry.annotations.remove(REF_NAME);
            let ours = entry.annotations.get(SUBJECT);
            match name {
                Some(name) if name == fallback && is_index(&entry.media_type) => {
                    let bytes = self.directory.read_blob(&entry, FOREIGN_MANIFEST_MAX);
                    let wrong =
                        |source| LayoutError::Layout { path: self.directory.blob(&entry.digest), source };
                    match bytes.and_then(|bytes| Entries::parse(&bytes).map_err(wrong)) {
                        Ok(inner) => listed.extend(inner.descriptors()),
                        Err(error) => {
                            self.progress.note(&format!("attachments are left out: {}", chain(&error)))
                        }
                    }
                }
                None if ours.is_some_and(|ours| *ours == wanted) => listed.push(entry),
                None if ours.is_none() && entry.artifact_type.is_some() => listed.push(entry),
                _ => {}
            }
        }
        listed
    }

    fn attachment(
        &mut self,
        entry: &Descriptor,
        subject: &Descriptor,
        name: &str,
    ) -> Result<Option<Descriptor>, LayoutError> {
        let bytes = self.directory.read_blob(entry, MANIFEST_MAX)?;
        let manifest = match ArtifactManifest::parse(&bytes) {
            Ok(manifest) if manifest.subject.digest != subject.digest => return Ok(None),
            Ok(manifest) => manifest,
            Err(source) => return Err(refused(&name)(source).into()),
        };
        self.blobs(attachment_blobs(&name, &manifest)?)?;
        let descriptor = self.lease.put(MANIFEST_TYPE, &bytes)?;
        Ok(Some(self.lease.repository().attach(self.lease, &descriptor)?.descriptor))
    }
}

/// True for what is wrong with one attachment, not with the store.
fn is_left_out(error: &LayoutError) -> bool {
    match error {
        LayoutError::Pull(error) => is_its_own(error),
        LayoutError::Blob(BlobError::Repository(_)) | LayoutError::Repository(_) => false,
        LayoutError::Attach(aos_package::repository::AttachError::Repository(_)) => false,
        _ => true,
    }
}
