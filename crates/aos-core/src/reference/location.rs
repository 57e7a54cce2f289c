//! Where a package is, by the spelling of what a person writes: a registry, a directory registry,
//! a file, or this machine's store.

use super::{Reference, ReferenceError};
use crate::macros::serde_as_text;
use crate::path::PATH_MAX_BYTES;
use crate::quoted::{Quoted, is_hidden};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use thiserror::Error;

/// A directory registry, in skopeo's syntax.
const LAYOUT: &str = "oci:";
/// An archive of whatever name, in skopeo's syntax.
const ARCHIVE: &str = "oci-archive:";
/// The ending of a package's file.
const ARCHIVE_ENDING: &str = ".aap";

/// Where a package is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Location {
    /// In a registry: the reference has one.
    Registry(Reference),
    /// In a directory registry, an OCI image layout: `oci:PATH[:NAME[:TAG]]`.
    Layout {
        /// The directory, without colons.
        path: PathBuf,
        /// The name in it.
        name: Option<Reference>,
    },
    /// A file: `PATH.aap`, or `oci-archive:PATH`.
    Archive(PathBuf),
    /// In this machine's store: the reference has no registry.
    Local(Reference),
}

/// A text that names no place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadLocation {
    /// It is not a reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The path is empty, too long or has characters that do not show.
    #[error("path {} is not valid, expected 1 to {PATH_MAX_BYTES} bytes of visible characters", Quoted(.0))]
    Path(String),
}

fn path(text: &str) -> Result<PathBuf, BadLocation> {
    if text.is_empty() || text.len() > PATH_MAX_BYTES || text.contains(is_hidden) {
        return Err(BadLocation::Path(text.to_owned()));
    }
    Ok(PathBuf::from(text))
}

impl FromStr for Location {
    type Err = BadLocation;

    fn from_str(text: &str) -> Result<Self, BadLocation> {
        if let Some(rest) = text.strip_prefix(ARCHIVE) {
            return Ok(Self::Archive(path(rest)?));
        }
        if let Some(rest) = text.strip_prefix(LAYOUT) {
            return Ok(match rest.split_once(':') {
                Some((directory, name)) => Self::Layout { path: path(directory)?, name: Some(name.parse()?) },
                None => Self::Layout { path: path(rest)?, name: None },
            });
        }
        if text.ends_with(ARCHIVE_ENDING) {
            return Ok(Self::Archive(path(text)?));
        }
        let reference: Reference = text.parse()?;
        Ok(if reference.registry.is_some() { Self::Registry(reference) } else { Self::Local(reference) })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) | Self::Local(reference) => write!(f, "{reference}"),
            Self::Layout { path, name: None } => write!(f, "{LAYOUT}{}", path.display()),
            Self::Layout { path, name: Some(name) } => write!(f, "{LAYOUT}{}:{name}", path.display()),
            Self::Archive(path) => {
                let text = path.display().to_string();
                let plain =
                    text.ends_with(ARCHIVE_ENDING) && !text.starts_with(LAYOUT) && !text.starts_with(ARCHIVE);
                if plain { f.write_str(&text) } else { write!(f, "{ARCHIVE}{text}") }
            }
        }
    }
}

serde_as_text!(Location);
