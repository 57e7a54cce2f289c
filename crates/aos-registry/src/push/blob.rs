//! Pushing one blob: looked for, mounted from another repository, or uploaded.
//!
//! A small blob goes by one request. A larger one goes as a stream (PATCH), which the registry
//! keeps as far as it got: after a failure, its own count says where to go on. A registry or proxy
//! that refuses the length of a body (413) gets chunks.

use super::{PushError, Way, source};
use crate::blocking::blocking;
use crate::bounds::{CHUNK, MONOLITHIC_MAX, PROGRESS_MIN};
use crate::error::RequestError;
use crate::progress::{Meter, Progress};
use crate::retry::Attempts;
use crate::session::Session;
use crate::transport::{Answer, Body, Call, Reach};
use aos_core::id::Digest;
use aos_core::reference::RepositoryPath;
use aos_package::repository::{BlobError, Repository};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, StatusCode, Url};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// True when the repository has a blob.
pub(super) async fn is_there(session: &Session, digest: Digest, size: u64) -> Result<bool, RequestError> {
    Blob { session, digest, size, known: None }.is_there().await
}

/// What came of a mount.
enum Mount {
    Done,
    /// The registry began an upload instead.
    Upload(Place),
    No,
}

/// Where an upload goes on.
#[derive(Debug, Clone)]
struct Place {
    url: Url,
    reach: Reach,
    /// Bytes that the registry has.
    offset: u64,
}

/// The blob, and the repository that it goes to.
pub(super) struct Blob<'a> {
    pub(super) session: &'a Session,
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// Whether the repository has it, if that was asked before.
    pub(super) known: Option<bool>,
}

impl Blob<'_> {
    /// Sees to it that the repository has the blob.
    pub(super) async fn push(
        self,
        repository: &Repository,
        elsewhere: &[RepositoryPath],
        progress: &dyn Progress,
    ) -> Result<Way, PushError> {
        let (digest, size) = (self.digest, self.size);
        let mut meter = Meter::new(progress, digest, size);
        let there = match self.known {
            Some(known) => known,
            None => self.is_there().await?,
        };
        if there {
            meter.finish();
            return Ok(Way::Skipped);
        }
        let mut upload = None;
        for from in elsewhere {
            match self.mount(from).await? {
                Mount::Done => {
                    meter.finish();
                    return Ok(Way::Mounted);
                }
                Mount::Upload(started) => upload = Some(started),
                Mount::No => {}
            }
        }
        let repository = repository.clone();
        let file = Arc::new(blocking(move || repository.open_blob(&digest)).await?);
        let found = file.metadata().map_err(|source| PushError::Read { digest, source })?.len();
        if found != size {
            return Err(BlobError::Size { digest, expected: size, found }.into());
        }
        self.upload(&file, upload, &mut meter).await?;
        meter.finish();
        Ok(Way::Uploaded)
    }

    fn what(&self) -> String {
        format!("the blob {}", self.digest)
    }

    async fn is_there(&self) -> Result<bool, RequestError> {
        let call = self.session.call(Method::HEAD, &format!("blobs/{}", self.digest), self.what());
        let answer = self.session.send(&call).await?;
        match answer.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(answer.fail().await),
        }
    }

    /// Asks the registry to take the blob from another of its repositories.
    async fn mount(&self, from: &RepositoryPath) -> Result<Mount, RequestError> {
        let mut call = self.session.call(Method::POST, "blobs/uploads/", self.what());
        call.url
            .query_pairs_mut()
            .append_pair("mount", &self.digest.to_string())
            .append_pair("from", from.as_str());
        let answer = self.session.send(&call.header(CONTENT_LENGTH, HeaderValue::from_static("0"))).await?;
        match answer.status() {
            StatusCode::CREATED => Ok(Mount::Done),
            StatusCode::ACCEPTED => self.place(&answer, 0).map(Mount::Upload),
            // We may not read the other repository, or it is gone: an upload will tell.
            _ => Ok(Mount::No),
        }
    }

    /// Begins an upload.
    async fn begin(&self) -> Result<Place, RequestError> {
        let call = self.session.call(Method::POST, "blobs/uploads/", self.what());
        let answer = self.session.send(&call.header(CONTENT_LENGTH, HeaderValue::from_static("0"))).await?;
        match answer.status() {
            StatusCode::ACCEPTED => self.place(&answer, 0),
            _ => Err(answer.fail().await),
        }
    }

    /// Where the registry says that the upload goes on; by the rules for redirects.
    fn place(&self, answer: &Answer, offset: u64) -> Result<Place, RequestError> {
        let (url, reach) = (answer.url(LOCATION)?, answer.reach);
        self.session.transport().check_target(&url, &answer.origin, reach, &self.what())?;
        Ok(Place { url, reach, offset })
    }

    async fn upload(
        &self,
        file: &Arc<File>,
        started: Option<Place>,
        meter: &mut Meter<'_>,
    ) -> Result<(), RequestError> {
        let mut attempts = Attempts::new(self.session.transport().options.retries);
        let mut chunk = u64::MAX;
        let mut place = started;
        loop {
            let current = match place.take() {
                Some(place) => place,
                None => self.begin().await?,
            };
            let before = current.offset;
            let mut at = current;
            let failure = match self.send(file, &mut at, chunk, meter).await {
                Ok(()) => return Ok(()),
                Err(RequestError::Status { status: StatusCode::PAYLOAD_TOO_LARGE, .. }) if chunk > CHUNK => {
                    chunk = CHUNK;
                    place = self.status(&at).await;
                    continue;
                }
                Err(failure) => failure,
            };
            self.session.again(&mut attempts, failure).await?;
            place = self.status(&at).await;
            if place.as_ref().is_some_and(|place| place.offset - before.min(place.offset) >= PROGRESS_MIN) {
                attempts.progressed();
            }
        }
    }

    /// Sends all that is missing, and ends the upload. `place` follows what the registry confirmed.
    async fn send(
        &self,
        file: &Arc<File>,
        place: &mut Place,
        chunk: u64,
        meter: &mut Meter<'_>,
    ) -> Result<(), RequestError> {
        if place.offset == 0 && self.size <= MONOLITHIC_MAX {
            return self.finish(place, Some(file), meter).await;
        }
        while place.offset < self.size {
            let length = chunk.min(self.size - place.offset);
            let end = place.offset + length;
            let mut call =
                Call::new(Method::PATCH, place.url.clone(), self.what()).reach(place.reach).patient();
            if place.offset > 0 || end < self.size {
                let range = format!("{}-{}", place.offset, end - 1);
                let value = HeaderValue::from_str(&range)
                    .map_err(|_| self.session.wrong(&self.what(), "its range"))?;
                call = call.header(CONTENT_RANGE, value);
            }
            let answer = self.stream(call, file, (place.offset, length), meter).await?;
            if !matches!(answer.status(), StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::CREATED)
            {
                return Err(answer.fail().await);
            }
            let confirmed = confirmed(&answer).unwrap_or(end);
            if confirmed != end {
                return Err(answer.wrong(format!("it has {confirmed} bytes of the upload, not {end}")));
            }
            *place = self.place(&answer, end)?;
        }
        self.finish(place, None, meter).await
    }

    /// Sends a part of the file, and says how far it is meanwhile.
    async fn stream(
        &self,
        call: Call,
        file: &Arc<File>,
        (offset, length): (u64, u64),
        meter: &mut Meter<'_>,
    ) -> Result<Answer, RequestError> {
        let (body, gone) = source::body(file, offset, length);
        let call = call
            .header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
            .header(CONTENT_LENGTH, length.into())
            .body(body);
        let sending = self.session.attempt(&call);
        tokio::pin!(sending);
        loop {
            // Cancel-safe: the request is polled on in the next round, the sleep starts anew.
            tokio::select! {
                answer = &mut sending => return answer,
                () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {
                    meter.reach(offset + gone.load(Ordering::Relaxed).min(length));
                }
            }
        }
    }

    /// Ends an upload, by a request that may carry the whole.
    async fn finish(
        &self,
        place: &Place,
        whole: Option<&Arc<File>>,
        meter: &mut Meter<'_>,
    ) -> Result<(), RequestError> {
        let mut call = Call::new(Method::PUT, place.url.clone(), self.what()).reach(place.reach).patient();
        call.url.query_pairs_mut().append_pair("digest", &self.digest.to_string());
        let answer = match whole {
            Some(file) => self.stream(call, file, (0, self.size), meter).await?,
            None => {
                self.session
                    .attempt(&call.header(CONTENT_LENGTH, HeaderValue::from_static("0")).body(Body::Empty))
                    .await?
            }
        };
        match answer.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT => Ok(()),
            _ => Err(answer.fail().await),
        }
    }

    /// Where an upload stands after a failure; `None` when it has to begin anew. A registry that
    /// has one byte and one that has none say the same (`0-0`), so that is none.
    async fn status(&self, place: &Place) -> Option<Place> {
        let call = Call::new(Method::GET, place.url.clone(), self.what()).reach(place.reach);
        let answer = self.session.attempt(&call).await.ok()?;
        if answer.status() != StatusCode::NO_CONTENT {
            return None;
        }
        let offset = confirmed(&answer).filter(|offset| (2..=self.size).contains(offset))?;
        self.place(&answer, offset).ok()
    }
}

/// The bytes that a registry says it has: `Range: 0-END`, END included.
fn confirmed(answer: &Answer) -> Option<u64> {
    let text = answer.header(&RANGE)?;
    let (start, end) = text.strip_prefix("bytes=").unwrap_or(text).split_once('-')?;
    if start != "0" {
        return None;
    }
    end.parse::<u64>().ok()?.checked_add(1)
}
