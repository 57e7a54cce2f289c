//! Builds a package from a directory with an Agentfile.
//!
//! The result depends on the Agentfile, on names, contents, executable bits and link targets of
//! the files, and on [`BuildOptions`]; not on who builds, where, when, in which order the file
//! system lists files, or with which umask. Nothing is executed.
//!
//! Rules of copying, for `copy` steps and for the whole directory when there is no `build`:
//! - `.aosignore` at the top of the directory, in gitignore syntax, leaves files out, and whatever
//!   is below a directory that it leaves out; so are entries named `.git` anywhere, and at the top
//!   the Agentfile, `.aosignore` and archives (`*.aap`).
//! - Symbolic links are copied as links and never followed, neither on the way to a source.
//! - A later file replaces an earlier one; a file and a directory of one name are an error.

mod context;
mod entrypoint;
mod pack;
mod tree;

use crate::archive::{self, ArchiveError, BlobSource};
use crate::hashing::digest_of;
use crate::oci::{self, CONFIG_TYPE, MANIFEST_TYPE, Manifest, OciError, PackageConfig};
use aos_core::agentfile::{Agentfile, AgentfileError};
use aos_core::config::ResolvedAgent;
use aos_core::id::{Digest, PackageRef};
use context::Context;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The last second that a tar header's eleven octal digits hold (in the year 2242).
const EPOCH_MAX: u64 = 0o77_777_777_777;

/// What a build depends on beside the directory.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Seconds since 1970 that all times in the package get (`SOURCE_DATE_EPOCH`); 0 if unset.
    pub source_date_epoch: u64,
    /// The architecture in Go's names, usually [`oci::host_architecture`].
    pub architecture: String,
    /// A directory for temporary files, as large as the package.
    pub scratch: PathBuf,
}

/// A package that was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// Its name and version.
    pub reference: PackageRef,
    /// The digest of its manifest.
    pub digest: Digest,
    /// What it carries.
    pub agent: ResolvedAgent,
    /// Its files and directories.
    pub entries: usize,
    /// Why no start on this machine would succeed, each with file, line and field. They are no part
    /// of the package: another version of AOS, or another machine, may think otherwise.
    pub obstacles: Vec<AgentfileError>,
}

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
    /// The Agentfile or `.aosignore` cannot be taken as text.
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
    /// The layer cannot be written.
    #[error("cannot write temporary files in `{}`", .directory.display())]
    Scratch {
        /// The directory.
        directory: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The image's JSON cannot be made.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// The archive cannot be written.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// Finds and parses the Agentfile of a directory.
pub fn read_agentfile(directory: &Path) -> Result<Agentfile, BuildError> {
    Context::open(directory)?.agentfile()
}

/// Builds the package of a directory and writes its archive to `output`. After an error, `output`
/// holds nothing of use.
pub fn build(directory: &Path, options: &BuildOptions, output: impl Write) -> Result<Built, BuildError> {
    if options.source_date_epoch > EPOCH_MAX {
        return Err(BuildError::Epoch(options.source_date_epoch));
    }
    let context = Context::open(directory)?;
    let agentfile = context.agentfile()?;
    let agent = agentfile.resolve()?;
    let tree = tree::of_package(&context, &agentfile)?;
    let program = entrypoint::check(&agentfile, &agent, &tree)?;
    let mut obstacles = agentfile.not_enforceable();
    obstacles.extend(program.and_then(|program| entrypoint::check_host(&agentfile, &program)));
    let layer = pack::layer(&context, &tree, options)?;

    let package =
        PackageConfig { agent, diff_ids: vec![layer.diff_id], architecture: options.architecture.clone() };
    let config = package.to_json(options.source_date_epoch)?;
    let manifest =
        Manifest::new(oci::describe(CONFIG_TYPE, &config), vec![layer.descriptor.clone()]).to_json()?;
    let descriptor = oci::describe(MANIFEST_TYPE, &manifest);
    let reference = package.agent.reference();
    let blobs = BTreeMap::from([
        (layer.descriptor.digest, (layer.descriptor.size, BlobSource::File(layer.file))),
        (digest_of(&config), (config.len() as u64, BlobSource::Bytes(config))),
        (descriptor.digest, (descriptor.size, BlobSource::Bytes(manifest))),
    ]);
    archive::write(output, &reference.to_string(), &descriptor, blobs)?;
    Ok(Built { reference, digest: descriptor.digest, agent: package.agent, entries: tree.len(), obstacles })
}
