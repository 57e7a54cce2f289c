//! What the caller decides about the client: credentials, certificates, plain HTTP, time-outs.

use crate::bounds;
use crate::credentials::DockerConfig;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of a client. The default has no credentials, trusts the system's certificates and
/// speaks plain HTTP to this machine only.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whom to log in as, by registry.
    pub credentials: DockerConfig,
    /// Directories with a directory `HOST[:PORT]` for each registry that has certificates of its
    /// own: `*.crt` are certificate authorities, `NAME.cert` with `NAME.key` a client's
    /// (<https://docs.docker.com/engine/security/certificates/>).
    pub certificates: Vec<PathBuf>,
    /// Whom to speak plain HTTP to.
    pub plain_http: PlainHttp,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// How often to try again.
    pub retries: Retries,
    /// Blobs that are transferred at once.
    pub parallel: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            credentials: DockerConfig::default(),
            certificates: ["/etc/docker/certs.d", "/etc/containers/certs.d"].map(PathBuf::from).into(),
            plain_http: PlainHttp::default(),
            timeouts: Timeouts::default(),
            retries: Retries::default(),
            parallel: 4,
        }
    }
}

/// Whom to speak plain HTTP to. `localhost`, 127.0.0.0/8 and `[::1]` are always spoken to without
/// TLS, unless they have a directory of certificates; every other host with TLS, unless named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlainHttp {
    hosts: BTreeSet<String>,
}

impl PlainHttp {
    /// Loopback, and these registries (`HOST` for its every port, or `HOST:PORT`).
    pub fn also<I: IntoIterator<Item = S>, S: Into<String>>(hosts: I) -> Self {
        Self { hosts: hosts.into_iter().map(|host| host.into().to_ascii_lowercase()).collect() }
    }

    pub(crate) fn names(&self, host: &str, authority: &str) -> bool {
        self.hosts.contains(host) || self.hosts.contains(authority)
    }
}

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, with TLS.
    pub connect: Duration,
    /// For the headers of a response, and for a KiB of its body: a peer that is slower stalls.
    pub idle: Duration,
    /// For a whole pull or push. What has arrived by then stays, and the next pull goes on.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            idle: Duration::from_secs(30),
            // 16 GiB at 20 Mbit/s.
            total: Duration::from_secs(2 * 60 * 60),
        }
    }
}

/// How often to try again after a failure that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Attempts in all.
    pub attempts: u32,
    /// Wait before the second attempt; it doubles from there on.
    pub first: Duration,
    /// Longest wait that a registry may ask for.
    pub asked_max: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: bounds::ATTEMPTS_MAX,
            first: bounds::BACKOFF_FIRST,
            asked_max: bounds::RETRY_AFTER_MAX,
        }
    }
}
