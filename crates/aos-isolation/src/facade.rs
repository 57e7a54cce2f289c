//! Starting a plan in a backend, and what can be done with what runs.
//!
//! `native` is `aos-launch`; every other backend is driven by `aos-isolate`, which takes the same options.
//! Either is a child of the caller, exits with the agent's status (128 + n for a signal), passes the
//! signals of a service manager on, and takes SIGALRM as the word to end everything inside at once.

#![expect(
    clippy::disallowed_methods,
    reason = "this module starts aos-launch and aos-isolate, and nothing else"
)]

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use aos_sandbox::caller::{exit_status, sealed_in_memory};
use aos_sandbox::plan::{ReadError, SandboxPlan};
use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;

use crate::backend::Backend;
use crate::express::{self, Inexpressible};
use crate::programs::Programs;

/// The numbers of the plan and of the report in the started program.
const PLAN: i32 = 3;
const REPORT: i32 = 4;
/// How long the word to end may take before the process itself is killed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at a process that is about to end.
const PAUSE: Duration = Duration::from_millis(5);

/// The standard streams, and where the report goes.
#[derive(Debug)]
pub struct Io {
    /// Standard input.
    pub stdin: Stdio,
    /// Standard output.
    pub stdout: Stdio,
    /// Standard error.
    pub stderr: Stdio,
    /// A regular file, which has content when the agent's program runs with every layer in force.
    pub report: Option<File>,
}

/// Who the agent runs as: needed when the caller is root, who may choose; else the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
}

/// A plan that was not started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The backend's program is not there. Nothing else is taken instead.
    #[error("isolation {backend}: {program} is not installed (Debian package {package}); see `aos backends`")]
    Missing {
        /// The backend.
        backend: Backend,
        /// The program that was looked for.
        program: &'static str,
        /// What brings it.
        package: &'static str,
    },
    /// The backend cannot enforce the plan.
    #[error(transparent)]
    Inexpressible(#[from] Inexpressible),
    /// The plan is not one.
    #[error("cannot write the plan")]
    Plan(#[from] ReadError),
    /// A call failed.
    #[error("cannot {what}")]
    System {
        /// What was done.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The program could not be started.
    #[error("cannot start {program}")]
    Program {
        /// It.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A running plan. Dropping the value does not end it.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

/// Starts a plan in a backend, whose programs are all there, or says what is missing.
pub fn start(
    backend: Backend,
    plan: &SandboxPlan,
    io: Io,
    user: Option<User>,
    programs: &Programs,
) -> Result<Running, StartError> {
    express::check(backend, plan)?;
    let program = driver(backend, programs)?;
    let plan_file = sealed_in_memory("aos-plan", &plan.to_json()?)
        .map_err(|source| StartError::System { what: "make the plan in memory", source })?;
    let mut mappings = vec![FdMapping { parent_fd: plan_file.into(), child_fd: PLAN }];
    let mut command = Command::new(&program);
    command.env_clear().current_dir("/").args(["--plan-fd", &PLAN.to_string()]);
    if backend != Backend::Native {
        command.args(["--backend", backend.name()]);
        for directory in programs.directories() {
            command.arg("--programs").arg(directory);
        }
    }
    if let Some(report) = io.report {
        mappings.push(FdMapping { parent_fd: report.into(), child_fd: REPORT });
        command.args(["--report-fd", &REPORT.to_string()]);
    }
    if let Some(User { uid, gid }) = user {
        command.args(["--uid", &uid.to_string(), "--gid", &gid.to_string()]);
    }
    command.stdin(io.stdin).stdout(io.stdout).stderr(io.stderr);
    let failed = |source| StartError::Program { program: program.clone(), source };
    command.fd_mappings(mappings).map_err(|error| failed(io::Error::other(error)))?;
    let child = command.spawn().map_err(failed)?;
    Ok(Running { child })
}

/// The program that drives a backend; an error if anything that the backend needs is not installed.
fn driver(backend: Backend, programs: &Programs) -> Result<PathBuf, StartError> {
    let missing = |program, package| StartError::Missing { backend, program, package };
    let launcher = programs.launcher().ok_or_else(|| missing("aos-launch", "agentd"))?;
    if backend == Backend::Native {
        return Ok(launcher);
    }
    programs.find(backend).ok_or_else(|| missing(backend.program(), backend.package()))?;
    programs.isolate().ok_or_else(|| missing("aos-isolate", "agentd"))
}

impl Running {
    /// The process that the caller is the parent of.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Passes a signal to the agent, in the way that a service manager does.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the process has no id"))?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for the end: the agent's status, or 128 and the signal's number.
    pub fn wait(&mut self) -> io::Result<i32> {
        self.child.wait().map(exit_status)
    }

    /// The status, if it has ended.
    pub fn try_wait(&mut self) -> io::Result<Option<i32>> {
        Ok(self.child.try_wait()?.map(exit_status))
    }

    /// Ends everything inside and waits until nothing of it is left.
    pub fn kill(&mut self) -> io::Result<()> {
        let started = Instant::now();
        if self.child.try_wait()?.is_none() {
            self.signal(Signal::ALARM)?;
        }
        while self.child.try_wait()?.is_none() {
            if started.elapsed() > PATIENCE {
                self.child.kill()?;
                self.child.wait()?;
                break;
            }
            sleep(PAUSE);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::tests::plan;

    #[test]
    fn a_backend_that_is_missing_is_an_error_and_nothing_else_is_taken() {
        let nothing = Programs::in_directories(Vec::new());
        for backend in Backend::ALL {
            let io = Io { stdin: Stdio::null(), stdout: Stdio::null(), stderr: Stdio::null(), report: None };
            let error = start(backend, &plan(), io, None, &nothing).unwrap_err().to_string();
            assert!(error.contains(backend.name()) && error.contains("is not installed"), "{error}");
        }
    }
}
