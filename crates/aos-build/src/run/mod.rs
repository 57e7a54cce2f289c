//! Executes one build step inside `aos-launch`, confined, and hands back what it changed.
//!
//! A step sees a writable union: the given lower directories (never changed) and an upper directory
//! that [`execute`] makes below [`RunRequest::scratch`]. It has no network but a proxy to the
//! declared endpoints, no secret but the declared ones, and no user but an unprivileged one: uid 0
//! inside is the caller, or [`Account::of_process`]'s dedicated uid when the caller is root.
//!
//! | module | owns |
//! |---|---|
//! | [`account`](Account) | the user that steps run as, who must own lower directories and caches |
//! | `scratch` | upper and work directory, removed on every path |
//! | `launch` | what the launcher is given, and what its end means |
//! | `watch` | what is heard of a running step |
//! | `output` | lines of the step's output, bounded and without control characters |
//! | `proxy` | the way to the declared endpoints, and to no other |
//! | `changes` | the upper directory as entries of a layer |
//!
//! Concurrency: [`execute`] blocks its thread and may be called from several at once; it has its
//! own threads for the output, the proxy and the wait, all of which end before it returns.
//!
//! On disk, below [`RunRequest::scratch`] and until the [`Changes`] are dropped:
//! `step-<random>/{upper,work}`, mode 0700 and owned by the account, so that no set-user-id file of a
//! running step is in anybody's reach.

mod account;
mod changes;
mod endpoint;
mod error;
mod launch;
mod output;
mod prepare;
mod proxy;
mod scratch;
mod settle;
mod walk;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aos_core::config::RootKind;
use aos_core::path::AbsolutePath;
use zeroize::Zeroizing;

pub use account::Account;
pub use changes::{Change, ChangeKind, Changes, ChangesError, Entries};
pub use endpoint::{Endpoint, EndpointError, Host};
pub use error::RunError;
pub use output::{Output, Stream};
pub use proxy::request as proxy_request;
pub use scratch::remove as remove_tree;

/// Everything about one step.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// The program `aos-launch`; installed, it is [`LAUNCHER`].
    pub launcher: PathBuf,
    /// Whose `/usr` the step sees: the host's, read-only, or that of the lower directories.
    pub root: RootKind,
    /// The unpacked layers that the step builds on, the topmost first, absolute and without
    /// symbolic links; none for `from: scratch`. Each may be the upper directory of an earlier
    /// step: deletions in them are overlayfs's (character device 0/0, `user.overlay.opaque`). All
    /// in them belongs to [`Account::of_process`].
    pub lower: Vec<PathBuf>,
    /// The arguments; a program without `/` is looked up in `PATH`, inside.
    pub command: Vec<String>,
    /// Variables, over those that every step has (`PATH`, `HOME`, `LANG`, ...). No secret.
    pub env: BTreeMap<String, String>,
    /// The working directory, which is there.
    pub workdir: AbsolutePath,
    /// What the step may reach; empty is offline.
    pub net: Vec<Endpoint>,
    /// Directories that outlive the step and are in no layer.
    pub caches: Vec<CacheMount>,
    /// Files at `/run/secrets/NAME`.
    pub secrets: Vec<Secret>,
    /// When the step is ended, with all that it started.
    pub timeout: Duration,
    /// An existing directory for the upper directory, on the file system of the build. The account
    /// can search every directory on the way to it, to the lower directories and to the caches.
    pub scratch: PathBuf,
    /// Ends the step when set, as the time-out does.
    pub cancel: Cancel,
}

/// Where the package installs the launcher.
pub const LAUNCHER: &str = "/usr/libexec/aos/aos-launch";

/// One cache mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMount {
    /// Where it is inside.
    pub path: AbsolutePath,
    /// The existing directory of the cache on the host. It is made mode 0700, and the step sees the
    /// directory `files` in it: what a step leaves there is in no other user's reach.
    pub directory: PathBuf,
}

/// A secret: in a file in memory while the step runs, in nothing else.
#[derive(Clone)]
pub struct Secret {
    /// The file's name below `/run/secrets`: letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// The content, at most 64 KiB.
    pub value: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A switch that ends running steps. Clones are the same switch.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends every step that has this switch.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it is set.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Runs the step to its end and returns what it changed. `on_output` gets every line of its output
/// as it comes, and what the proxy refused, on this thread; what was left out of the changes is in
/// [`Changes::notes`].
///
/// A step that ends with a status other than 0 is [`RunError::Failed`]; one that was not started,
/// since a layer of its confinement cannot be had, is [`RunError::Confinement`].
pub fn execute(request: &RunRequest, on_output: &mut dyn FnMut(Output<'_>)) -> Result<Changes, RunError> {
    launch::execute(request, on_output)
}
