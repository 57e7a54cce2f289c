//! Whether a backend works on this machine: found by running a program in it, not by looking for it.

#![expect(clippy::disallowed_methods, reason = "this module asks the backends' programs for their versions")]

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use aos_core::config::ResolvedAgent;
use aos_core::path::AbsolutePath;
use aos_core::report::{LaunchReport, REPORT_MAX_BYTES};
use aos_sandbox::launch::contents;
use aos_sandbox::plan::{PlanInput, SandboxPlan, derive};
use thiserror::Error;

use crate::backend::Backend;
use crate::facade::{Io, Running, StartError, User, start};
use crate::programs::Programs;

/// A virtual machine without hardware support boots within half a minute on a slow machine; everything
/// else is done within a second.
const PATIENCE: Duration = Duration::from_secs(20);
const PATIENCE_VM: Duration = Duration::from_secs(120);
/// For a program that prints its version.
const PATIENCE_VERSION: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);
/// Bytes of the words of a failing backend that are shown.
const WORDS_MAX: u64 = 4096;
/// The user of a probe that root makes: none that an account has. Below the range of build steps.
const PROBE_UID: u32 = 1_879_113_600;

/// A backend that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Works {
    /// The version of its program.
    pub version: String,
    /// What it was made of this time, such as the kernel of a machine and whether it is emulated; empty where there
    /// is nothing to choose.
    pub detail: String,
}

/// Why a backend does not work.
#[derive(Debug, Error)]
pub enum WhyNot {
    /// It is not there, or cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// What the probe needs could not be made.
    #[error("cannot prepare the probe")]
    Prepare(#[from] io::Error),
    /// No plan for the probe.
    #[error("cannot plan the probe: {0}")]
    Plan(String),
    /// The program inside did not run.
    #[error("{0}")]
    Ended(String),
    /// It took too long.
    #[error("a program inside did not end within {0} seconds")]
    Slow(u64),
}

/// Runs a program in the backend.
pub fn probe(backend: Backend, programs: &Programs) -> Result<Works, WhyNot> {
    let directory = Directory::make()?;
    let plan = plan(&directory)?;
    let mut words = directory.file("words")?;
    let mut report = directory.file("report")?;
    let io = Io {
        stdin: Stdio::null(),
        stdout: Stdio::null(),
        stderr: words.try_clone()?.into(),
        report: Some(report.try_clone()?),
    };
    let user = rustix::process::geteuid().is_root().then_some(User { uid: PROBE_UID, gid: PROBE_UID });
    let running = start(backend, &plan, io, user, programs)?;
    let patience = if backend == Backend::Vm { PATIENCE_VM } else { PATIENCE };
    let status = within(running, patience)?;
    report.rewind()?;
    let report = contents::read(report, REPORT_MAX_BYTES as u64)?;
    match (status, LaunchReport::parse(&report)) {
        (0, Ok(report)) if report.layers.iter().any(|layer| layer.layer == "seccomp") => {
            let isolation = report.layers.into_iter().find(|layer| layer.layer == "isolation");
            let detail = isolation.map_or_else(String::new, |layer| layer.detail);
            Ok(Works { version: version(backend, programs), detail })
        }
        _ => Err(WhyNot::Ended(explain(status, &text(&mut words)?))),
    }
}

fn within(mut running: Running, patience: Duration) -> Result<i32, WhyNot> {
    let started = Instant::now();
    loop {
        if let Some(status) = running.try_wait()? {
            return Ok(status);
        }
        if started.elapsed() > patience {
            running.kill()?;
            return Err(WhyNot::Slow(patience.as_secs()));
        }
        sleep(PAUSE);
    }
}

/// The backend's own words, in one line, or its status.
fn explain(status: i32, words: &str) -> String {
    let lines: Vec<&str> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.as_slice() {
        [] => format!("a program inside ended with status {status} and said nothing"),
        lines => lines.join("; "),
    }
}

fn text(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(WORDS_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A plan without any grant: the program `true` of the host.
fn plan(directory: &Directory) -> Result<SandboxPlan, WhyNot> {
    let failed = |error: String| WhyNot::Plan(error);
    let agent = serde_json::json!({
        "capabilities": [], "limits": {}, "name": "probe", "version": "1.0.0", "root": "host",
        "run": { "entrypoint": ["/usr/bin/true"], "lifecycle": "oneshot", "workdir": "/" },
    });
    let agent = ResolvedAgent::from_json(agent.to_string().as_bytes())
        .map_err(|error| failed(format!("{error:?}")))?;
    let path = |name: &str| -> Result<AbsolutePath, WhyNot> {
        let path = directory.0.join(name);
        path.display().to_string().parse().map_err(|error| failed(format!("{error}")))
    };
    derive(&PlanInput {
        agent: &agent,
        id: &"probe".parse().map_err(|error| failed(format!("{error}")))?,
        arguments: &[],
        rootfs: &path("rootfs")?,
        entries: &[],
        workspace: &path("workspace")?,
    })
    .map_err(|error| failed(error.to_string()))
}

/// The first line of what the program says of its version.
fn version(backend: Backend, programs: &Programs) -> String {
    let said = programs.find(backend).and_then(|program| ask(&program));
    let own = || env!("CARGO_PKG_VERSION").to_owned();
    said.as_deref()
        .and_then(number)
        .unwrap_or_else(|| if backend == Backend::Native { own() } else { "unknown".to_owned() })
}

fn ask(program: &Path) -> Option<String> {
    let mut child = Command::new(program);
    child.arg("--version").env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = child.spawn().ok()?;
    let started = Instant::now();
    while child.try_wait().ok()?.is_none() {
        if started.elapsed() > PATIENCE_VERSION {
            child.kill().ok()?;
        }
        sleep(PAUSE);
    }
    let mut text = String::new();
    child.stdout?.take(WORDS_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The first word that starts with a digit and has a dot.
fn number(text: &str) -> Option<String> {
    let is_number =
        |word: &&str| word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.');
    text.split_whitespace().find(is_number).map(str::to_owned)
}

/// The probe's package and workspace, removed with the value.
struct Directory(PathBuf);

impl Directory {
    /// Below `/var/tmp`, which every user may write to and no plan shows.
    fn make() -> io::Result<Self> {
        let name = format!("aos-probe-{}-{:?}", std::process::id(), std::thread::current().id());
        let name: String =
            name.chars().filter(|letter| letter.is_ascii_alphanumeric() || *letter == '-').collect();
        let path = Path::new("/var/tmp").join(name);
        fs::create_dir(&path)?;
        let directory = Self(path);
        for name in ["rootfs", "workspace"] {
            fs::create_dir(directory.0.join(name))?;
        }
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(directory.0.join("workspace"), Some(PROBE_UID), Some(PROBE_UID))?;
        }
        Ok(directory)
    }

    fn file(&self, name: &str) -> io::Result<File> {
        let path = self.0.join(name);
        File::options().read(true).write(true).create_new(true).open(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed is swept by systemd-tmpfiles; there is nobody to tell.
        fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_print() {
        assert_eq!(number("crun version 1.21\ncommit: abc"), Some("1.21".to_owned()));
        assert_eq!(number("runsc version 0.0~20240729.0\nspec: 1.2.0"), Some("0.0~20240729.0".to_owned()));
        assert_eq!(number("usage: x"), None);
    }

    #[test]
    fn a_backend_that_is_not_there_says_so() {
        let error = probe(Backend::Crun, &Programs::in_directories(Vec::new())).unwrap_err();
        assert!(matches!(error, WhyNot::Start(StartError::Missing { .. })), "{error}");
    }
}
