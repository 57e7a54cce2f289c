//! An answer: its status, its headers, and its body in bounded pieces.

use super::Reach;
use super::stall::Pace;
use crate::bounds::{ERROR_BODY_MAX, URL_MAX};
use crate::error::RequestError;
use crate::origin::Origin;
use crate::shown::shown;
use bytes::Bytes;
use reqwest::header::{HeaderName, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use std::time::Duration;

/// A response whose body has not been read yet.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(super) response: reqwest::Response,
    /// Who answers.
    pub(crate) origin: Origin,
    /// True when that is who was asked, not somebody it redirected to.
    pub(crate) at_home: bool,
    /// Where who answers may send us.
    pub(crate) reach: Reach,
    pub(super) what: String,
    pub(super) idle: Duration,
}

/// The error's body by the distribution specification.
#[derive(Deserialize)]
struct Errors {
    errors: Vec<One>,
}

#[derive(Deserialize)]
struct One {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// A header that is text, if it is there.
    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// All values of a header that are text.
    pub(crate) fn headers(&self, name: &HeaderName) -> impl Iterator<Item = &str> {
        self.response.headers().get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// The URL in a header, relative to the answer's own.
    pub(crate) fn url(&self, name: HeaderName) -> Result<Url, RequestError> {
        let text = self.header(&name).ok_or_else(|| self.wrong(format!("it has no {name}")))?;
        self.join(text).ok_or_else(|| self.wrong(format!("its {name} is not an address: {}", shown(text))))
    }

    /// An address relative to the answer's own.
    pub(crate) fn join(&self, target: &str) -> Option<Url> {
        if target.len() > URL_MAX { None } else { self.response.url().join(target).ok() }
    }

    pub(crate) fn content_length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// An answer that the specification does not allow.
    pub(crate) fn wrong(&self, problem: String) -> RequestError {
        RequestError::Protocol { host: self.origin.authority(), what: self.what.clone(), problem }
    }

    /// The body as a stream of pieces.
    pub(crate) fn into_stream(self) -> Pieces {
        Pieces { pace: Pace::new(self.idle), answer: self }
    }

    /// The whole body, of at most `max` bytes.
    pub(crate) async fn bytes(self, max: u64) -> Result<Vec<u8>, RequestError> {
        let too_large =
            RequestError::TooLarge { host: self.origin.authority(), what: self.what.clone(), max };
        if self.content_length().is_some_and(|length| length > max) {
            return Err(too_large);
        }
        let mut body = Vec::new();
        let mut pieces = self.into_stream();
        while let Some(piece) = pieces.next().await? {
            if (body.len() + piece.len()) as u64 > max {
                return Err(too_large);
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// Turns an answer that is not the expected one into an error.
    pub(crate) async fn fail(self) -> RequestError {
        let (status, host, what) = (self.status(), self.origin.authority(), self.what.clone());
        let after =
            self.header(&RETRY_AFTER).and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let message = self.message().await;
        match status {
            StatusCode::NOT_FOUND => RequestError::NotFound { host, what, message },
            StatusCode::FORBIDDEN => RequestError::Denied { host, what, message },
            _ => RequestError::Status { host, what, status, message, after },
        }
    }

    /// The registry's own words. A body that cannot be read says nothing.
    async fn message(mut self) -> String {
        let mut body = Vec::new();
        let deadline = tokio::time::Instant::now() + self.idle;
        while let Ok(Ok(Some(piece))) = tokio::time::timeout_at(deadline, self.response.chunk()).await {
            body.extend_from_slice(&piece);
            if body.len() as u64 >= ERROR_BODY_MAX {
                break;
            }
        }
        let text = match serde_json::from_slice::<Errors>(&body) {
            Ok(Errors { errors }) => errors
                .iter()
                .map(|one| if one.message.is_empty() { one.code.clone() } else { one.message.clone() })
                .collect::<Vec<_>>()
                .join("; "),
            Err(_) => String::from_utf8_lossy(&body).trim().to_owned(),
        };
        if text.is_empty() { text } else { format!(": {}", shown(&text)) }
    }
}

/// The pieces of a body.
#[derive(Debug)]
pub(crate) struct Pieces {
    answer: Answer,
    pace: Pace,
}

impl Pieces {
    /// The next piece; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, RequestError> {
        let Self { answer, pace } = self;
        let (host, what) = (answer.origin.authority(), answer.what.clone());
        match pace.next(answer.response.chunk()).await {
            Some(Ok(piece)) => {
                pace.came(piece.as_ref().map_or(0, |piece| piece.len() as u64));
                Ok(piece)
            }
            Some(Err(source)) => Err(RequestError::Broken { host, what, source: source.without_url() }),
            None => Err(RequestError::Stalled { host, what, idle: answer.idle }),
        }
    }

    /// More came than there should be.
    pub(crate) fn too_large(&self, max: u64) -> RequestError {
        RequestError::TooLarge { host: self.answer.origin.authority(), what: self.answer.what.clone(), max }
    }

    /// The body ended, and there should be more.
    pub(crate) fn ended(&self) -> RequestError {
        RequestError::Ended { host: self.answer.origin.authority(), what: self.answer.what.clone() }
    }
}
