//! Checks that what the entrypoint names is in the package, so that a wrong path is found when the
//! package is built and not when it runs.

use super::BuildError;
use super::tree::{Item, Tree};
use aos_core::agentfile::{APP_DIRECTORY, Agentfile, AgentfileError};
use aos_core::capability::Access;
use aos_core::config::{ResolvedAgent, RootKind};
use aos_core::path::AbsolutePath;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Symbolic links on the way to one file, the kernel's own limit.
const LINKS_MAX: usize = 40;
/// What a package on the host's root sees of the host.
const HOST_DIRECTORIES: [&str; 5] = ["usr", "bin", "sbin", "lib", "lib64"];

/// Where a path leads in the package.
#[derive(Debug, PartialEq, Eq)]
enum Lookup {
    File {
        executable: bool,
    },
    Directory,
    /// The package has no such entry.
    Missing,
    /// The path leads to a directory at the top that the package does not have.
    Outside {
        top: String,
        /// All of the path, after the links of the package.
        path: PathBuf,
    },
}

/// Follows a path through the package's directories and links.
fn look_up(tree: &Tree, path: &AbsolutePath) -> Lookup {
    let mut links = 0;
    // Segments still to go, the next one last.
    let mut ahead: Vec<String> = path.segments().map(str::to_owned).collect();
    ahead.reverse();
    let mut at = String::new();
    while let Some(segment) = ahead.pop() {
        match segment.as_str() {
            "" | "." => continue,
            ".." => {
                at.truncate(at.rfind('/').unwrap_or(0));
                continue;
            }
            _ => {}
        }
        let next = if at.is_empty() { segment.clone() } else { format!("{at}/{segment}") };
        match tree.get(&next) {
            None if at.is_empty() => {
                let rest = ahead.iter().rev().map(String::as_str);
                let path = Path::new("/").join(&segment).join(rest.collect::<PathBuf>());
                return Lookup::Outside { top: segment, path };
            }
            None => return Lookup::Missing,
            Some(Item::Directory) => at = next,
            Some(Item::File { executable, .. }) if ahead.is_empty() => {
                return Lookup::File { executable: *executable };
            }
            Some(Item::File { .. }) => return Lookup::Missing,
            Some(Item::Symlink(target)) => {
                links += 1;
                if links > LINKS_MAX {
                    return Lookup::Missing;
                }
                if target.starts_with('/') {
                    at.clear();
                }
                ahead.extend(target.split('/').rev().map(str::to_owned));
            }
        }
    }
    Lookup::Directory
}

/// Checks the program, and the first argument when it is a path under `/app`: an interpreter's
/// script. The package's directories are read-only, so nothing can appear there later. Returns the
/// program that the host must have, when it is not the package's.
pub(super) fn check(
    agentfile: &Agentfile,
    agent: &ResolvedAgent,
    tree: &Tree,
) -> Result<Option<PathBuf>, BuildError> {
    let Some(run) = &agent.run else { return Ok(None) };
    let entrypoint = &run.entrypoint;
    let of_host = check_program(agentfile, agent, &entrypoint.program, tree)?;
    let script = entrypoint.arguments.first().and_then(|text| text.as_str().parse::<AbsolutePath>().ok());
    let app = APP_DIRECTORY.parse::<AbsolutePath>().ok();
    match script.filter(|path| app.as_ref().is_some_and(|app| path.is_within(app))) {
        Some(path) if matches!(look_up(tree, &path), Lookup::Missing | Lookup::Outside { .. }) => {
            let message = format!("`{path}` is not in the package, which has {}", neighbours(tree, &path));
            Err(agentfile.error_at("run.entrypoint[1]", message).into())
        }
        _ => Ok(of_host),
    }
}

/// Whether this machine has a program that the host must have. What cannot be seen from here, for
/// lack of rights, is left to the start.
pub(super) fn check_host(agentfile: &Agentfile, program: &Path) -> Option<AgentfileError> {
    let wrong = match program.metadata() {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            "is not on this machine"
        }
        Err(_) => return None,
        Ok(found) if found.is_dir() => "is a directory on this machine",
        Ok(found) if found.permissions().mode() & 0o111 == 0 => "is not executable on this machine",
        Ok(_) => return None,
    };
    let message = format!("`{}` {wrong}, and the package does not have it", program.display());
    Some(agentfile.error_at("run.entrypoint[0]", message))
}

fn check_program(
    agentfile: &Agentfile,
    agent: &ResolvedAgent,
    program: &AbsolutePath,
    tree: &Tree,
) -> Result<Option<PathBuf>, BuildError> {
    let error = |message: String| Err(agentfile.error_at("run.entrypoint[0]", message).into());
    let on_host = agent.root == RootKind::Host;
    let granted = agent.capabilities.permits(&Access::Exec(program.clone()));
    let of_host = |top: &str| on_host && HOST_DIRECTORIES.contains(&top);
    match look_up(tree, program) {
        Lookup::File { executable: true } => Ok(None),
        Lookup::File { executable: false } => {
            error(format!("`{program}` is not executable: chmod +x it, or name its interpreter first"))
        }
        Lookup::Directory => error(format!("`{program}` is a directory, expected a program")),
        Lookup::Outside { top, path } if of_host(&top) || (on_host && granted) => Ok(Some(path)),
        Lookup::Missing if program.segments().next().is_some_and(of_host) => {
            Ok(Some(program.as_path().to_owned()))
        }
        Lookup::Missing | Lookup::Outside { .. } => {
            error(format!("`{program}` is not in the package, which has {}", neighbours(tree, program)))
        }
    }
}

/// What the package has where the path was looked for, or at its top.
fn neighbours(tree: &Tree, path: &AbsolutePath) -> String {
    const SHOWN: usize = 5;
    let mut above =
        path.parent().map(|parent| parent.as_str().trim_start_matches('/').to_owned()).unwrap_or_default();
    if tree.get(&above).is_none() {
        above.clear();
    }
    let prefix = if above.is_empty() { String::new() } else { format!("{above}/") };
    let inside = |(path, _): (&str, &Item)| {
        let name = path.strip_prefix(&prefix)?;
        (!name.contains('/')).then(|| format!("`/{path}`"))
    };
    let mut names: Vec<String> = tree.iter().filter_map(inside).take(SHOWN + 1).collect();
    if names.is_empty() {
        return format!("nothing in `/{above}`");
    }
    if names.len() > SHOWN {
        names.truncate(SHOWN);
        names.push("…".to_owned());
    }
    names.join(", ")
}
