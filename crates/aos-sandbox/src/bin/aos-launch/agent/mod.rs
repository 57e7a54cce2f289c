//! The process that becomes the agent: it restricts itself, layer by layer, and executes.

pub(crate) mod limits;

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use aos_sandbox::plan::SandboxPlan;
use aos_sys::{process, seccomp, signal};
use rustix::fs::{Access, CWD, Mode, OFlags, ResolveFlags, access, openat2};
use rustix::io::Errno;
use rustix::process::{fchdir, setsid};

use crate::error::{self, Context, LaunchError, Layer, fail};
use crate::landlock;
use crate::message::Sender;
use crate::probe::Outside;
use crate::record;
use crate::report::{self, Before};

/// Becomes the agent. Returns only when a layer is missing, with its exit status; the launcher then
/// prints why. This process shares the init's memory: what it is lent, it does not take apart.
pub(crate) fn run(
    plan: &SandboxPlan,
    before: &Before,
    probes: &Outside,
    record_socket: Option<&OwnedFd>,
    sender: &mut Sender,
) -> u8 {
    let Err(error) = become_agent(plan, before, probes, record_socket, sender);
    sender.tell(&error);
    error.layer().exit_status()
}

fn become_agent(
    plan: &SandboxPlan,
    before: &Before,
    probes: &Outside,
    record_socket: Option<&OwnedFd>,
    sender: &mut Sender,
) -> Result<Infallible, LaunchError> {
    let program = Executable::new(plan)?;
    let filter = plan.seccomp.compile();
    // A session of its own has no controlling terminal.
    setsid().layer(Layer::Process, "cannot leave the session")?;
    limits::apply(&plan.rlimits)?;
    enter(plan.program.cwd.as_path()).layer(Layer::Directory, &plan.program.cwd)?;
    let landlock = landlock::apply(plan)?;
    probes.check_landlock(plan)?;
    signal::reset_for_exec().layer(Layer::Process, "cannot reset signals")?;
    seccomp::install(filter).layer(Layer::Seccomp, error::NO_FILTER)?;
    probes.check_seccomp(plan.purpose)?;
    let report = report::confirm(plan, before, landlock)?;
    let bytes = report.to_json().layer(Layer::Report, "cannot write the report")?;
    record::begin(record_socket)?;
    sender.in_force(&report::summary(&report), &bytes)?;
    process::exec(&program.path, &program.arguments, &program.environment)
        .layer(Layer::Exec, format!("cannot execute {}", program.path.to_string_lossy()))
}

/// Makes a directory of the tree the working directory. Not by a link of `/proc`: what is on the way may be the agent's,
/// from an earlier run or beside a call, and this process has folders open that are outside the tree.
fn enter(directory: &Path) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fchdir(openat2(CWD, directory, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?)
}

/// The program in the form that the kernel takes.
struct Executable {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Executable {
    fn new(plan: &SandboxPlan) -> Result<Self, LaunchError> {
        let text = |text: &str| CString::new(text).layer(Layer::Plan, "a NUL byte in the program");
        let arguments: Vec<CString> =
            plan.program.argv.iter().map(|one| text(one)).collect::<Result<_, _>>()?;
        let variables = plan.program.env.iter().map(|(name, value)| text(&format!("{name}={value}")));
        let program = plan.program.argv.first().map_or("", String::as_str);
        let path = if program.contains('/') { program.to_owned() } else { in_path(plan, program)? };
        Ok(Self { path: text(&path)?, environment: variables.collect::<Result<_, _>>()?, arguments })
    }
}

/// The first file of a name in the `PATH` of a step that may be executed.
fn in_path(plan: &SandboxPlan, name: &str) -> Result<String, LaunchError> {
    let path = plan.program.env.get("PATH").map_or("", String::as_str);
    let mut candidates = path
        .split(':')
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| format!("{}/{name}", directory.trim_end_matches('/')));
    let found = candidates.find(|candidate| access(candidate.as_str(), Access::EXEC_OK).is_ok());
    found.map_or_else(|| fail(Layer::Exec, format!("{name} is not in PATH")), Ok)
}
