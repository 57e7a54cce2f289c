//! Why a package cannot be built.

use crate::bases::BaseError;
use crate::run::{ChangesError, RunError};
use crate::tarball::TarballError;
use aos_core::agentfile::AgentfileError;
use aos_core::id::Digest;
use aos_package::layer::LayerError;
use aos_package::layer::write::WriteError;
use aos_package::oci::OciError;
use aos_package::repository::{BlobError, RepositoryError, TagError};
use aos_package::unpack::UnpackError;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// The last second that a tar header's eleven octal digits hold (in the year 2242).
pub(crate) const EPOCH_MAX: u64 = 0o77_777_777_777;

/// Why a package cannot be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The Agentfile is wrong, or does not fit the files.
    #[error(transparent)]
    Agentfile(#[from] AgentfileError),
    /// There is no Agentfile.
    #[error("no Agentfile in `{}`, expected one of {expected}", .directory.display())]
    NoAgentfile {
        /// The directory.
        directory: PathBuf,
        /// The names looked for.
        expected: String,
    },
    /// There are several Agentfiles.
    #[error("`{}` has both `{first}` and `{second}`: keep one", .directory.display())]
    TwoAgentfiles {
        /// The directory.
        directory: PathBuf,
        /// One of them.
        first: &'static str,
        /// Another.
        second: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The Agentfile, its lock or `.aosignore` cannot be taken as text.
    #[error("{}: {reason}", .path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file changed between being listed and being read.
    #[error("`{0}` changed while it was read: build again")]
    Changed(String),
    /// A file cannot be part of a package.
    #[error("`{path}` cannot be packed: {reason}")]
    Unfit {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// A line of `.aosignore` is wrong.
    #[error(".aosignore:{line}: {message}")]
    Ignore {
        /// The line.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// The time does not fit into a package.
    #[error("SOURCE_DATE_EPOCH is {0}, at most {EPOCH_MAX} is allowed")]
    Epoch(u64),
    /// The build was cancelled.
    #[error("the build was cancelled")]
    Cancelled,
    /// A step failed.
    #[error("{place}: [{stage} {number}/{of}] {title} failed")]
    Step {
        /// The file, line and column.
        place: String,
        /// The stage.
        stage: String,
        /// The step, counted from 1.
        number: usize,
        /// The stage's steps.
        of: usize,
        /// What it does.
        title: String,
        /// Why.
        source: Box<BuildError>,
    },
    /// A run step failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// What a run step changed cannot be read.
    #[error(transparent)]
    Changes(#[from] ChangesError),
    /// A base, a dependency or a parent cannot be had.
    #[error("cannot get `{wanted}`")]
    Base {
        /// What is wanted.
        wanted: String,
        /// Why not.
        source: BaseError,
    },
    /// What was brought is not what the lock says.
    #[error("`{wanted}` is {found}, Agentfile.lock says {locked}: run `aos lock`")]
    Locked {
        /// What is wanted.
        wanted: String,
        /// What there is.
        found: Digest,
        /// What there should be.
        locked: Digest,
    },
    /// An image or package cannot be what it is wanted for.
    #[error("`{wanted}` cannot be used: {reason}")]
    Image {
        /// The image.
        wanted: String,
        /// Why not.
        reason: String,
    },
    /// A Debian root cannot be made.
    #[error(transparent)]
    Debian(#[from] crate::debian::DebianError),
    /// A layer cannot be written.
    #[error(transparent)]
    Layer(#[from] WriteError),
    /// A layer cannot be read.
    #[error("the layer {digest} is refused")]
    Refused {
        /// The layer.
        digest: Digest,
        /// Why.
        source: LayerError,
    },
    /// A layer of another tool cannot be written anew.
    #[error("the layer {digest} cannot be used")]
    Foreign {
        /// The layer.
        digest: Digest,
        /// Why not.
        source: TarballError,
    },
    /// Layers cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The image's JSON cannot be made.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// The cache cannot be used.
    #[error("cannot use the build cache in `{}`", .directory.display())]
    Cache {
        /// The cache.
        directory: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A blob cannot be written or read.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The package cannot be given its name.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// A mistake of this program.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

impl BuildError {
    /// The error with its causes, on one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}
