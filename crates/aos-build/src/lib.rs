//! The build engine: from an Agentfile and a directory to a package in the store.
//!
//! [`build()`] makes the package of a directory in a [`Repository`](aos_package::repository): a
//! manifest, a config and a layer for each step that changes files. [`plan()`] says what it would
//! do. What comes from outside (images, packages, dependencies) is brought by [`Bases`], since
//! nothing here uses the network; only `aos-launch` and mmdebstrap are executed.
//!
//! The package depends on the Agentfile, on names, contents, executable bits and link targets of
//! the files that it copies, on its bases, and on the time, architecture and compression of
//! [`Options`]; not on who builds, where, when, in which order the file system lists files, with
//! how many cores, or with which umask.
//!
//! | module | owns |
//! |---|---|
//! | `context` | the directory: listing and hashing it, `.aosignore`, digests of unchanged files |
//! | `load` | the Agentfile with what it extends, and its lock |
//! | `schedule`, `builder` | stages at once, steps in order |
//! | `copy`, `step_run`, `debian`, `base` | what steps and bases make |
//! | `layer`, `trees`, `merge` | layers: written, unpacked, made fewer |
//! | `scan`, `tarball`, `foreign` | layers and tars that others made |
//! | `cache` | what earlier builds left |
//! | `key` | what results are found by |
//! | [`run`] | one program in the launcher's sandbox |
//!
//! On disk everything is in the store's directory: blobs by its rules, and `cache` (see
//! [`Cache`]). A build that is killed leaves garbage at most.

mod base;
mod bases;
mod builder;
mod cache;
mod context;
mod copy;
mod debian;
mod engine;
mod entrypoint;
mod error;
pub mod extend;
mod foreign;
mod key;
mod layer;
mod load;
mod made;
mod materials;
mod merge;
mod options;
mod place;
mod plan;
mod progress;
mod reproducible;
pub mod run;
mod scan;
mod schedule;
mod spool;
mod step_run;
mod tarball;
mod title;
mod tree;
mod trees;

pub use bases::{BaseError, Bases, Local, Wanted};
pub use cache::{Cache, CacheEntry, CacheError, EntryKind, Prune, Pruned};
pub use debian::DebianError;
pub use engine::{Built, Files, build};
pub use error::BuildError;
pub use materials::{BUILDER_VERSION, BaseMaterial, Materials};
pub use options::{CacheUse, DEFAULT_MIRROR, Options, Request};
pub use plan::{Plan, PlannedStage, PlannedStep, StepState, plan};
pub use progress::{Event, Progress, Silent, StepName};
pub use reproducible::{Comparison, Difference, ReproduceError, check_reproducible};
pub use tarball::TarballError;
