//! Manifests of other systems, turned into Agentfiles.
//!
//! An importer takes the text of a manifest and gives the text of an Agentfile that our parser
//! accepts, with a note for each field that could not be kept or that means something else now.
//! Nothing is dropped in silence: what has no place in an Agentfile stands in the text as a comment.
//! Nothing is granted that the manifest did not ask for: each value is parsed into our own type
//! first, and is written in quotes.

pub mod aaos;
pub mod openos;
mod program;
mod reader;
mod units;
mod yaml;

use crate::agentfile::{Agentfile, AgentfileError, Format, Position, read};
use crate::id::PackageName;
use crate::quoted::{Quoted, is_hidden};
use reader::Field;
use std::fmt;
use thiserror::Error;
use yaml::Yaml;

/// The version of a package whose manifest has none.
const FIRST_VERSION: &str = "0.1.0";
/// The name of a package whose manifest has none that can be made into one.
const NO_NAME: &str = "imported";

/// Bytes of the comments that a conversion writes: enough for a long prompt, and far below what an
/// Agentfile may have.
const COMMENTS_MAX: usize = 64 * 1024;

/// A system whose manifests can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum System {
    /// aaOS: an agent manifest.
    Aaos,
    /// OpenOS: an Agentfile of either form.
    OpenOs,
}

impl System {
    /// Each with its word for a command line.
    pub const ALL: [(&str, Self); 2] = [("aaos", Self::Aaos), ("openos", Self::OpenOs)];

    /// The system that a manifest belongs to, by its fields: OpenOS's have an `apiVersion` of theirs,
    /// aaOS's have none and a `name` at the top. `None` for a manifest of neither.
    pub fn of_manifest(text: &str, origin: &str) -> Result<Option<Self>, ForeignError> {
        let root = read(text, format_of(origin), origin)?;
        let root = Field::root(&root);
        let version = root.get("apiVersion").and_then(|field| field.text().map(str::to_owned));
        Ok(match version {
            Some(version) if openos::API_VERSIONS.contains(&version.as_str()) => Some(Self::OpenOs),
            None if root.get("name").is_some() => Some(Self::Aaos),
            _ => None,
        })
    }

    /// Converts a manifest. `origin` is its file's name: for errors, and for its format.
    pub fn convert(self, text: &str, origin: &str) -> Result<Converted, ForeignError> {
        match self {
            Self::Aaos => aaos::convert(text, origin),
            Self::OpenOs => openos::convert(text, origin),
        }
    }
}

/// Something of the manifest that the Agentfile does not have, or has otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The field's path in the manifest, such as `capabilities[2]`.
    pub field: String,
    /// Where it stands in the manifest.
    pub place: Position,
    /// What became of it, and what to do.
    pub message: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.field, self.message)
    }
}

/// What an importer gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// The text of an Agentfile in YAML.
    pub agentfile: String,
    /// What could not be kept, in the order of the manifest.
    pub notes: Vec<Note>,
}

/// Why a manifest is not converted.
#[derive(Debug, Error)]
pub enum ForeignError {
    /// The text is not YAML, JSON or TOML, or too large.
    #[error(transparent)]
    Read(#[from] AgentfileError),
    /// The document is something else.
    #[error("{origin} is not {what}: {reason}")]
    Other {
        /// The file.
        origin: String,
        /// What it should be.
        what: &'static str,
        /// Why it is not.
        reason: String,
    },
    /// The parts that fit one by one do not fit together.
    #[error("{origin} cannot become an Agentfile")]
    Unfit {
        /// The file.
        origin: String,
        /// What our parser says.
        source: AgentfileError,
    },
}

/// The format of a manifest: YAML has JSON in it, but not with our places.
fn format_of(origin: &str) -> Format {
    Format::of_file_name(origin)
}

/// The notes of a conversion, and what is kept as comments.
#[derive(Debug, Default)]
struct Remarks {
    notes: Vec<Note>,
    comments: Vec<String>,
}

impl Remarks {
    /// Says something of a field.
    fn note(&mut self, field: &Field<'_>, message: impl fmt::Display) {
        let path = if field.path.is_empty() { "the manifest".to_owned() } else { field.path.clone() };
        self.notes.push(Note { field: path, place: field.node.place, message: message.to_string() });
    }

    /// Says that a field is not kept, and writes it down as a comment.
    fn drop(&mut self, field: &Field<'_>, why: impl fmt::Display) {
        self.note(field, why);
        self.comments.push(format!("{}: {}", field.path, yaml::line(&field.to_yaml())));
    }

    /// Drops each field that none of the known names has.
    fn drop_others(&mut self, section: &Field<'_>, known: &[&str]) {
        for (name, field) in section.entries() {
            if !known.contains(&name) {
                self.drop(&field, "is not known here");
            }
        }
    }

    /// Parses a field's text into a type of ours; what is not one is dropped with the reason.
    fn parse<T: std::str::FromStr<Err: fmt::Display>>(&mut self, field: &Field<'_>) -> Option<T> {
        let Some(text) = field.text() else {
            self.drop(field, "expected text");
            return None;
        };
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.drop(field, error);
                None
            }
        }
    }
}

/// A package's name from any text: lower case, and `-` for what no name has.
fn name(remarks: &mut Remarks, root: &Field<'_>, field: Option<Field<'_>>) -> String {
    let Some(field) = field else {
        remarks.note(root, format!("has no name, {NO_NAME} is written"));
        return NO_NAME.to_owned();
    };
    let written = field.text().unwrap_or_default();
    if written.parse::<PackageName>().is_ok() {
        return written.to_owned();
    }
    let mut name = String::new();
    for c in written.chars().flat_map(char::to_lowercase).take(crate::id::PACKAGE_NAME_MAX) {
        let good = c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
        let c = if good { c } else { '-' };
        let repeats = c == '-' && name.ends_with('-') || c == '.' && name.ends_with('.');
        if !repeats {
            name.push(c);
        }
    }
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned();
    let name = if name.parse::<PackageName>().is_ok() { name } else { NO_NAME.to_owned() };
    remarks.note(&field, format!("{} is not a package name, {name} is written", Quoted(written)));
    name
}

/// Puts the parts together, and checks that our parser takes them.
fn finish(origin: &str, system: &str, file: Yaml, remarks: Remarks) -> Result<Converted, ForeignError> {
    let shown: String = origin.chars().map(|c| if is_hidden(c) { '?' } else { c }).collect();
    let mut agentfile = format!("# Converted from the {system} manifest {shown}.\n{}", yaml::document(&file));
    if !remarks.comments.is_empty() {
        agentfile.push_str("# Not kept:\n");
    }
    let mut room = COMMENTS_MAX;
    for comment in &remarks.comments {
        let Some(left) = room.checked_sub(comment.len()) else {
            agentfile.push_str("#   (more than fits here: see the manifest)\n");
            break;
        };
        room = left;
        agentfile.push_str(&format!("#   {comment}\n"));
    }
    match Agentfile::parse(&agentfile, Format::Yaml, "Agentfile") {
        Ok(_) => Ok(Converted { agentfile, notes: remarks.notes }),
        Err(source) => Err(ForeignError::Unfit { origin: origin.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests;
