//! Checks that what the entrypoint names is in the package, so that a wrong path is found when the
//! package is built and not when it runs; and that a skill has its file.

use crate::error::BuildError;
use crate::tree::{Lookup, Node, Tree};
use aos_core::agentfile::{APP_DIRECTORY, Agentfile, AgentfileError, SKILL_DIRECTORY, SKILL_FILE};
use aos_core::capability::Access;
use aos_core::config::{Entrypoint, ResolvedAgent, RootKind};
use aos_core::path::AbsolutePath;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What a package on the host's root sees of the host.
const HOST_DIRECTORIES: [&str; 5] = ["usr", "bin", "sbin", "lib", "lib64"];

/// Checks the program, and the first argument when it is a path under `/app`: an interpreter's
/// script. The package's directories are read-only, so nothing can appear there later. Returns the
/// program that the host must have, when it is not the package's.
pub(crate) fn check(
    agentfile: &Agentfile,
    agent: &ResolvedAgent,
    tree: &Tree,
) -> Result<Option<PathBuf>, BuildError> {
    let Some(run) = &agent.run else { return check_skill(agentfile, tree).map(|()| None) };
    let of_host = check_program(agentfile, agent, &run.entrypoint, tree)?;
    let first = run.entrypoint.arguments.first();
    let script = first.and_then(|text| text.as_str().parse::<AbsolutePath>().ok());
    let app = APP_DIRECTORY.parse::<AbsolutePath>().ok();
    match script.filter(|path| app.as_ref().is_some_and(|app| path.is_within(app))) {
        Some(path) if matches!(tree.look_up(&path), Lookup::Missing | Lookup::Outside { .. }) => {
            let message = format!("`{path}` is not in the package, which has {}", neighbours(tree, &path));
            Err(agentfile.error_at("run.entrypoint[1]", message).into())
        }
        _ => Ok(of_host),
    }
}

fn check_skill(agentfile: &Agentfile, tree: &Tree) -> Result<(), BuildError> {
    let path = format!("{SKILL_DIRECTORY}/{SKILL_FILE}");
    let found = path.parse::<AbsolutePath>().map(|path| (tree.look_up(&path), neighbours(tree, &path)));
    match found {
        Ok((Lookup::Entry(..), _)) => Ok(()),
        Ok((_, neighbours)) => {
            let message = format!("a skill has the file `{path}`, and the package has {neighbours}");
            Err(agentfile.error_at("kind", message).into())
        }
        Err(_) => Err(BuildError::Internal("the path of a skill's file")),
    }
}

/// Whether this machine has a program that the host must have. What cannot be seen from here, for
/// lack of rights, is left to the start.
pub(crate) fn check_host(agentfile: &Agentfile, program: &Path) -> Option<AgentfileError> {
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
    entrypoint: &Entrypoint,
    tree: &Tree,
) -> Result<Option<PathBuf>, BuildError> {
    let program = &entrypoint.program;
    let error = |message: String| Err(agentfile.error_at("run.entrypoint[0]", message).into());
    let on_host = agent.root == RootKind::Host;
    let granted = agent.capabilities.permits(&Access::Exec(program.clone()));
    let of_host = |top: &str| on_host && HOST_DIRECTORIES.contains(&top);
    match tree.look_up(program) {
        Lookup::Entry(_, entry) if matches!(entry.node, Node::File { .. }) && entry.mode & 0o111 != 0 => {
            Ok(None)
        }
        Lookup::Entry(..) => {
            error(format!("`{program}` is not executable: chmod +x it, or name its interpreter first"))
        }
        Lookup::Directory(_) => error(format!("`{program}` is a directory, expected a program")),
        Lookup::Outside { top, path } if of_host(&top) || (on_host && granted) => {
            Ok(Some(PathBuf::from(path)))
        }
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
    let skipped = if above.is_empty() { 0 } else { above.len() + 1 };
    let inside = |(path, _)| {
        let path: &str = path;
        let name = path.get(skipped..)?;
        (!name.contains('/')).then(|| format!("`/{path}`"))
    };
    let mut names: Vec<String> = tree.below(&above).filter_map(inside).take(SHOWN + 1).collect();
    if names.is_empty() {
        return format!("nothing in `/{above}`");
    }
    if names.len() > SHOWN {
        names.truncate(SHOWN);
        names.push("…".to_owned());
    }
    names.join(", ")
}
