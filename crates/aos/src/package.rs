//! What `aos run` and `aos build` are pointed at, and building a folder into a package.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use aos_core::agentfile::AgentfileError;
use aos_core::id::{AgentId, PackageName, PackageRef, Selector};
use aos_package::archive::EXTENSION;
use aos_package::build::{BuildOptions, Built};
use aos_package::oci::host_architecture;

use crate::environment;
use crate::failure::{HintExt, hinted};

/// What a word on the command line names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A folder with an Agentfile.
    Folder(PathBuf),
    /// A package file.
    Archive(PathBuf),
    /// An installed package.
    Installed(PackageRef),
}

impl Target {
    /// Tells them apart by their spelling, so that no file in the current folder changes what a command means:
    /// what has a `/`, or is `.` or `..`, is a path; what ends in `.aap` is a package file; the rest is a name.
    pub(crate) fn parse(word: &str) -> Result<Self> {
        let path = Path::new(word);
        if word.ends_with(&format!(".{EXTENSION}")) {
            return Ok(Self::Archive(path.to_owned()));
        }
        if word.contains('/') || word == "." || word == ".." {
            return match path.metadata() {
                Ok(found) if found.is_dir() => Ok(Self::Folder(path.to_owned())),
                Ok(_) => Ok(Self::Archive(path.to_owned())),
                Err(error) => Err(error).with_context(|| format!("cannot find {word}")),
            };
        }
        match PackageRef::from_str(word) {
            Ok(reference) => Ok(Self::Installed(reference)),
            Err(error) => Err(hinted(error, advice(word))),
        }
    }
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

/// Opens a package file for the supervisor, which reads it by this descriptor.
pub(crate) fn open_archive(path: &Path) -> Result<File> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let found = file.metadata().with_context(|| format!("cannot look at {}", path.display()))?;
    if !found.is_file() {
        bail!("{} is not a file", path.display());
    }
    Ok(file)
}

/// The name in a reference that the supervisor returned.
pub(crate) fn name_of(reference: &str) -> Result<PackageName> {
    let parsed: PackageRef =
        reference.parse().map_err(|error| anyhow!("the supervisor returned a bad reference: {error}"))?;
    Ok(parsed.name)
}

/// Builds a folder into a file that has no name, for the supervisor to read.
pub(crate) fn build_to_temporary(folder: &Path) -> Result<(File, Built)> {
    let place = environment::temporary_directory();
    let mut file = tempfile::tempfile_in(&place)
        .with_context(|| format!("cannot make a temporary file in {}", place.display()))?;
    let built = build(folder, &mut file)?;
    file.rewind().context("cannot rewind the package that was built")?;
    Ok((file, built))
}

/// Builds a folder into a package file and returns its path. The file appears whole or not at all, and only once
/// the folder has been read: it may lie in there.
pub(crate) fn build_to_file(folder: &Path, output: Option<&Path>) -> Result<(PathBuf, Built)> {
    let parent = match output.and_then(Path::parent) {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    check_folder(parent)?;
    let (mut package, built) = build_to_temporary(folder)?;
    let mut file = tempfile::Builder::new()
        .prefix(".aos-build-")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(parent)
        // Its own message has the temporary name, which means nothing to whoever reads it.
        .map_err(|error| io::Error::from(error.kind()))
        .with_context(|| format!("cannot write in {}", parent.display()))?;
    io::copy(&mut package, &mut file).context("cannot write the package")?;
    let path = match output {
        Some(path) => path.to_owned(),
        None => PathBuf::from(file_name(&built)?),
    };
    file.as_file().sync_all().context("cannot write the package to disk")?;
    file.persist(&path)
        .map_err(|unmoved| unmoved.error)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok((path, built))
}

/// Checks, before anything is built, that a file can be meant to be in `folder`.
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

fn file_name(built: &Built) -> Result<String> {
    match &built.reference.selector {
        Selector::Version(version) => Ok(format!("{}-{version}.{EXTENSION}", built.reference.name)),
        Selector::Newest | Selector::Digest(_) => bail!("the package that was built has no version"),
    }
}

/// Builds a folder, writing the package to `output`.
pub(crate) fn build(folder: &Path, output: impl Write) -> Result<Built> {
    let place = environment::temporary_directory();
    let scratch = tempfile::Builder::new()
        .prefix("aos-build-")
        .tempdir_in(&place)
        .with_context(|| format!("cannot make a temporary folder in {}", place.display()))?;
    let options = BuildOptions {
        source_date_epoch: environment::source_date_epoch()?.unwrap_or(0),
        architecture: host_architecture().to_owned(),
        scratch: scratch.path().to_owned(),
    };
    let mut output = BufWriter::new(output);
    let built = aos_package::build::build(folder, &options, &mut output)
        .with_context(|| format!("cannot build {}", folder.display()))?;
    output.flush().context("cannot write the package")?;
    // Temporary files that stay behind are a failure of their own.
    scratch.close().context("cannot remove the temporary folder")?;
    Ok(built)
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
        assert_eq!(Target::parse("src").unwrap(), Target::Installed("src".parse().unwrap()));
        assert!(matches!(Target::parse("web:1.0.0").unwrap(), Target::Installed(_)));
        for bad in ["", "Bad Name", "web:latest", "./missing"] {
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
