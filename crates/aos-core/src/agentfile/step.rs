//! The steps of a stage.

use super::build::StageName;
use crate::config::{Env, Labels};
use crate::glob::{Glob, GlobError};
use crate::id::PackageName;
use crate::macros::serde_as_text;
use crate::path::{AbsolutePath, PathError, RelativePath};
use crate::port::{NetTarget, Port};
use crate::quantity::DurationSpec;
use crate::quoted::Quoted;
use crate::text::{Argument, SecretName};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Sources of a copy step.
pub const SOURCES_MAX: usize = 64;
/// Patterns that a copy step leaves out.
pub const EXCLUDES_MAX: usize = 64;
/// Hosts that a run step may reach.
pub const NET_MAX: usize = 32;
/// Cache directories of a run step.
pub const CACHES_MAX: usize = 16;
/// Secrets of a run step.
pub const SECRETS_MAX: usize = 16;
/// Where a run step finds its secrets.
pub const SECRETS_DIRECTORY: &str = "/run/secrets";
/// Time that a run step has when it names none.
pub const DEFAULT_TIMEOUT_SECONDS: u64 = 600;
/// The shell of a command that is one text.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// One step of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Copies files into the package.
    Copy(Copy),
    /// Runs a program in the stage's root, in the launcher's sandbox.
    Run(RunStep),
    /// Sets environment variables.
    Env(Env),
    /// Sets the working directory.
    Workdir(AbsolutePath),
    /// Names ports that the package listens on.
    Expose(Vec<Port>),
    /// Sets labels.
    Label(Labels),
}

impl Step {
    /// The field's name in the Agentfile.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Copy(_) => "copy",
            Self::Run(_) => "run",
            Self::Env(_) => "env",
            Self::Workdir(_) => "workdir",
            Self::Expose(_) => "expose",
            Self::Label(_) => "label",
        }
    }
}

/// A copy step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Where the sources are.
    pub origin: CopyOrigin,
    /// What is copied, at least one; more than one, or a pattern, goes [`CopyTarget::Into`].
    pub from: Vec<CopySource>,
    /// Where it goes.
    pub to: CopyTarget,
    /// Who owns the copies.
    pub owner: Owner,
    /// The permissions of the copies; `None` keeps whether a file is executable.
    pub mode: Option<FileMode>,
    /// What is left out, compared by [`Glob::excludes`] with the path below the copied directory
    /// (for a file, with its name).
    pub exclude: Vec<Glob>,
}

impl Copy {
    /// True when `path`, below the copied directory, is left out.
    pub fn is_excluded(&self, path: &str) -> bool {
        self.exclude.iter().any(|glob| glob.excludes(path))
    }
}

/// Where a copy step's sources are; their paths are relative to its top.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CopyOrigin {
    /// The directory that is built.
    Directory,
    /// The result of another stage.
    Stage(StageName),
    /// The files of a dependency that is a package, by its name in `dependencies`.
    Package(PackageName),
}

/// What is copied.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CopySource {
    /// All of the origin, written `.` (or `/` of a stage or package).
    All,
    /// A file, or a directory's contents.
    Path(RelativePath),
    /// Everything that matches; each keeps its path below [`Glob::base`], and a directory brings all
    /// that it holds.
    Glob(Glob),
}

impl FromStr for CopySource {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        match text {
            "." => Ok(Self::All),
            _ if Glob::is_special(text) => text.parse().map(Self::Glob),
            _ => Ok(Self::Path(text.parse()?)),
        }
    }
}

impl fmt::Display for CopySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("."),
            Self::Path(path) => write!(f, "{path}"),
            Self::Glob(glob) => write!(f, "{glob}"),
        }
    }
}

serde_as_text!(CopySource);

/// The target of a copy step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyTarget {
    /// The path that the source gets.
    As(AbsolutePath),
    /// The directory that the sources go into, written with a closing slash.
    Into(AbsolutePath),
}

impl CopyTarget {
    /// The path, without the closing slash.
    pub const fn path(&self) -> &AbsolutePath {
        match self {
            Self::As(path) | Self::Into(path) => path,
        }
    }
}

impl FromStr for CopyTarget {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        match text.strip_suffix('/') {
            Some("") => Ok(Self::Into(AbsolutePath::root())),
            Some(directory) if directory != "/" => Ok(Self::Into(directory.parse()?)),
            _ => Ok(Self::As(text.parse()?)),
        }
    }
}

impl fmt::Display for CopyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::As(path) => write!(f, "{path}"),
            Self::Into(path) => write!(f, "{}/", path.as_str().trim_end_matches('/')),
        }
    }
}

serde_as_text!(CopyTarget);

/// The owner of copies, `UID:GID` in numbers: names differ from machine to machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// A text that is not an owner.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("owner {} is not valid, expected UID:GID in numbers, such as 1000:1000", Quoted(.0))]
pub struct BadOwner(String);

/// Parses a user or group id: plain digits. The highest number means "unchanged" to chown(2).
fn id(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|&id| plain && id != u32::MAX)
}

impl FromStr for Owner {
    type Err = BadOwner;

    fn from_str(text: &str) -> Result<Self, BadOwner> {
        let parse = || {
            let (uid, gid) = text.split_once(':')?;
            Some(Self { uid: id(uid)?, gid: id(gid)? })
        };
        parse().ok_or_else(|| BadOwner(text.to_owned()))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

serde_as_text!(Owner);

/// Permissions of copies, `0755`: nine bits; there is no setuid, setgid or sticky bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileMode(u32);

/// A text that is not a mode.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("mode {} is not valid, expected three octal digits, such as 0644 or 755", Quoted(.0))]
pub struct BadFileMode(String);

impl FileMode {
    /// The bits of a file.
    pub const fn of_file(self) -> u32 {
        self.0
    }

    /// The bits of a directory: who may read it may also pass it.
    pub const fn of_directory(self) -> u32 {
        self.0 | ((self.0 & 0o444) >> 2)
    }
}

impl FromStr for FileMode {
    type Err = BadFileMode;

    fn from_str(text: &str) -> Result<Self, BadFileMode> {
        let digits = if text.len() == 4 { text.strip_prefix('0') } else { Some(text) };
        let digits = digits.filter(|digits| digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit()));
        let bits = digits.and_then(|digits| u32::from_str_radix(digits, 8).ok());
        bits.map(Self).ok_or_else(|| BadFileMode(text.to_owned()))
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

serde_as_text!(FileMode);

/// A run step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStep {
    /// What is run.
    pub command: Command,
    /// Hosts that it may reach; none means that it is offline.
    pub net: Vec<NetTarget>,
    /// Directories that are kept between builds and never enter a layer.
    pub cache: Vec<AbsolutePath>,
    /// Secrets that it finds at [`SECRETS_DIRECTORY`], mode 0400, never in a layer or a step's key.
    pub secrets: Vec<SecretName>,
    /// When it is killed; `None` means [`DEFAULT_TIMEOUT_SECONDS`].
    pub timeout: Option<DurationSpec>,
}

/// What a run step runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Command {
    /// A text for `/bin/sh -c`.
    Shell(Argument),
    /// A program and its arguments; the program is looked for in `PATH` when it has no slash.
    Program(Vec<Argument>),
}

impl Command {
    /// The program and its arguments, in order.
    pub fn argv(&self) -> Vec<&str> {
        match self {
            Self::Shell(text) => SHELL.into_iter().chain([text.as_str()]).collect(),
            Self::Program(words) => words.iter().map(Argument::as_str).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_print_back() {
        for text in ["/a", "/a/", "/"] {
            assert_eq!(text.parse::<CopyTarget>().unwrap().to_string(), text);
        }
        for text in [".", "a/b", "a/*.py"] {
            assert_eq!(text.parse::<CopySource>().unwrap().to_string(), text);
        }
        assert_eq!("1000:0".parse::<Owner>().unwrap().to_string(), "1000:0");
        for bad in ["", "1", "1:", ":1", "01:1", "+1:1", "a:b", "1:2:3", "-1:0", "4294967295:0"] {
            assert!(bad.parse::<Owner>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn modes() {
        for (text, file, directory) in
            [("0644", 0o644, 0o755), ("755", 0o755, 0o755), ("0600", 0o600, 0o700), ("000", 0, 0)]
        {
            let mode: FileMode = text.parse().unwrap();
            assert_eq!((mode.of_file(), mode.of_directory()), (file, directory), "{text}");
        }
        for bad in ["", "7", "77", "1755", "00644", "0o644", "+64", "888", " 644"] {
            assert!(bad.parse::<FileMode>().is_err(), "{bad:?}");
        }
    }
}
