//! What went into a package: for the provenance statement and the list of software.

use crate::key::Key;
use crate::layer::Planned;
use crate::tree::{Entry, Item, Node};
use aos_core::id::Digest;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// What the version of the builder is, as provenance has it.
pub const BUILDER_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Something from elsewhere that a package was made from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct BaseMaterial {
    /// Its name, as the Agentfile has it: `debian:trixie`, `aap:base:1.0.0`, `skill pdf`.
    pub name: String,
    /// The digest of its manifest; of a Debian suite, that of its release file.
    pub digest: Digest,
}

/// What went into a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Materials {
    /// Bases and dependencies, sorted.
    pub bases: Vec<BaseMaterial>,
    /// A digest of all files of the directory that were copied, with their paths in the package. It
    /// does not depend on where the directory is.
    pub context: Digest,
    /// How many files these are.
    pub context_files: usize,
    /// The digest of the Agentfile's text.
    pub agentfile: Digest,
    /// The build arguments that were given, by name, with their values.
    pub arguments: BTreeMap<String, String>,
    /// The names of the secrets that steps had. Their values are in nothing.
    pub secrets: BTreeSet<String>,
    /// The commit that the directory was at, when it is in a git repository; changes that were not
    /// committed do not show in it.
    pub source_revision: Option<String>,
    /// The version of this crate.
    pub builder_version: String,
    /// The architecture, in Go's names.
    pub architecture: String,
    /// `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub source_date_epoch: u64,
}

/// What stages collect while they are built, in any order.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    bases: Mutex<BTreeSet<BaseMaterial>>,
    /// The keys of copies of the directory's files, each with the number of files.
    copies: Mutex<BTreeMap<Digest, usize>>,
}

impl Collected {
    pub(crate) fn base(&self, name: String, digest: Digest) {
        self.bases.lock().unwrap_or_else(PoisonError::into_inner).insert(BaseMaterial { name, digest });
    }

    /// Notes a step that copies files of the directory: its key covers their paths in the package
    /// and their contents.
    pub(crate) fn copy(&self, key: Digest, items: &[Planned]) {
        let is_file =
            |planned: &&Planned| matches!(&planned.item, Item::Entry(Entry { node: Node::File { .. }, .. }));
        let files = items.iter().filter(is_file).count();
        self.copies.lock().unwrap_or_else(PoisonError::into_inner).insert(key, files);
    }

    /// The bases, and the digest and number of the files.
    pub(crate) fn finish(self) -> (Vec<BaseMaterial>, Digest, usize) {
        let bases = self.bases.into_inner().unwrap_or_else(PoisonError::into_inner);
        let copies = self.copies.into_inner().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<&Digest> = copies.keys().collect();
        let digest = Key::of("context").list(&keys, |key, digest| key.digest(digest)).finish();
        (bases.into_iter().collect(), digest, copies.values().sum())
    }
}
