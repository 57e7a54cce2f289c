//! The registry client: packages to and from OCI registries and directories.
//!
//! ```text
//! Client           settings and connections; pull, push, tags, resolve
//!   pull, push     one operation: blobs in parallel, manifests, attachments
//!   referrers      what is attached to a manifest: the API, and the fallback tag
//!   session        requests to one repository: authorised, and tried again
//!   transport      one request: where it may go, redirects, time-outs, bounded bodies
//! layout           the same over a directory
//! ```
//!
//! It is the one crate of packages that has the network. It executes nothing, reads no
//! environment, and stores through [`aos_package::repository`] only. What a registry says is
//! untrusted: every body, wait, redirect and repetition is bounded ([`bounds`]), everything has
//! the digest that it was asked for by, and a registry's own words are shown escaped.

mod address;
mod blocking;
pub mod bounds;
mod challenge;
mod credentials;
mod entries;
mod error;
pub mod layout;
mod manifest;
mod options;
mod origin;
mod pages;
mod progress;
mod pull;
mod push;
mod referrers;
mod retry;
mod session;
mod shown;
mod tls;
mod transport;

pub use credentials::{Credential, CredentialsError, DockerConfig, Secret};
pub use error::{Problem, RequestError};
pub use options::{Options, PlainHttp, Retries, Timeouts};
pub use progress::{Progress, Silent};
pub use pull::{PullError, Pulled};
pub use push::{PushError, Pushed};
pub use tls::TlsError;

use transport::Transport;

/// A client of registries. Cloning shares its connections; all methods are async and need a tokio
/// runtime with timers, I/O and threads for blocking work.
#[derive(Clone)]
pub struct Client {
    transport: Transport,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// A client with these settings. Nothing is read or connected yet.
    pub fn new(options: Options) -> Self {
        Self { transport: Transport::new(options) }
    }
}
