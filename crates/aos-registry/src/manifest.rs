//! Manifests of a repository: read by tag or digest, written by both. A tag is read once; what
//! it meant then has a digest, and everything else is read by that.

use crate::bounds::TAGS_MAX;
use crate::error::RequestError;
use crate::session::Session;
use crate::transport::Body;
use aos_core::id::Digest;
use aos_core::reference::{Reference, Tag};
use aos_package::bounds::FOREIGN_MANIFEST_MAX;
use aos_package::oci::{DOCKER_INDEX_TYPE, DOCKER_MANIFEST_TYPE, Descriptor, INDEX_TYPE, MANIFEST_TYPE};
use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;

/// What is accepted for a manifest. An index or a manifest of Docker is understood too, so that
/// the error for a package says what is there.
const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";
/// The digest that the registry computed.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// The registry has noted what the manifest is attached to.
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// Tags of one page; registries give fewer where they want to.
const TAGS_PER_PAGE: &str = "1000";

/// The digest of bytes in memory.
pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

/// What names a manifest.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Name<'a> {
    Tag(&'a Tag),
    Digest(&'a Digest),
}

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag.as_str()),
            Self::Digest(digest) => write!(f, "{digest}"),
        }
    }
}

impl<'a> Name<'a> {
    /// What a reference names: with a digest, the tag says only how it is called.
    pub(crate) fn of(reference: &'a Reference) -> Option<Self> {
        let digest = reference.digest.as_ref().map(Name::Digest);
        digest.or_else(|| reference.tag.as_ref().map(Name::Tag))
    }
}

/// A manifest or index as it came, and what it is.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    #[serde(default)]
    media_type: Option<String>,
}

#[derive(Deserialize)]
struct Tags {
    /// Docker's registry says `null` for a repository whose tags are all deleted.
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Session {
    /// Reads a manifest or index. One that is asked for by digest has it.
    pub(crate) async fn manifest(&self, name: Name<'_>) -> Result<Fetched, RequestError> {
        let what = self.named(name);
        let call = self
            .call(Method::GET, &format!("manifests/{name}"), &*what)
            .header(ACCEPT, HeaderValue::from_static(ACCEPTED));
        let answer = self.send(&call).await?;
        if answer.status() != StatusCode::OK {
            return Err(answer.fail().await);
        }
        let content_type = answer.header(&CONTENT_TYPE).map(plain_type);
        let claimed = answer.header(&CONTENT_DIGEST).map(str::to_owned);
        let bytes = answer.bytes(FOREIGN_MANIFEST_MAX).await?;
        let digest = digest_of(&bytes);
        let expected = match name {
            Name::Digest(expected) => Some(expected.to_string()),
            Name::Tag(_) => claimed.filter(|claimed| claimed.starts_with("sha256:")),
        };
        if expected.is_some_and(|expected| expected != digest.to_string()) {
            return Err(self.wrong(&what, format!("the manifest has digest {digest}")));
        }
        let media_type = self.media_type(&what, &bytes, content_type)?;
        Ok(Fetched { descriptor: Descriptor::new(&media_type, digest, bytes.len() as u64), bytes })
    }

    /// A manifest in messages.
    pub(crate) fn named(&self, name: Name<'_>) -> String {
        let joint = if matches!(name, Name::Tag(_)) { ':' } else { '@' };
        format!("the manifest `{}{joint}{name}`", self.repository())
    }

    /// The media type: the manifest's own, which its digest covers, else that of the answer.
    fn media_type(
        &self,
        what: &str,
        bytes: &[u8],
        content_type: Option<String>,
    ) -> Result<String, RequestError> {
        let Ok(Typed { media_type }) = serde_json::from_slice(bytes) else {
            return Err(self.wrong(what, "it is not a manifest"));
        };
        let media_type = media_type.or(content_type).unwrap_or_default();
        if [MANIFEST_TYPE, INDEX_TYPE, DOCKER_MANIFEST_TYPE, DOCKER_INDEX_TYPE].contains(&media_type.as_str())
        {
            return Ok(media_type);
        }
        Err(self.wrong(
            what,
            format!("`{}` is not the media type of a manifest", crate::shown::shown(&media_type)),
        ))
    }

    /// Writes a manifest. Returns whether the registry has noted its subject.
    pub(crate) async fn put_manifest(
        &self,
        name: Name<'_>,
        media_type: &str,
        bytes: &Bytes,
    ) -> Result<Noted, RequestError> {
        let what = self.named(name);
        let content_type =
            HeaderValue::from_str(media_type).map_err(|_| self.wrong(&what, "its media type is wrong"))?;
        let call = self
            .call(Method::PUT, &format!("manifests/{name}"), &*what)
            .header(CONTENT_TYPE, content_type)
            .body(Body::Bytes(bytes.clone()));
        let answer = self.send(&call).await?;
        if !answer.status().is_success() {
            return Err(answer.fail().await);
        }
        let digest = digest_of(bytes).to_string();
        if answer
            .header(&CONTENT_DIGEST)
            .is_some_and(|claimed| claimed.starts_with("sha256:") && claimed != digest)
        {
            return Err(self.wrong(&what, "it was stored under another digest"));
        }
        Ok(if answer.header(&SUBJECT).is_some() { Noted::Yes } else { Noted::No })
    }

    /// All tags, sorted, but those that stand for attachments.
    pub(crate) async fn tags(&self) -> Result<Vec<Tag>, RequestError> {
        let mut first = self.url("tags/list");
        first.query_pairs_mut().append_pair("n", TAGS_PER_PAGE);
        let mut found = BTreeSet::new();
        let mut pages = self.pages(first, "the list of tags");
        while let Some(page) = pages.next().await? {
            let Ok(Tags { tags }) = serde_json::from_slice(&page) else {
                return Err(self.wrong("the list of tags", "it is not one"));
            };
            for tag in tags.unwrap_or_default() {
                let Ok(tag) = tag.parse::<Tag>() else {
                    return Err(self
                        .wrong("the list of tags", format!("`{}` is not a tag", crate::shown::shown(&tag))));
                };
                found.extend((!is_fallback(&tag)).then(|| tag.as_str().to_owned()));
            }
            if found.len() > TAGS_MAX {
                return Err(self.wrong("the list of tags", format!("it has more than {TAGS_MAX}")));
            }
        }
        Ok(found.iter().filter_map(|tag| tag.parse().ok()).collect())
    }
}

/// Whether the registry keeps the list of what is attached to a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noted {
    Yes,
    No,
}

/// True for the tag under which registries without the referrers API list attachments.
fn is_fallback(tag: &Tag) -> bool {
    tag.as_str().strip_prefix("sha256-").is_some_and(|hex| format!("sha256:{hex}").parse::<Digest>().is_ok())
}

/// A media type without its parameters.
fn plain_type(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
