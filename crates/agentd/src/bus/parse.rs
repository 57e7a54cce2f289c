//! From the strings of a call to valid types. Every string is bounded before it is looked at.

use aos_client::RunOptions;
use aos_core::capability::CapabilitySet;
use aos_core::config::Limits;
use aos_core::id::{AgentId, PackageRef};
use aos_core::quantity::TaskCount;

use crate::failure::Failure;
use crate::service::RunRequest;

/// Longest short string: references with a digest have 140 characters.
const SHORT_MAX: usize = 256;
/// Most arguments of `Run`.
const ARGUMENTS_MAX: usize = 256;
/// Bytes of all arguments of `Run` together; the plan that carries them is bounded too.
const ARGUMENTS_BYTES_MAX: usize = 128 * 1024;
/// Most capabilities of a narrowing, each at most [`CAPABILITY_MAX`] bytes.
const CAPABILITIES_MAX: usize = 256;
const CAPABILITY_MAX: usize = 8 * 1024;

fn bounded<'a>(what: &str, text: &'a str, max: usize) -> Result<&'a str, Failure> {
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
        open_files: None,
    };
    Ok(RunRequest { arguments, capabilities, limits })
}

fn task_count(count: u64) -> Result<TaskCount, Failure> {
    let count = u32::try_from(count).ok().and_then(TaskCount::new);
    count.ok_or_else(|| Failure::invalid("the task limit is out of range"))
}

fn capability_set(lines: &[String]) -> Result<CapabilitySet, Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use aos_client::ErrorKind;

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
