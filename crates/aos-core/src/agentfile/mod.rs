//! The Agentfile: what a person writes to describe an agent, a skill or an MCP server, in YAML, JSON
//! or TOML.
//!
//! One schema for the three formats. Unknown fields, duplicate keys and fields that this version
//! does not enforce are errors; an error names the file, the line, the column, the field and what
//! is expected. Text becomes an [`Agentfile`] in three steps, each of which can fail in its own way:
//!
//! 1. `tree` reads a format into a tree whose nodes know their places;
//! 2. a [`Draft`] is one file, checked field by field; the values of `build.stages` wait, since what
//!    `${NAME}` stands for and which stages there are depends on parents and arguments;
//! 3. a [`Lineage`] joins a draft with the parents that it extends, which the caller loads, and
//!    [`Lineage::finish`] substitutes the arguments, decodes the stages and checks the whole.
//!
//! [`Agentfile::parse`] does all three for a file without parents and with default arguments.
//! [`Agentfile::resolve`] is what a package carries.

mod build;
mod decode;
mod draft;
pub(crate) mod error;
mod fields;
pub mod graph;
mod json;
mod lineage;
mod reference_page;
mod resolve;
mod schema;
mod source;
mod step;
mod substitute;
mod toml_format;
pub(crate) mod tree;
mod yaml;

pub use crate::text::{BadSecretName, SecretName};
pub use build::{
    Arguments, BadBase, BadDebianPackage, BadStageName, BadSuite, Base, Build, DEFAULT_SUITE, DebianPackage,
    STAGE_NAME_MAX, Stage, StageName, Suite,
};
pub(crate) use draft::read;
pub use draft::{BadExtends, Draft, Extends};
pub use error::{AgentfileError, Position};
pub use lineage::{EXTENDS_DEPTH_MAX, Lineage, PARENT_STAGE};
pub use reference_page::reference_markdown;
pub use resolve::{Inherited, Settings};
pub use schema::{SCHEMA_ID, json_schema};
pub use step::{
    BadFileMode, BadOwner, CACHES_MAX, Command, Copy, CopyOrigin, CopySource, CopyTarget,
    DEFAULT_TIMEOUT_SECONDS, EXCLUDES_MAX, FileMode, NET_MAX, Owner, RunStep, SECRETS_DIRECTORY, SECRETS_MAX,
    SOURCES_MAX, Step,
};

use crate::capability::{Capability, CapabilitySet};
use crate::config::{Entrypoint, Env, Isolation, Labels, Lifecycle, Limits, PackageKind, Workspace};
use crate::dependency::Dependency;
use crate::id::{PackageName, Version};
use crate::path::AbsolutePath;
use crate::text::Description;
use source::Sources;
use std::fmt;

/// Bytes of an Agentfile. A person writes it; the largest sensible one is some kilobytes.
pub const AGENTFILE_MAX_BYTES: usize = 256 * 1024;
/// Stages of a build in one file.
pub const STAGES_MAX: usize = 16;
/// Steps of a stage.
pub const STEPS_MAX: usize = 128;
/// Debian packages of a stage.
pub const PACKAGES_MAX: usize = 256;
/// Build arguments of a file.
pub const ARGS_MAX: usize = 64;
/// The value of `apiVersion`.
pub const API_VERSION: &str = "aos/v1";
/// The directory that relative entrypoints are taken from, and where a package's files go when
/// there is no `build`.
pub const APP_DIRECTORY: &str = "/app";
/// Where a skill's files are; it has [`SKILL_FILE`] at its top.
pub const SKILL_DIRECTORY: &str = "/skill";
/// The file that makes a directory a skill (<https://agentskills.io>).
pub const SKILL_FILE: &str = "SKILL.md";
/// The working directory when none is given: the agent's writable directory.
pub const DEFAULT_WORKDIR: &str = "/workspace";

/// The language of an Agentfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// YAML 1.2.
    Yaml,
    /// JSON.
    Json,
    /// TOML 1.1.
    Toml,
}

/// The names that an Agentfile may have, with their formats, in the order of search.
pub const FILE_NAMES: [(&str, Format); 5] = [
    ("Agentfile", Format::Yaml),
    ("Agentfile.yaml", Format::Yaml),
    ("Agentfile.yml", Format::Yaml),
    ("Agentfile.json", Format::Json),
    ("Agentfile.toml", Format::Toml),
];

impl Format {
    /// The format of a file by its name's ending; YAML when it has no known one.
    pub fn of_file_name(name: &str) -> Self {
        match name.rsplit_once('.') {
            Some((_, "json")) => Self::Json,
            Some((_, "toml")) => Self::Toml,
            _ => Self::Yaml,
        }
    }
}

/// A valid Agentfile, joined with all that it extends.
#[derive(Debug, Clone)]
pub struct Agentfile {
    /// What the package is.
    pub kind: PackageKind,
    /// Name, version and description.
    pub metadata: Metadata,
    /// How the package's files are made; `None` means all files of the directory, under
    /// [`Agentfile::default_directory`].
    pub build: Option<Build>,
    /// What is started; `None` for a skill alone.
    pub run: Option<Run>,
    /// What it needs, in the order of kind and name.
    pub dependencies: Vec<Dependency>,
    /// What the agent may do.
    pub capabilities: CapabilitySet,
    /// Upper bounds.
    pub limits: Limits,
    /// The capabilities in the order of the files, a parent's first.
    written: Vec<Capability>,
    /// What the package that is extended sets, under everything that is written.
    ground: Settings,
    /// Where each field stands.
    sources: Sources,
}

/// The section `metadata`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The package's name.
    pub name: PackageName,
    /// The package's version.
    pub version: Version,
    /// What the package is for.
    pub description: Option<Description>,
    /// Labels.
    pub labels: Labels,
}

/// The section `run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The program and its arguments; a relative program is taken under [`APP_DIRECTORY`].
    pub entrypoint: Entrypoint,
    /// Environment variables, over those of the build.
    pub env: Env,
    /// The working directory, over that of the build.
    pub workdir: Option<AbsolutePath>,
    /// How long it is meant to run.
    pub lifecycle: Lifecycle,
    /// What happens to what it writes in its workspace.
    pub workspace: Workspace,
    /// What holds it in.
    pub isolation: Isolation,
}

impl Agentfile {
    /// Parses an Agentfile that extends nothing, with the default values of its arguments. `origin`
    /// is the file's name for errors.
    pub fn parse(text: &str, format: Format, origin: &str) -> Result<Self, AgentfileError> {
        Lineage::new(origin.to_owned(), Draft::parse(text, format, origin)?).finish(&Arguments::new())
    }

    /// The name that errors give the file.
    pub fn origin(&self) -> &str {
        self.sources.origin()
    }

    /// Where a field stands in its file, by its path such as `run.entrypoint[0]`; a field that is not
    /// written stands where its section does.
    pub fn place(&self, field: &str) -> Position {
        self.sources.locate(field).place
    }

    /// Where the files of a package without `build` go.
    pub const fn default_directory(&self) -> &'static str {
        if self.kind.is_started() { APP_DIRECTORY } else { SKILL_DIRECTORY }
    }

    /// What this version can enforce for no agent, each with its place: a start would refuse it.
    pub fn not_enforceable(&self) -> Vec<AgentfileError> {
        let refused = |(index, capability): (usize, &Capability)| {
            let error = capability.check_enforceable().err()?;
            Some(self.error_at(&format!("capabilities[{index}]"), error))
        };
        let volume = |(index, dependency): (usize, &Dependency)| {
            let message = dependency.not_enforceable()?;
            Some(self.error_at(&format!("dependencies[{index}]"), message))
        };
        let capabilities = self.written.iter().enumerate().filter_map(refused);
        capabilities.chain(self.dependencies.iter().enumerate().filter_map(volume)).collect()
    }

    /// An error about a field that parsing alone does not find, such as a file that does not
    /// exist; it names the file, line and column as parse errors do. A field of a parent is named
    /// with the parent's file.
    pub fn error_at(&self, field: &str, message: impl fmt::Display) -> AgentfileError {
        let located = self.sources.locate(field);
        AgentfileError::Field {
            origin: located.origin.to_owned(),
            place: located.place,
            field: located.field,
            message: message.to_string(),
        }
    }
}
