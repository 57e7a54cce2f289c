//! What a build is asked for.

use crate::run::{Cancel, LAUNCHER, Secret};
use aos_core::agentfile::{Arguments, SecretName};
use aos_core::id::{PackageName, Version};
use aos_core::lock::Lockfile;
use aos_package::layer::write::Compression;
use aos_package::oci::host_architecture;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where Debian roots come from when nothing else is said.
pub const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";

/// What is to be built.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The directory that files are copied from.
    pub directory: &'a Path,
    /// The Agentfile; `None` takes the one in the directory.
    pub agentfile: Option<&'a Path>,
    /// Values of build arguments, over the file's own.
    pub arguments: Arguments,
    /// The package's name, over that of the file.
    pub name: Option<PackageName>,
    /// The package's version, over that of the file.
    pub version: Option<Version>,
    /// The lock; `None` takes `Agentfile.lock` in the directory, if there is one.
    pub lock: Option<Lockfile>,
    /// Everything else.
    pub options: Options,
}

impl<'a> Request<'a> {
    /// Builds a directory as it is.
    pub fn new(directory: &'a Path, options: Options) -> Self {
        Self {
            directory,
            agentfile: None,
            arguments: Arguments::new(),
            name: None,
            version: None,
            lock: None,
            options,
        }
    }
}

/// Whether layers of earlier builds are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheUse {
    /// They are.
    #[default]
    Use,
    /// Every step is made anew; what it makes is kept for later builds.
    Ignore,
}

/// How a build is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// Seconds since 1970 that all times in the package get (`SOURCE_DATE_EPOCH`); 0 if unset.
    pub source_date_epoch: u64,
    /// The architecture in Go's names, usually [`host_architecture`].
    pub architecture: String,
    /// How layers are compressed.
    pub compression: Compression,
    /// Whether layers of earlier builds are used.
    pub cache: CacheUse,
    /// Stages at once, and threads for hashing and compressing.
    pub threads: NonZeroUsize,
    /// The time at which the build was asked for, before anything of the directory was read.
    pub started: SystemTime,
    /// The mirror of `from: debian`: `http:`, `https:`, `file:` or `copy:`.
    pub mirror: String,
    /// Variables for mmdebstrap, such as `http_proxy`; it gets no others.
    pub debian_environment: BTreeMap<String, String>,
    /// The program that confines run steps.
    pub launcher: PathBuf,
    /// Values of the secrets that run steps name.
    pub secrets: BTreeMap<SecretName, Secret>,
    /// Ends the build when set.
    pub cancel: Cancel,
}

impl Options {
    /// The usual ones, at a time that the caller has read from its clock.
    pub fn at(started: SystemTime) -> Self {
        Self {
            source_date_epoch: 0,
            architecture: host_architecture().to_owned(),
            compression: Compression::default(),
            cache: CacheUse::default(),
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            started,
            mirror: DEFAULT_MIRROR.to_owned(),
            debian_environment: BTreeMap::new(),
            launcher: PathBuf::from(LAUNCHER),
            secrets: BTreeMap::new(),
            cancel: Cancel::default(),
        }
    }
}
