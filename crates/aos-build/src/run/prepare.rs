//! What a step needs before it starts: its directories, and its plan.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use aos_core::config::RootKind;
use aos_core::path::AbsolutePath;
use aos_sandbox::plan::build::Network;
use aos_sandbox::plan::{BuildInput, build};

use super::error::{Doing, RunError};
use super::scratch::Scratch;
use super::{Account, CacheMount, RunRequest};

/// The directory in a cache that steps see.
const CACHE_FILES: &str = "files";

/// The plan of the step, as the launcher reads it. Makes the caches' directories.
pub(super) fn plan(request: &RunRequest, scratch: &Scratch, account: Account) -> Result<Vec<u8>, RunError> {
    let lower: Vec<AbsolutePath> =
        request.lower.iter().map(|path| owned(path, account)).collect::<Result<_, _>>()?;
    let caches: Vec<(AbsolutePath, AbsolutePath)> =
        request.caches.iter().map(|cache| prepare_cache(cache, account)).collect::<Result<_, _>>()?;
    let secrets: Vec<String> = request.secrets.iter().map(|secret| secret.name.clone()).collect();
    let lower_usr = match request.root {
        RootKind::Host => directories(&request.lower, "usr")?,
        RootKind::Own => Vec::new(),
    };
    let input = BuildInput {
        root: request.root,
        lower: &lower,
        lower_usr: &lower_usr,
        upper: &absolute(&scratch.upper())?,
        work: &absolute(&scratch.work())?,
        command: &request.command,
        env: &request.env,
        cwd: &request.workdir,
        caches: &caches,
        secrets: &secrets,
        network: if request.net.is_empty() { Network::Offline } else { Network::Proxy },
    };
    let plan = build(&input).map_err(|error| RunError::Request(error.to_string()))?;
    plan.to_json().map_err(|error| RunError::Request(error.to_string()))
}

/// A path of the host without symbolic links, in the form of a plan.
fn absolute(path: &Path) -> Result<AbsolutePath, RunError> {
    let real = fs::canonicalize(path).doing(|| format!("find {}", path.display()))?;
    let text = real.to_str().ok_or_else(|| directory(path, "its name is not UTF-8".to_owned()))?;
    text.parse().map_err(|error| directory(path, format!("{error}")))
}

fn directory(path: &Path, why: String) -> RunError {
    RunError::Directory { path: path.to_owned(), why }
}

/// A directory of the account's.
fn owned(path: &Path, account: Account) -> Result<AbsolutePath, RunError> {
    let metadata = fs::symlink_metadata(path).doing(|| format!("look at {}", path.display()))?;
    if !metadata.is_dir() {
        return Err(directory(path, "it is not a directory".to_owned()));
    }
    if metadata.uid() != account.uid {
        let why = format!("it belongs to uid {}, and steps run as uid {}", metadata.uid(), account.uid);
        return Err(directory(path, why));
    }
    absolute(path)
}

/// The directories of one name in each layer, as far as they are there.
fn directories(layers: &[PathBuf], name: &str) -> Result<Vec<AbsolutePath>, RunError> {
    let mut found = Vec::new();
    for path in layers.iter().map(|layer| layer.join(name)) {
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => found.push(absolute(&path)?),
            Ok(_) => {
                return Err(directory(&path, "it is beside the host's /usr and no directory".to_owned()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).doing(|| format!("look at {}", path.display())),
        }
    }
    Ok(found)
}

/// Closes the cache to other users and gives the step a directory in it, since a step may change the
/// mode of the directory that it sees.
fn prepare_cache(cache: &CacheMount, account: Account) -> Result<(AbsolutePath, AbsolutePath), RunError> {
    let files = cache.directory.join(CACHE_FILES);
    let what = || format!("prepare the cache {}", cache.directory.display());
    match fs::create_dir(&files) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error).doing(what),
        _ => {}
    }
    if account.is_other() {
        for path in [&cache.directory, &files] {
            chown(path, Some(account.uid), Some(account.gid)).doing(what)?;
        }
    }
    fs::set_permissions(&cache.directory, Permissions::from_mode(0o700)).doing(what)?;
    Ok((cache.path.clone(), owned(&files, account)?))
}
