//! What is attached to a manifest: by the referrers API, and by the fallback tag `sha256-<hex>` of
//! registries without it (OCI distribution specification 1.1, "Referrers Tag Schema").
//!
//! **Races.** The fallback tag is an index that every writer reads, changes and writes back, and a
//! registry has no compare-and-swap. So a writer looks again after it wrote, twice with a pause of
//! random length between: what another has overwritten meanwhile is written again. Two writers
//! lose an entry only when one of them holds its write back for longer than the other looks.

use crate::bounds::{FALLBACK_ATTEMPTS_MAX, REFERRERS_MAX};
use crate::entries::Entries;
use crate::error::RequestError;
use crate::manifest::Name;
use crate::retry::jittered;
use crate::session::Session;
use aos_core::id::Digest;
use aos_core::reference::Tag;
use aos_package::oci::{Descriptor, INDEX_TYPE};
use std::time::Duration;

/// Pause between writing a fallback index and looking at it for the last time.
const SETTLE: Duration = Duration::from_millis(200);

/// The fallback tag of a manifest.
fn fallback(subject: &Digest) -> Option<Tag> {
    format!("sha256-{}", subject.hex()).parse().ok()
}

impl Session {
    /// What is attached to a manifest, by both ways: a registry that learned the API later has
    /// older attachments under the tag only.
    pub(crate) async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, RequestError> {
        let mut found = Vec::new();
        let mut pages = self.pages(self.url(&format!("referrers/{subject}")), "the list of attachments");
        loop {
            match pages.next().await {
                Ok(Some(page)) => {
                    let Ok(index) = Entries::parse(&page) else {
                        return Err(self.wrong("the list of attachments", "it is not an index"));
                    };
                    found.extend(index.descriptors().take(REFERRERS_MAX));
                }
                Ok(None) => break,
                // The API is not there; some registries say so with 400 or 405.
                Err(RequestError::NotFound { .. }) => break,
                Err(RequestError::Status { status, .. }) if matches!(status.as_u16(), 400 | 405 | 501) => {
                    break;
                }
                Err(error) => return Err(error),
            }
            if found.len() > REFERRERS_MAX {
                break;
            }
        }
        if let Some(index) = self.fallback_index(subject).await? {
            found.extend(index.descriptors().take(REFERRERS_MAX));
        }
        found.truncate(REFERRERS_MAX);
        Ok(found)
    }

    /// The index under the fallback tag, if there is one.
    async fn fallback_index(&self, subject: &Digest) -> Result<Option<Entries>, RequestError> {
        let Some(tag) = fallback(subject) else { return Ok(None) };
        let fetched = match self.manifest(Name::Tag(&tag)).await {
            Ok(fetched) => fetched,
            Err(RequestError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        match Entries::parse(&fetched.bytes) {
            Ok(index) => Ok(Some(index)),
            Err(_) => {
                Err(self.wrong(&format!("the tag `{}`", tag.as_str()), "it is not an index of attachments"))
            }
        }
    }

    /// Lists attachments under the fallback tag, beside those that are there.
    pub(crate) async fn list_by_tag(
        &self,
        subject: &Digest,
        entries: &[Descriptor],
    ) -> Result<(), RequestError> {
        let Some(tag) = fallback(subject) else { return Ok(()) };
        let what = format!("the tag `{}`", tag.as_str());
        for attempt in 1..=FALLBACK_ATTEMPTS_MAX {
            let index = self.fallback_index(subject).await?.unwrap_or_else(Entries::empty);
            if let Some(bytes) =
                with(&index, entries).map_err(|_| self.wrong(&what, "its entries cannot be kept"))?
            {
                if index.len() + entries.len() > REFERRERS_MAX {
                    return Err(self.wrong(&what, format!("it lists {} attachments already", index.len())));
                }
                self.put_manifest(Name::Tag(&tag), INDEX_TYPE, &bytes.into()).await?;
                tokio::time::sleep(jittered(SETTLE * attempt)).await;
                continue;
            }
            if attempt == 1 {
                return Ok(());
            }
            tokio::time::sleep(jittered(SETTLE)).await;
            let last = self.fallback_index(subject).await?;
            if last.is_some_and(|last| entries.iter().all(|entry| last.has(&entry.digest))) {
                return Ok(());
            }
        }
        Err(self.wrong(&what, "it is changed by others all the time, try again"))
    }
}

/// The index with the entries that it has not; `None` when it has them all.
fn with(index: &Entries, entries: &[Descriptor]) -> Result<Option<Vec<u8>>, aos_package::oci::OciError> {
    let mut changed = index.clone();
    for entry in entries.iter().filter(|entry| !index.has(&entry.digest)) {
        changed.add(entry)?;
    }
    if changed.len() == index.len() { Ok(None) } else { changed.to_json().map(Some) }
}
