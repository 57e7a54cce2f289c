//! From the strings of a call to valid types. Every string is bounded before it is looked at.

use aos_client::{ChangeOptions, CheckpointOptions, RunOptions, WorkspaceOptions};
use aos_core::capability::CapabilitySet;
use aos_core::config::Limits;
use aos_core::id::{AgentId, PackageRef};
use aos_core::quantity::TaskCount;
use aos_core::workspace::{NAME_MAX_BYTES, Operation, PATHS_MAX};

use crate::change::Apply;
use crate::checkpoint::{Extent, Which};
use crate::failure::Failure;
use crate::service::RunRequest;

/// Longest short string: references with a digest have 140 characters.
pub(super) const SHORT_MAX: usize = 256;
/// Most arguments of `Run`.
const ARGUMENTS_MAX: usize = 256;
/// Bytes of all arguments of `Run` together; the plan that carries them is bounded too.
const ARGUMENTS_BYTES_MAX: usize = 128 * 1024;
/// Most capabilities of a call, each at most [`CAPABILITY_MAX`] bytes.
const CAPABILITIES_MAX: usize = 256;
const CAPABILITY_MAX: usize = 8 * 1024;
/// Bytes of a path in a workspace: the kernel's PATH_MAX.
const PATH_MAX: usize = 4096;
/// Bytes of all paths of a commit: they travel in a credential, of which systemd allows 1 MiB, and escaped.
const PATHS_BYTES_MAX: usize = 128 * 1024;
/// Checkpoints that one call removes.
const CHECKPOINTS_MAX: usize = 1000;

pub(super) fn bounded<'a>(what: &str, text: &'a str, max: usize) -> Result<&'a str, Failure> {
    if text.len() > max {
        return Err(Failure::invalid(format!("{what} has {} bytes, at most {max} are allowed", text.len())));
    }
    Ok(text)
}

/// An agent id.
pub(super) fn agent_id(text: &str) -> Result<AgentId, Failure> {
    bounded("the agent id", text, SHORT_MAX)?.parse().map_err(Failure::invalid)
}

/// A package reference.
pub(super) fn reference(text: &str) -> Result<PackageRef, Failure> {
    bounded("the reference", text, SHORT_MAX)?.parse().map_err(Failure::invalid)
}

/// What `Workspace` asks for. Paths are relative to the workspace; `aos-workspace` looks at what they say.
pub(super) fn workspace_operation(
    word: &str,
    options: WorkspaceOptions,
    now_us: u64,
) -> Result<Operation, Failure> {
    let WorkspaceOptions { patch, paths, to, name } = options;
    let given = (patch.is_some(), paths.is_some(), to.is_some(), name.is_some());
    let operation = match (word, given) {
        ("diff", (_, false, false, false)) => Operation::Diff { patch: patch == Some(true) },
        ("commit", (false, _, false, false)) => {
            Operation::Commit { paths: workspace_paths(paths.unwrap_or_default())? }
        }
        ("discard", (false, false, _, false)) => Operation::Discard { to },
        ("snapshot", (false, false, false, _)) => {
            if let Some(name) = &name
                && (bounded("the snapshot's name", name, NAME_MAX_BYTES)?.is_empty()
                    || name.chars().any(char::is_control))
            {
                return Err(Failure::invalid("a snapshot's name is one line of text"));
            }
            Operation::Snapshot { name, at_us: now_us }
        }
        ("snapshots", (false, false, false, false)) => Operation::Snapshots,
        ("diff" | "commit" | "discard" | "snapshot" | "snapshots", _) => {
            return Err(Failure::invalid(format!("{word} has an option that belongs to another operation")));
        }
        _ => {
            return Err(Failure::invalid(
                "the operation is none of diff, commit, discard, snapshot and snapshots",
            ));
        }
    };
    Ok(operation)
}

fn workspace_paths(paths: Vec<String>) -> Result<Vec<String>, Failure> {
    if paths.len() > PATHS_MAX {
        return Err(Failure::invalid(format!("{} paths, at most {PATHS_MAX} are allowed", paths.len())));
    }
    for path in &paths {
        bounded("a path", path, PATH_MAX)?;
    }
    let bytes: usize = paths.iter().map(String::len).sum();
    if bytes > PATHS_BYTES_MAX {
        return Err(Failure::invalid(format!(
            "the paths have {bytes} bytes, at most {PATHS_BYTES_MAX} are allowed; name a directory above them"
        )));
    }
    Ok(paths)
}

/// What `Checkpoint` asks for.
pub(super) fn checkpoint(options: CheckpointOptions) -> Result<(Option<String>, Extent), Failure> {
    let name = options.name.map(|name| checkpoint_name(&name)).transpose()?;
    let extent = if options.processes == Some(true) { Extent::Processes } else { Extent::Files };
    Ok((name, extent))
}

/// Begins with a letter, so that it is no number.
fn checkpoint_name(text: &str) -> Result<String, Failure> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let is_name = bounded("the checkpoint's name", text, NAME_MAX_BYTES)?.bytes().all(is_plain)
        && text.starts_with(|first: char| first.is_ascii_alphabetic());
    match is_name {
        true => Ok(text.to_owned()),
        false => Err(Failure::invalid(
            "a checkpoint's name has letters, digits, `.`, `_` and `-`, and begins with a letter",
        )),
    }
}

/// A checkpoint by its number or name; the empty text is the newest.
pub(super) fn which_checkpoint(text: &str) -> Result<Which, Failure> {
    if text.is_empty() {
        return Ok(Which::Newest);
    }
    match bounded("the checkpoint", text, SHORT_MAX)?.parse() {
        Ok(number) => Ok(Which::Number(number)),
        Err(_) => checkpoint_name(text).map(Which::Name),
    }
}

/// Checkpoints to be removed: each is named.
pub(super) fn checkpoints(texts: &[String]) -> Result<Vec<Which>, Failure> {
    if texts.is_empty() || texts.len() > CHECKPOINTS_MAX || texts.iter().any(String::is_empty) {
        return Err(Failure::invalid(format!(
            "from 1 to {CHECKPOINTS_MAX} checkpoints, each by number or name"
        )));
    }
    texts.iter().map(|text| which_checkpoint(text)).collect()
}

/// What `Run` asks for.
pub(super) fn run_request(arguments: Vec<String>, options: RunOptions) -> Result<RunRequest, Failure> {
    let bytes: usize = arguments.iter().map(String::len).sum();
    if arguments.len() > ARGUMENTS_MAX || bytes > ARGUMENTS_BYTES_MAX {
        return Err(Failure::invalid(format!(
            "{} arguments with {bytes} bytes; at most {ARGUMENTS_MAX} with {ARGUMENTS_BYTES_MAX} bytes are allowed",
            arguments.len()
        )));
    }
    let capabilities = options.capabilities.map(|lines| capability_set(&lines)).transpose()?;
    let short = |text: Option<String>| {
        text.map(|text| bounded("a limit", &text, SHORT_MAX).map(str::to_owned)).transpose()
    };
    let limits = Limits {
        memory: short(options.memory)?.map(|text| text.parse().map_err(Failure::invalid)).transpose()?,
        cpu: short(options.cpu)?.map(|text| text.parse().map_err(Failure::invalid)).transpose()?,
        runtime: short(options.runtime)?.map(|text| text.parse().map_err(Failure::invalid)).transpose()?,
        tasks: options.tasks.map(task_count).transpose()?,
        ..Limits::default()
    };
    Ok(RunRequest { arguments, capabilities, limits })
}

pub(super) fn task_count(count: u64) -> Result<TaskCount, Failure> {
    let count = u32::try_from(count).ok().and_then(TaskCount::new);
    count.ok_or_else(|| Failure::invalid("the task limit is out of range"))
}

/// A set of capabilities.
pub(super) fn capability_set(lines: &[String]) -> Result<CapabilitySet, Failure> {
    if lines.len() > CAPABILITIES_MAX {
        return Err(Failure::invalid(format!(
            "{} capabilities, at most {CAPABILITIES_MAX} are allowed",
            lines.len()
        )));
    }
    for line in lines {
        bounded("a capability", line, CAPABILITY_MAX)?;
    }
    CapabilitySet::parse(lines.iter().map(String::as_str)).map_err(Failure::invalid)
}

/// What happens to a run when its agent's capabilities change.
pub(super) fn apply(options: &ChangeOptions) -> Result<Apply, Failure> {
    match options.apply.as_deref() {
        None => Ok(Apply::NextStart),
        Some("restart") => Ok(Apply::Restart),
        Some("stop") => Ok(Apply::Stop),
        Some(_) => Err(Failure::invalid("the option apply is `restart` or `stop`, or left out")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aos_client::ErrorKind;

    #[test]
    fn what_happens_to_a_run_is_one_of_three() {
        let parsed = |word: Option<&str>| apply(&ChangeOptions { apply: word.map(str::to_owned) });
        assert_eq!(parsed(None).unwrap(), Apply::NextStart);
        assert_eq!(parsed(Some("restart")).unwrap(), Apply::Restart);
        assert_eq!(parsed(Some("stop")).unwrap(), Apply::Stop);
        for bad in ["", "Stop", "now"] {
            assert_eq!(parsed(Some(bad)).unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
    }

    #[test]
    fn checkpoints_have_numbers_or_names() {
        assert_eq!(which_checkpoint("").unwrap(), Which::Newest);
        assert_eq!(which_checkpoint("12").unwrap(), Which::Number(12));
        assert_eq!(which_checkpoint("a.1_b-C").unwrap(), Which::Name("a.1_b-C".to_owned()));
        for bad in ["1a", "-x", "a b", "a/b", "..", "a\n", "\u{e9}", &*"x".repeat(65), "99999999999"] {
            assert!(which_checkpoint(bad).is_err(), "{bad}");
            let options = CheckpointOptions { name: Some(bad.to_owned()), ..CheckpointOptions::default() };
            assert!(checkpoint(options).is_err(), "{bad}");
        }
        let named = CheckpointOptions { name: Some("7".to_owned()), ..CheckpointOptions::default() };
        assert!(checkpoint(named).is_err(), "a number is no name");
        assert!(checkpoints(&[]).is_err() && checkpoints(&[String::new()]).is_err());
    }

    #[test]
    fn operations_on_a_workspace_have_their_own_options() {
        let options = WorkspaceOptions::default;
        for operation in [
            Operation::Diff { patch: true },
            Operation::Commit { paths: vec!["a b".to_owned()] },
            Operation::Discard { to: Some(3) },
            Operation::Snapshot { name: Some("n".to_owned()), at_us: 7 },
            Operation::Snapshots,
        ] {
            let (word, options) = aos_client::workspace::spelled(&operation);
            assert_eq!(workspace_operation(word, options, 7).unwrap(), operation);
        }
        let bad = |word: &str, options| workspace_operation(word, options, 7).unwrap_err().kind();
        for (word, options) in [
            ("merge", options()),
            ("diff", WorkspaceOptions { to: Some(1), ..options() }),
            ("discard", WorkspaceOptions { paths: Some(Vec::new()), ..options() }),
            ("commit", WorkspaceOptions { paths: Some(vec![String::new(); 1001]), ..options() }),
            ("commit", WorkspaceOptions { paths: Some(vec!["x".repeat(5000)]), ..options() }),
            ("commit", WorkspaceOptions { paths: Some(vec!["x".repeat(4000); 100]), ..options() }),
            ("snapshot", WorkspaceOptions { name: Some("a\nb".to_owned()), ..options() }),
            ("snapshot", WorkspaceOptions { name: Some("x".repeat(65)), ..options() }),
        ] {
            assert_eq!(bad(word, options), ErrorKind::InvalidArgument, "{word}");
        }
    }

    #[test]
    fn everything_is_bounded() {
        let long = "x".repeat(100_000);
        assert_eq!(agent_id(&long).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(reference(&long).unwrap_err().kind(), ErrorKind::InvalidArgument);
        let options = RunOptions::default;
        assert!(run_request(vec![String::new(); 257], options()).is_err());
        assert!(run_request(vec![long.clone(), long.clone()], options()).is_err());
        assert!(run_request(vec!["a".into()], options()).is_ok());
        for bad in [
            RunOptions { memory: Some(long.clone()), ..options() },
            RunOptions { memory: Some("lots".into()), ..options() },
            RunOptions { tasks: Some(0), ..options() },
            RunOptions { tasks: Some(u64::MAX), ..options() },
            RunOptions { capabilities: Some(vec![long]), ..options() },
            RunOptions { capabilities: Some(vec!["tea".into()]), ..options() },
            RunOptions { capabilities: Some(vec!["file_read: /a/**".into(); 257]), ..options() },
        ] {
            assert_eq!(run_request(vec![], bad).unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
    }
}
