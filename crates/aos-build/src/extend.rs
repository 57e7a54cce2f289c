//! What an Agentfile extends: its parents are found, read and joined, in one way for who builds and for who only
//! wants to know what is declared.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aos_core::agentfile::{AGENTFILE_MAX_BYTES, AgentfileError, Draft, Extends, FILE_NAMES, Format, Lineage};
use aos_core::config::ResolvedAgent;
use aos_core::id::Digest;
use aos_core::reference::Reference;
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

/// Joins all that a file extends. `package` brings one that is named, with its digest. What was extended, files with
/// the digests of their texts and packages with their own, the nearest first.
pub fn extend<E: From<AgentfileError>>(
    lineage: &mut Lineage,
    mut package: impl FnMut(&Reference) -> Result<(Digest, ResolvedAgent), E>,
) -> Result<Vec<(String, Digest)>, E> {
    let mut extended = Vec::new();
    while let Some((extends, by)) = lineage.wanted() {
        let (extends, by) = (extends.clone(), by.clone());
        let digest = match &extends {
            Extends::Path(path) => {
                let failed = |message: String| by.error_at("extends", message);
                let directory = Path::new(by.origin()).parent().unwrap_or(Path::new("."));
                let path = find(directory.join(path)).map_err(failed)?;
                let text = read(&path).map_err(|error| failed(format!("`{}`: {error}", path.display())))?;
                lineage.push_file(identity(&path), parse(&path, &text)?)?;
                Digest::from_bytes(Sha256::digest(text.as_bytes()).into())
            }
            Extends::Package(reference) => {
                let (digest, agent) = package(reference)?;
                lineage.push_package(reference.with_digest(digest), agent)?;
                digest
            }
        };
        extended.push((format!("extends {extends}"), digest));
    }
    Ok(extended)
}

/// The lineage of the Agentfile at a path, before anything that it extends.
pub fn lineage(path: &Path, text: &str) -> Result<Lineage, AgentfileError> {
    Ok(Lineage::new(identity(path), parse(path, text)?))
}

/// The text of an Agentfile: not by a link, which could lead to any file that only we may read, and not of a pipe,
/// which would hold us. One byte more than is allowed, so that the parser says what is.
pub fn read(path: &Path) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut text = String::new();
    file.take(AGENTFILE_MAX_BYTES as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

fn parse(path: &Path, text: &str) -> Result<Draft, AgentfileError> {
    let origin = path.display().to_string();
    Draft::parse(text, Format::of_file_name(&origin), &origin)
}

/// What tells a file from others, whatever it is called.
pub(crate) fn identity(path: &Path) -> String {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// The Agentfile that a path means: itself, or the one in the directory.
fn find(path: PathBuf) -> Result<PathBuf, String> {
    if !path.is_dir() {
        return Ok(path);
    }
    let mut found = FILE_NAMES.iter().map(|(name, _)| path.join(name)).filter(|path| path.exists());
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(format!("no Agentfile in `{}`", path.display())),
        (Some(_), Some(_)) => Err(format!("`{}` has several Agentfiles: name one", path.display())),
    }
}
