//! Debian roots: made by mmdebstrap, normalised into one layer.
//!
//! mmdebstrap verifies the archive's signatures and writes a tar, which is read as it comes: what
//! tells of the machine or the day is left out (see [`tarball`]), names are sorted, numeric owners
//! kept. Files keep their times as far as these are not after `SOURCE_DATE_EPOCH`.
//!
//! A root is cached by suite, packages and mirror, and noted with the digest of the release file
//! that it was made from: it stays the same until it is made anew (`--no-cache`), however often
//! Debian changes.

mod bootstrap;
mod tarball;

use crate::builder::{Builder, Current, step_key};
use crate::cache::StepRecord;
use crate::error::BuildError;
use crate::layer::{self, Sources};
use crate::made::Made;
use crate::options::Options;
use crate::progress::Event;
use crate::tarball::TarballError;
use aos_core::agentfile::{DebianPackage, Settings, Suite};
use aos_core::config::RootKind;
use aos_core::id::Digest;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use thiserror::Error;

/// Why a Debian root cannot be made.
#[derive(Debug, Error)]
pub enum DebianError {
    /// mmdebstrap is not installed.
    #[error("mmdebstrap is not on this machine, `from: debian` needs it: apt install mmdebstrap")]
    Missing,
    /// mmdebstrap cannot be started.
    #[error("cannot start mmdebstrap")]
    Start(#[source] io::Error),
    /// It failed.
    #[error("mmdebstrap failed ({status}): {said}")]
    Failed {
        /// Its exit status in words.
        status: String,
        /// The last lines that it wrote.
        said: String,
    },
    /// What it wrote is no tar, or has something that no package can have.
    #[error("cannot use what mmdebstrap makes")]
    Tarball(#[from] TarballError),
    /// It did not say which release it used.
    #[error("mmdebstrap left no release file of the suite")]
    NoRelease,
    /// The mirror is no address of one.
    #[error("mirror {0:?} is not valid, expected one that starts with http://, https://, file:/ or copy:/")]
    Mirror(String),
    /// The architecture is none of Debian's.
    #[error("Debian has no architecture {0}")]
    Architecture(String),
    /// A file for it cannot be made.
    #[error("cannot write temporary files in `{}`", .directory.display())]
    Scratch {
        /// The directory.
        directory: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// Debian's name of an architecture that Go calls otherwise.
fn architecture(go: &str) -> Result<&'static str, DebianError> {
    Ok(match go {
        "amd64" => "amd64",
        "arm64" => "arm64",
        "386" => "i386",
        "arm" => "armhf",
        "ppc64le" => "ppc64el",
        "riscv64" => "riscv64",
        "s390x" => "s390x",
        "loong64" => "loong64",
        other => return Err(DebianError::Architecture(other.to_owned())),
    })
}

/// What a root is made from.
pub(crate) struct Wanted<'a> {
    suite: &'a str,
    /// Sorted, each once.
    packages: Vec<&'a str>,
    options: &'a Options,
}

impl Wanted<'_> {
    fn key(&self) -> Digest {
        step_key("debian", self.options)
            .text(self.suite)
            .list(&self.packages, |key, package| key.text(package))
            .text(&self.options.mirror)
            .finish()
    }
}

impl Builder<'_> {
    fn wanted<'w>(&'w self, suite: &'w Suite, packages: &'w [DebianPackage]) -> Wanted<'w> {
        let mut packages: Vec<&str> = packages.iter().map(DebianPackage::as_str).collect();
        packages.sort_unstable();
        packages.dedup();
        Wanted { suite: suite.as_str(), packages, options: self.options }
    }

    /// The key of a root.
    pub(crate) fn debian_key(&self, suite: &Suite, packages: &[DebianPackage]) -> Digest {
        self.wanted(suite, packages).key()
    }

    /// The Debian root of a suite with these packages.
    pub(crate) fn debian(
        &self,
        suite: &Suite,
        packages: &[DebianPackage],
        current: &Current<'_>,
    ) -> Result<Made, BuildError> {
        let wanted = self.wanted(suite, packages);
        let key = wanted.key();
        self.steps.fetch_add(1, Ordering::Relaxed);
        let known = self.cached_step(&key);
        let (layer, listing, release) = match known.and_then(|record| Some((record.layer?, record.note?))) {
            Some((layer, release)) => {
                self.cached.fetch_add(1, Ordering::Relaxed);
                self.progress.event(&current.name, Event::Cached { bytes: layer.blob.size });
                let listing = self.listing(&layer)?;
                (layer, listing, release)
            }
            None => {
                self.progress.event(&current.name, Event::Started);
                let (written, release) = self.bootstrap(&wanted, current)?;
                let layer = written.layer.clone();
                self.keep_listing(&layer, &written.listing)?;
                let title = current.name.to_string();
                self.keep(&key, &StepRecord { title, layer: Some(layer.clone()), note: Some(release) })?;
                let (bytes, took) = (layer.blob.size, current.took());
                self.progress.event(&current.name, Event::Done { bytes, took });
                (layer, written.listing, release)
            }
        };
        self.materials.base(format!("debian:{suite}"), release);
        Ok(Made::base(RootKind::Own, Settings::default(), vec![(layer, listing)]))
    }

    fn bootstrap(
        &self,
        wanted: &Wanted<'_>,
        current: &Current<'_>,
    ) -> Result<(layer::WrittenLayer, Digest), BuildError> {
        let said = |line: &str| self.progress.event(&current.name, Event::Output(line));
        let directory = self.lease.directory();
        let mut root = bootstrap::run(wanted, directory, &self.options.cancel, &said)?;
        layer::sort(&mut root.items);
        let total = layer::bytes_of(root.items.iter().map(|planned| &planned.item));
        let progress = |done| self.progress.event(&current.name, Event::Bytes { done, total });
        let sources = Sources { spool: Some(&root.contents), ..Sources::default() };
        let written = layer::write(root.items, &sources, self.options, self.lease, &progress)?;
        Ok((written, root.release))
    }
}
