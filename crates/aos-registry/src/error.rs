//! Why a request to a registry fails.

use crate::bounds::{AUTHORIZATION_ROUNDS_MAX, REDIRECTS_MAX};
use crate::tls::TlsError;
use reqwest::StatusCode;
use std::time::Duration;
use thiserror::Error;

/// Why a request to a registry fails. `what` is what was asked for, such as ``the manifest `web:1.0.0` ``.
#[derive(Debug, Error)]
pub enum RequestError {
    /// The reference has no registry.
    #[error("`{0}` names no registry, expected HOST/NAME:TAG")]
    NoRegistry(String),
    /// The client cannot be set up for a host.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The HTTP library refuses the settings.
    #[error("no connection can be made to `{host}`")]
    Setup {
        /// The host.
        host: String,
        /// What it says.
        source: reqwest::Error,
    },
    /// No connection came about.
    #[error("cannot connect to `{host}`")]
    Connect {
        /// The host.
        host: String,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("the connection to `{host}` broke while {what} was transferred")]
    Broken {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// The answer ended too early.
    #[error("`{host}` ended {what} before its end")]
    Ended {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// Nothing, or next to nothing, came for long.
    #[error("`{host}` stalls: {what} did not go on for {} s", .idle.as_secs_f32())]
    Stalled {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// How long.
        idle: Duration,
    },
    /// The whole took too long.
    #[error("it took more than {} s", .0.as_secs_f32())]
    Total(Duration),
    /// The server sends elsewhere again and again.
    #[error("`{host}` redirects {what} more than {REDIRECTS_MAX} times")]
    Redirects {
        /// The first host.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// The server names a place that must not be used.
    #[error("`{host}` sends {what} to `{target}`, which is refused: {reason}")]
    Target {
        /// Who says so.
        host: String,
        /// What was asked for.
        what: String,
        /// Where to.
        target: String,
        /// Why not.
        reason: &'static str,
    },
    /// There is no credential, or it is not accepted.
    #[error("`{host}` asks for a login for {what}, and {problem}")]
    Unauthorized {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// What is wrong with what we have.
        problem: Problem,
    },
    /// The login may not do this.
    #[error("`{host}` denies {what}{message}")]
    Denied {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// The registry's words, escaped, after `: `; or nothing.
        message: String,
    },
    /// It is not there.
    #[error("{what} is not in `{host}`{message}")]
    NotFound {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// The registry's words, escaped, after `: `; or nothing.
        message: String,
    },
    /// Another answer than the ones that make sense.
    #[error("`{host}` answers {what} with {status}{message}")]
    Status {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// The status.
        status: StatusCode,
        /// The registry's words, escaped, after `: `; or nothing.
        message: String,
        /// How long it asks to wait.
        after: Option<Duration>,
    },
    /// The answer is larger than it may be.
    #[error("`{host}` sends more than {max} bytes for {what}")]
    TooLarge {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// The bound.
        max: u64,
    },
    /// The answer is not what the specification says.
    #[error("`{host}` answers {what} wrongly: {problem}")]
    Protocol {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// What is wrong.
        problem: String,
    },
}

/// What is wrong with our credentials.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// There are none.
    #[error("there are no credentials for it: log in with `docker login` or `skopeo login`")]
    None,
    /// They are in a helper, or may be.
    #[error(
        "its credentials are kept by the program docker-credential-{0}, which is not executed: put them into the file itself"
    )]
    Helper(String),
    /// They are not accepted.
    #[error("the credentials are not accepted")]
    Refused,
    /// They are accepted by the token service, and its tokens are not.
    #[error("it still does after {AUTHORIZATION_ROUNDS_MAX} rounds of credentials")]
    Rounds,
    /// The kind of login is not one that is known.
    #[error("offers no kind of login that is known (Basic, Bearer)")]
    Challenge,
    /// The token service must not get the credentials.
    #[error("sends to a token service that is refused: {0}")]
    Realm(String),
}

impl RequestError {
    /// True when what was asked for is not there.
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// True when the same request may succeed later.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Broken { .. } | Self::Ended { .. } | Self::Stalled { .. } => true,
            Self::Status { status, .. } => matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }
}
