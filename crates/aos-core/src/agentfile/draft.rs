//! One file, before it is joined with what it extends.

use super::decode;
use super::error::AgentfileError;
use super::source::Source;
use super::tree::Node;
use super::{AGENTFILE_MAX_BYTES, Arguments, Format, Metadata};
use super::{json, toml_format, yaml};
use crate::capability::Capability;
use crate::config::{Entrypoint, Env, Isolation, Lifecycle, Limits, PackageKind, Workspace};
use crate::dependency::Dependency;
use crate::macros::serde_as_text;
use crate::path::{AbsolutePath, PATH_MAX_BYTES};
use crate::quoted::{Quoted, is_hidden};
use crate::reference::{Reference, ReferenceError};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use thiserror::Error;

/// What a file extends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Extends {
    /// Another Agentfile or its directory, written `./PATH`, `../PATH` or `/PATH`; relative to the
    /// directory of the file that extends it.
    Path(PathBuf),
    /// A package, by tag or digest.
    Package(Reference),
}

/// A text that names nothing to extend.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadExtends {
    /// The path is too long or has characters that do not show.
    #[error("path {} is not valid, expected at most {PATH_MAX_BYTES} bytes of visible characters", Quoted(.0))]
    Path(String),
    /// The reference is wrong.
    #[error("{0} (a path starts with ./, ../ or /)")]
    Reference(#[from] ReferenceError),
    /// The reference has neither tag nor digest.
    #[error("{} has no tag and no digest (a path starts with ./, ../ or /)", Quoted(.0))]
    NotSpecific(String),
}

impl FromStr for Extends {
    type Err = BadExtends;

    fn from_str(text: &str) -> Result<Self, BadExtends> {
        let is_path =
            text == "." || text == ".." || ["./", "../", "/"].iter().any(|start| text.starts_with(start));
        if is_path {
            if text.len() > PATH_MAX_BYTES || text.contains(is_hidden) {
                return Err(BadExtends::Path(text.to_owned()));
            }
            return Ok(Self::Path(PathBuf::from(text)));
        }
        let reference: Reference = text.parse()?;
        if reference.is_specific() {
            Ok(Self::Package(reference))
        } else {
            Err(BadExtends::NotSpecific(text.to_owned()))
        }
    }
}

impl fmt::Display for Extends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Package(reference) => write!(f, "{reference}"),
        }
    }
}

serde_as_text!(Extends);

/// The section `run` of one file; what is missing may come from a parent.
#[derive(Debug, Clone, Default)]
pub(super) struct PartialRun {
    pub(super) entrypoint: Option<Entrypoint>,
    pub(super) env: Env,
    pub(super) workdir: Option<AbsolutePath>,
    pub(super) lifecycle: Option<Lifecycle>,
    pub(super) workspace: Option<Workspace>,
    pub(super) isolation: Option<Isolation>,
}

/// The section `build` of one file; the stages are decoded once the arguments are known.
#[derive(Debug, Clone)]
pub(super) struct PartialBuild {
    pub(super) args: Arguments,
    /// The lists of stages as written; `None` when the section has none.
    pub(super) stages: Option<Vec<Node>>,
}

/// Reads a document of bounded size.
pub(crate) fn read(text: &str, format: Format, origin: &str) -> Result<Node, AgentfileError> {
    if text.len() > AGENTFILE_MAX_BYTES {
        return Err(AgentfileError::TooLarge { origin: origin.to_owned(), length: text.len() });
    }
    let tree = match format {
        Format::Yaml => yaml::read(text),
        Format::Json => json::read(text),
        Format::Toml => toml_format::read(text),
    };
    tree.map_err(|problem| problem.in_file(origin))
}

/// One Agentfile, by itself: all but its stages is decoded and checked.
#[derive(Debug, Clone)]
pub struct Draft {
    pub(super) kind: PackageKind,
    pub(super) extends: Option<Extends>,
    pub(super) metadata: Metadata,
    pub(super) build: Option<PartialBuild>,
    pub(super) run: Option<PartialRun>,
    pub(super) dependencies: Vec<Dependency>,
    pub(super) capabilities: Vec<Capability>,
    pub(super) limits: Limits,
    pub(super) source: Source,
}

impl Draft {
    /// Parses one file. `origin` is its name for errors.
    pub fn parse(text: &str, format: Format, origin: &str) -> Result<Self, AgentfileError> {
        let tree = read(text, format, origin)?;
        decode::draft(tree, origin).map_err(|problem| problem.in_file(origin))
    }

    /// What the package is.
    pub const fn kind(&self) -> PackageKind {
        self.kind
    }

    /// What it extends, which the caller must load.
    pub const fn extends(&self) -> Option<&Extends> {
        self.extends.as_ref()
    }

    /// The name that errors give the file.
    pub fn origin(&self) -> &str {
        &self.source.origin
    }

    /// An error at a field of this file.
    pub fn error_at(&self, field: &str, message: impl fmt::Display) -> AgentfileError {
        AgentfileError::Field {
            origin: self.source.origin.clone(),
            place: self.source.place(field),
            field: field.to_owned(),
            message: message.to_string(),
        }
    }
}
