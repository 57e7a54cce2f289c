//! What `aos run` and `aos install` are pointed at, and the files that packages are written to.

use std::fs::{File, Permissions};
use std::io::{self, Seek};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use aos_core::agentfile::AgentfileError;
use aos_core::id::{AgentId, PackageName, PackageRef};
use aos_core::reference::Reference;
use aos_package::archive::EXTENSION;

use crate::environment;
use crate::exit::{Exit, ExitExt};
use crate::failure::{HintExt, hinted};

/// What a word on the command line names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A folder with an Agentfile.
    Folder(PathBuf),
    /// A package file.
    Archive(PathBuf),
    /// A package by its name: an installed one, else one of the user store.
    Named(PackageRef),
    /// A package of the user store that came from a registry, by its name there.
    Pulled(Reference),
}

impl Target {
    /// Tells them apart by their spelling, so that no file in the current folder changes what a command means: what
    /// ends in `.aap` is a package file; what starts with a registry (`HOST.NAME/`, `HOST:PORT/`, `localhost/`) is a
    /// package from there; any other word with a `/`, and `.` and `..`, is a path; the rest is a name.
    pub(crate) fn parse(word: &str) -> Result<Self> {
        let path = Path::new(word);
        if word.ends_with(&format!(".{EXTENSION}")) {
            return Ok(Self::Archive(path.to_owned()));
        }
        if let Some(reference) = of_registry(word) {
            return Ok(Self::Pulled(reference));
        }
        if word.contains('/') || word == "." || word == ".." {
            return match path.metadata() {
                Ok(found) if found.is_dir() => Ok(Self::Folder(path.to_owned())),
                Ok(_) => Ok(Self::Archive(path.to_owned())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Err(error).exit(Exit::NotFound).with_context(|| format!("cannot find {word}"))
                }
                Err(error) => Err(error).with_context(|| format!("cannot find {word}")),
            };
        }
        match PackageRef::from_str(word) {
            Ok(reference) => Ok(Self::Named(reference)),
            Err(error) => Err(hinted(error, advice(word))),
        }
    }
}

/// The reference, when a word names a registry.
fn of_registry(word: &str) -> Option<Reference> {
    let (first, _) = word.split_once('/')?;
    if matches!(first, "" | "." | ".." | "~") {
        return None;
    }
    word.parse::<Reference>().ok().filter(|reference| reference.registry.is_some())
}

/// What to write instead of a word that is no reference.
fn advice(word: &str) -> String {
    match word.split_once(':') {
        Some((name, _)) if name.parse::<PackageName>().is_ok() => {
            format!("write {name} for the newest version, or {name}:1.2.3 for exactly one")
        }
        _ => {
            format!("a folder or file is written with its path, such as ./{}", word.trim_start_matches('-'))
        }
    }
}

/// The id of an agent whose name nobody chose: the package's name with the characters of an id.
pub(crate) fn default_id(name: &PackageName) -> Result<AgentId> {
    let text: String = name
        .as_str()
        .chars()
        .map(|character| if matches!(character, '.' | '_') { '-' } else { character })
        .take(aos_core::id::AGENT_ID_MAX)
        .collect();
    text.trim_end_matches('-')
        .parse()
        .hint("choose one with --name")
        .with_context(|| format!("no agent id can be made from the package name {name}"))
}

/// Opens a file that a person named. One that is not there has a status of its own.
pub(crate) fn open(path: &Path) -> Result<File> {
    let opened = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error).exit(Exit::NotFound),
        other => other.map_err(Into::into),
    };
    opened.with_context(|| format!("cannot open {}", path.display()))
}

/// Opens a package file for the supervisor, which reads it by this descriptor.
pub(crate) fn open_archive(path: &Path) -> Result<File> {
    let file = open(path)?;
    let found = file.metadata().with_context(|| format!("cannot look at {}", path.display()))?;
    if !found.is_file() {
        bail!("{} is not a file", path.display());
    }
    Ok(file)
}

/// Opens a file that a folder of somebody else may name: a link could lead to any file that only we may read, and a
/// pipe would hold us.
pub(crate) fn open_plain(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        rustix::io::Errno::LOOP => io::Error::other("it is a symbolic link, and links are not followed"),
        errno => errno.into(),
    })?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a file")) }
}

/// The name in a reference that the supervisor returned.
pub(crate) fn name_of(reference: &str) -> Result<PackageName> {
    let parsed: PackageRef =
        reference.parse().map_err(|error| anyhow!("the supervisor returned a bad reference: {error}"))?;
    Ok(parsed.name)
}

/// A temporary file that has no name.
pub(crate) fn anonymous() -> Result<File> {
    let place = environment::temporary_directory();
    tempfile::tempfile_in(&place)
        .with_context(|| format!("cannot make a temporary file in {}", place.display()))
}

/// A file at its start.
pub(crate) fn rewound(mut file: File) -> Result<File> {
    file.rewind().context("cannot rewind the package")?;
    Ok(file)
}

/// Writes a file, which appears whole or not at all.
pub(crate) fn write_whole(path: &Path, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let parent = parent_of(path);
    check_folder(parent)?;
    let mut file = tempfile::Builder::new()
        .prefix(".aos-")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(parent)
        // Its own message has the temporary name, which means nothing to whoever reads it.
        .map_err(|error| io::Error::from(error.kind()))
        .with_context(|| format!("cannot write in {}", parent.display()))?;
    fill(file.as_file_mut())?;
    file.as_file().sync_all().with_context(|| format!("cannot write {}", path.display()))?;
    let persisted = file.persist(path).map_err(|unmoved| unmoved.error);
    persisted.map(drop).with_context(|| format!("cannot write {}", path.display()))
}

/// Checks, before anything is built, that a file can be meant to be there.
pub(crate) fn check_parent(path: &Path) -> Result<()> {
    check_folder(parent_of(path))
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

/// Checks that a folder is one.
fn check_folder(folder: &Path) -> Result<()> {
    match folder.metadata() {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => bail!("{} is not a folder", folder.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("the folder {} does not exist", folder.display())
        }
        Err(error) => Err(error).with_context(|| format!("cannot look at {}", folder.display())),
    }
}

/// The first thing that keeps a package from running on this machine, as an error.
pub(crate) fn refuse_obstacles(obstacles: Vec<AgentfileError>) -> Result<()> {
    let mut obstacles = obstacles.into_iter();
    let Some(first) = obstacles.next() else { return Ok(()) };
    match obstacles.len() {
        0 => Err(first.into()),
        more => {
            Err(hinted(first, format!("{more} more would keep it from running here: `aos build` tells each")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_decides() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        assert_eq!(Target::parse(path).unwrap(), Target::Folder(folder.path().to_owned()));
        assert_eq!(Target::parse(".").unwrap(), Target::Folder(".".into()));
        assert_eq!(Target::parse("x.aap").unwrap(), Target::Archive("x.aap".into()));
        assert_eq!(Target::parse("src").unwrap(), Target::Named("src".parse().unwrap()));
        assert!(matches!(Target::parse("web:1.0.0").unwrap(), Target::Named(_)));
        assert!(matches!(Target::parse("localhost:5000/a/web:1.0.0").unwrap(), Target::Pulled(_)));
        assert!(matches!(Target::parse("reg.example/web").unwrap(), Target::Pulled(_)));
        for bad in ["", "Bad Name", "web:latest", "./missing", "missing/web"] {
            assert!(Target::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ids_from_names() {
        let id = |name: &str| default_id(&name.parse().unwrap()).unwrap().to_string();
        assert_eq!(id("site.watch_2"), "site-watch-2");
        assert_eq!(id(&format!("{}.x", "a".repeat(26))), "a".repeat(26));
    }

    #[test]
    fn a_wrong_reference_is_advised() {
        assert_eq!(
            advice("hello:latest"),
            "write hello for the newest version, or hello:1.2.3 for exactly one"
        );
        assert_eq!(advice("Bad Name"), "a folder or file is written with its path, such as ./Bad Name");
    }
}
