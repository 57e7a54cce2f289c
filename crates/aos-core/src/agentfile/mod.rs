//! The Agentfile: what a person writes to describe an agent, in YAML, JSON or TOML.
//!
//! One schema for the three formats. Unknown fields, duplicate keys and fields that this version
//! does not enforce are errors; an error names the file, the line, the column, the field and what
//! is expected. Text is read in two steps: `tree` reads a format into a tree whose nodes know
//! their places, `decode` turns the tree into the types here.
//!
//! [`Agentfile::resolve`] is what a package carries.

mod decode;
mod error;
mod fields;
mod json;
mod resolve;
mod schema;
mod toml_format;
mod tree;
mod yaml;

pub use error::{AgentfileError, Position};
pub use schema::{SCHEMA_ID, json_schema};

use crate::capability::{Capability, CapabilitySet};
use crate::config::{Entrypoint, Env, Labels, Lifecycle, Limits};
use crate::id::{PackageName, Version};
use crate::path::{AbsolutePath, RelativePath};
use crate::quoted::Quoted;
use crate::text::Description;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Bytes of an Agentfile. A person writes it; the largest sensible one is some kilobytes.
pub const AGENTFILE_MAX_BYTES: usize = 256 * 1024;
/// Stages of a build.
pub const STAGES_MAX: usize = 16;
/// Steps of a stage.
pub const STEPS_MAX: usize = 128;
/// The value of `apiVersion`.
pub const API_VERSION: &str = "aos/v1";
/// The value of `kind`.
pub const KIND: &str = "Agent";
/// Characters of a stage's name.
pub const STAGE_NAME_MAX: usize = 63;
/// The directory that relative entrypoints are taken from, and where a package's files go when
/// there is no `build`.
pub const APP_DIRECTORY: &str = "/app";
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

/// A valid Agentfile.
#[derive(Debug, Clone)]
pub struct Agentfile {
    /// Name, version and description.
    pub metadata: Metadata,
    /// How the package's files are made; `None` means all files of the directory, under
    /// [`APP_DIRECTORY`].
    pub build: Option<Build>,
    /// What is started.
    pub run: Run,
    /// What the agent may do.
    pub capabilities: CapabilitySet,
    /// Upper bounds.
    pub limits: Limits,
    /// The capabilities in the order of the file.
    written: Vec<Capability>,
    /// The name that errors give the file.
    origin: String,
    /// Where each field stands, by its path such as `build.stages[0].steps[2].copy.from`.
    places: BTreeMap<String, Position>,
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

/// The section `build`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The stages, at least one. The last makes the package; the others are only checked, since
    /// no stage can take from another in this version.
    pub stages: Vec<Stage>,
}

/// One stage of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Its name, unique in the file.
    pub name: StageName,
    /// What it starts from.
    pub from: Base,
    /// Its steps, in order.
    pub steps: Vec<Step>,
}

/// What a stage starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Base {
    /// The host's read-only `/usr`.
    Host,
    /// Nothing.
    Scratch,
}

impl Base {
    /// Each with its word in the file.
    pub const ALL: [(&str, Self); 2] = [("host", Self::Host), ("scratch", Self::Scratch)];
}

/// One step of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Copies a file or directory of the Agentfile's directory into the package.
    Copy {
        /// The source; `None` is the whole directory, written `.`.
        from: Option<RelativePath>,
        /// The target. A directory's contents go into it; a file becomes it, or goes into it when
        /// it is written with a closing slash.
        to: CopyTarget,
    },
    /// Sets environment variables.
    Env(Env),
    /// Sets the working directory.
    Workdir(AbsolutePath),
    /// Sets labels.
    Label(Labels),
}

/// The target of a copy step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyTarget {
    /// The path that the source gets.
    As(AbsolutePath),
    /// The directory that the source goes into, written with a closing slash.
    Into(AbsolutePath),
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
}

impl Agentfile {
    /// Parses an Agentfile. `origin` is the file's name for errors.
    pub fn parse(text: &str, format: Format, origin: &str) -> Result<Self, AgentfileError> {
        if text.len() > AGENTFILE_MAX_BYTES {
            return Err(AgentfileError::TooLarge { origin: origin.to_owned(), length: text.len() });
        }
        let tree = match format {
            Format::Yaml => yaml::read(text),
            Format::Json => json::read(text),
            Format::Toml => toml_format::read(text),
        };
        let decoded = tree.and_then(|tree| decode::agentfile(&tree, origin));
        decoded.map_err(|problem| problem.in_file(origin))
    }

    /// The name that errors give the file.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Where a field stands, by its path such as `run.entrypoint[0]`; a field that is not written
    /// stands where its section does.
    pub fn place(&self, field: &str) -> Position {
        let mut path = field;
        loop {
            if let Some(&place) = self.places.get(path) {
                return place;
            }
            match path.rfind(['.', '[']) {
                Some(cut) => path = path.get(..cut).unwrap_or_default(),
                None => return Position::START,
            }
        }
    }

    /// The capabilities that this version can enforce for no agent, each with its place: a start
    /// would refuse them.
    pub fn not_enforceable(&self) -> Vec<AgentfileError> {
        let refused = |(index, capability): (usize, &Capability)| {
            let error = capability.check_enforceable().err()?;
            Some(self.error_at(&format!("capabilities[{index}]"), error))
        };
        self.written.iter().enumerate().filter_map(refused).collect()
    }

    /// An error about a field that parsing alone does not find, such as a file that does not
    /// exist; it names the file, line and column as parse errors do.
    pub fn error_at(&self, field: &str, message: impl fmt::Display) -> AgentfileError {
        AgentfileError::Field {
            origin: self.origin.clone(),
            place: self.place(field),
            field: field.to_owned(),
            message: message.to_string(),
        }
    }
}

/// The name of a build stage: 1 to 63 characters of `[a-z0-9_-]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StageName(String);

impl StageName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is not a stage name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("stage name {} is not valid, expected 1 to 63 characters of a-z, 0-9, `_` and `-`", Quoted(.0))]
pub struct BadStageName(String);

impl FromStr for StageName {
    type Err = BadStageName;

    fn from_str(text: &str) -> Result<Self, BadStageName> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if text.is_empty() || text.len() > STAGE_NAME_MAX || !text.bytes().all(good) {
            return Err(BadStageName(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
