//! `aos-quota`: puts an agent's limit on the disk in force, as the agent's own user.
//!
//! Runs from `aos-quota@ID.service` before the agent starts; nobody else calls it. It has three capabilities: to set
//! a quota (`CAP_SYS_ADMIN`), to open what the agent closed to itself (`CAP_DAC_READ_SEARCH`), and to mark what root put
//! there (`CAP_FOWNER`); no network and no D-Bus. What the limit is, says the supervisor's note
//! (`aos_sandbox::plan::DiskLimit`): whatever is in it, only the project of this very user is limited.
//!
//! When it fails the agent does not start: the launcher looks at what is in force itself.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aos_sandbox::plan::{DiskLimit, NOTE_MAX_BYTES};
use aos_workspace::quota::Limited;

const USAGE: &str = "usage: aos-quota NOTE DIRECTORY...";

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    match run(&arguments) {
        Ok(lines) => {
            lines.iter().for_each(|line| tell(line));
            ExitCode::SUCCESS
        }
        Err(message) => {
            tell(&message);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a one-shot unit reports to the journal by standard error")]
fn tell(message: &str) {
    eprintln!("aos-quota: {message}");
}

fn run(arguments: &[PathBuf]) -> Result<Vec<String>, String> {
    let (note, directories) = match arguments {
        [note, directories @ ..] if !directories.is_empty() => (note, directories),
        _ => return Err(USAGE.to_owned()),
    };
    let project = rustix::process::geteuid();
    if project.is_root() {
        return Err("it never runs as root: project 0 is everything that has no limit".to_owned());
    }
    let limit = read(note)?;
    directories.iter().map(|directory| apply(directory, project.as_raw(), limit)).collect()
}

fn read(path: &Path) -> Result<Option<DiskLimit>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot read {}: {error}", path.display());
    let mut text = String::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    let max = u64::try_from(NOTE_MAX_BYTES).unwrap_or(u64::MAX);
    file.take(max + 1).read_to_string(&mut text).map_err(|error| failed(&error))?;
    DiskLimit::parse_note(&text).ok_or_else(|| failed(&"it is no note of a limit"))
}

fn apply(directory: &Path, project: u32, limit: Option<DiskLimit>) -> Result<String, String> {
    let words = |error: &dyn std::error::Error| {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{error}{cause}")
    };
    let done = Limited::open(directory, project)
        .and_then(|opened| opened.limit(limit))
        .map_err(|error| words(&error))?;
    let asked = limit.map_or_else(
        || "no limit".to_owned(),
        |limit| format!("at most {} bytes and {} files", limit.bytes, limit.inodes),
    );
    Ok(format!(
        "{}: {asked} for project {project}, which has {} bytes and {} files; {} marked",
        directory.display(),
        done.used_bytes,
        done.used_inodes,
        done.marked
    ))
}
