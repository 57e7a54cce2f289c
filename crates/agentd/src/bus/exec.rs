//! From the words of `Exec` to a request for a launcher.

use std::collections::BTreeMap;

use aos_client::ExecOptions;
use aos_core::quantity::{ByteSize, DurationSpec, TaskCount};
use aos_sandbox::call::{CALL_VERSION, CallRequest};

use super::parse::{self, SHORT_MAX, bounded};
use crate::failure::Failure;

/// Bytes of a path inside: the kernel's `PATH_MAX`.
const PATH_MAX: usize = 4096;

/// The request. What of it is bounded by the launcher's format, that bounds.
pub(super) fn call_request(argv: Vec<String>, options: ExecOptions) -> Result<CallRequest, Failure> {
    let ExecOptions { env, workdir, capabilities, memory, tasks, timeout } = options;
    let short = |text: &str| bounded("a limit", text, SHORT_MAX).map(str::to_owned);
    let memory: Option<ByteSize> =
        memory.map(|text| short(&text)?.parse().map_err(Failure::invalid)).transpose()?;
    let timeout: Option<DurationSpec> =
        timeout.map(|text| short(&text)?.parse().map_err(Failure::invalid)).transpose()?;
    let tasks: Option<TaskCount> = tasks.map(parse::task_count).transpose()?;
    let cwd = workdir
        .map(|text| bounded("the working directory", &text, PATH_MAX)?.parse().map_err(Failure::invalid))
        .transpose()?;
    let request = CallRequest {
        version: CALL_VERSION,
        argv,
        env: variables(env.unwrap_or_default())?,
        cwd,
        capabilities: capabilities.map(|lines| parse::capability_set(&lines)).transpose()?,
        memory_max_bytes: memory.map(ByteSize::bytes),
        tasks_max: tasks.map(|count| u64::from(count.get())),
        timeout_ms: timeout.map(|span| span.seconds().saturating_mul(1000)),
    };
    // Its bounds are those of the bytes that a launcher takes.
    request.to_json().map_err(Failure::invalid)?;
    Ok(request)
}

fn variables(lines: Vec<String>) -> Result<BTreeMap<String, String>, Failure> {
    let mut variables = BTreeMap::new();
    for line in lines {
        let Some((name, value)) = line.split_once('=') else {
            return Err(Failure::invalid("a variable is written NAME=VALUE"));
        };
        variables.insert(name.to_owned(), value.to_owned());
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aos_client::ErrorKind;

    #[test]
    fn options_become_a_request() {
        let options = ExecOptions {
            env: Some(vec!["A=b=c".to_owned()]),
            workdir: Some("/workspace".to_owned()),
            capabilities: Some(Vec::new()),
            memory: Some("64M".to_owned()),
            tasks: Some(3),
            timeout: Some("1m".to_owned()),
        };
        let request = call_request(vec!["true".to_owned()], options).unwrap();
        assert_eq!(request.env["A"], "b=c");
        assert!(request.capabilities.is_some_and(|set| set.is_empty()));
        assert_eq!((request.memory_max_bytes, request.tasks_max), (Some(64 << 20), Some(3)));
        assert_eq!(request.timeout_ms, Some(60_000));
    }

    #[test]
    fn what_no_launcher_takes_is_refused() {
        let options = ExecOptions::default;
        let long = "x".repeat(200_000);
        for (argv, options) in [
            (vec![], options()),
            (vec![long.clone()], options()),
            (vec!["a".to_owned()], ExecOptions { memory: Some(long.clone()), ..options() }),
            (vec!["a".to_owned()], ExecOptions { memory: Some("1K".into()), ..options() }),
            (vec!["a".to_owned()], ExecOptions { workdir: Some("relative".into()), ..options() }),
            (vec!["a".to_owned()], ExecOptions { workdir: Some(long.clone()), ..options() }),
            (vec!["a".to_owned()], ExecOptions { env: Some(vec!["A".into()]), ..options() }),
            (vec!["a".to_owned()], ExecOptions { env: Some(vec!["=b".into()]), ..options() }),
            (vec!["a".to_owned()], ExecOptions { tasks: Some(0), ..options() }),
            (vec!["a".to_owned()], ExecOptions { timeout: Some("soon".into()), ..options() }),
            (vec!["a".to_owned()], ExecOptions { capabilities: Some(vec!["tea".into()]), ..options() }),
        ] {
            assert_eq!(call_request(argv, options).unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
    }
}
