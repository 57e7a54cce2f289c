//! `aos-isolate`: runs one agent in a backend other than `native`, as `aos-launch` does in its own way.
//!
//! Small, single-threaded, no async, no network. Processes, outermost first:
//!
//! | process | is | does |
//! |---|---|---|
//! | driver | the caller's child | writes the report, reports readiness, passes signals on, exits with the agent's status |
//! | stage | pid 1 of namespaces of its own | prepares a bundle in memory, starts the runtime, reaps |
//! | runtime | crun, runc or runsc, by its own processes | makes the sandbox and starts the first process in it |
//! | first process | `aos-launch --inside`, in gVisor `aos-isolate enter` | becomes the agent's user, confines, is the init |
//! | agent | its child | becomes the entrypoint |
//!
//! Nothing here is root: the driver becomes the agent's user first, and all mounts are made in a user
//! namespace with this one user. When the driver ends, for whatever reason, the kernel kills the stage, with
//! it its pid namespace, and with that the last mount: no process, mount or file is left.

mod aliases;
mod enter;
mod error;
mod notify;
mod options;
mod parts;
mod runtime;
mod sources;
mod staging;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

use aos_core::report::{LaunchReport, LayerReport, REPORT_MAX_BYTES};
use aos_isolation::backend::Backend;
use aos_isolation::express;
use aos_isolation::oci::Runtime;
use aos_isolation::programs::Programs;
use aos_sandbox::plan::{Identity, SandboxPlan};
use aos_sys::namespace::{self, Inside, Kind};
use aos_sys::process::{self, Fork};
use aos_sys::{capability, network, signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, MemfdFlags, Mode, SealFlags, fcntl_add_seals, fstat, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getrlimit, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::set_no_new_privs;

use error::{Context, Failure, Stage, fail, print_line};
use notify::Notifier;
use options::{Options, User};
use runtime::{ByCommand, Direct, Ending, Passing};
use staging::Area;

/// Bytes of the runtime's own words that are shown when it fails.
const LOG_BYTES: u64 = 4096;

/// What helps where the unit's filter is in the way of gVisor, which traces its own processes.
const FILTERED: &str =
    " (a unit allows gVisor what it needs with `SystemCallFilter=ptrace`: systemctl edit aos-agent@ID)";

fn main() -> ExitCode {
    match Options::from_process()
        .and_then(|options| if options.is_stage { enter::run(&options) } else { drive(&options) })
    {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            print_line(&failure.to_string());
            ExitCode::from(failure.exit_status())
        }
    }
}

/// What the driver and the stage work with.
struct Start {
    backend: Backend,
    plan: SandboxPlan,
    /// The same plan for the first process inside.
    copy: File,
    user: User,
    /// The backend's program.
    program: PathBuf,
    /// Whether a filter of system calls is on this process already, as in a unit.
    is_filtered: bool,
    /// What the runtime executes, by name.
    inside: Vec<(&'static str, PathBuf)>,
}

fn drive(options: &Options) -> Result<u8, Failure> {
    let mut inherited = options.take_inherited()?;
    check_standard()?;
    let notifier = Notifier::from_environment()?;
    let prepared = options.read_plan(&mut inherited).and_then(|plan| {
        let report = options.open_report(&mut inherited)?;
        Ok((prepare(options, plan)?, report))
    });
    let outcome = prepared.and_then(|(start, report)| run(start, report, notifier.as_ref()));
    if let (Some(notifier), Err(failure)) = (&notifier, &outcome) {
        notifier.failed(&failure.to_string());
    }
    outcome
}

/// Checks the plan and the backend, becomes the user, and enters the namespaces.
fn prepare(options: &Options, plan: SandboxPlan) -> Result<Start, Failure> {
    let backend = options.backend(plan.isolation)?;
    express::check(backend, &plan).stage(Stage::Isolation, "the plan")?;
    let programs = options.programs();
    let Some(program) = programs.find(backend) else {
        let (name, package) = (backend.program(), backend.package());
        return fail(
            Stage::Isolation,
            format!("{backend}: {name} is not installed (Debian package {package})"),
        );
    };
    let inside = inside(backend, &programs)?;
    let status = std::fs::read_to_string("/proc/self/status").stage(Stage::Process, "/proc/self/status")?;
    let is_filtered = status.lines().any(|line| line.starts_with("Seccomp:") && line.ends_with('2'));
    let copy = in_memory(&plan)?;
    process::reset_personality().stage(Stage::Process, "cannot reset the execution domain")?;
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    // Sources need a descriptor each; the agent's own limit is set later.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .stage(Stage::Process, "cannot raise the number of open files")?;
    let user = options.become_user()?;
    signal::block_all().stage(Stage::Process, "cannot block signals")?;
    namespace::unshare(&Kind::ALL)
        .stage(Stage::Namespace, "cannot make the namespaces (are unprivileged user namespaces allowed?)")?;
    // The maps belong to root while a process is not dumpable.
    set_dumpable_behavior(DumpableBehavior::Dumpable).stage(Stage::Process, "cannot become dumpable")?;
    namespace::map_user(user.uid, user.gid, Inside::Zero)
        .stage(Stage::Namespace, "cannot map the user into the namespace")?;
    Ok(Start { backend, plan, copy, user, program, is_filtered, inside })
}

/// The programs of the first process inside.
fn inside(backend: Backend, programs: &Programs) -> Result<Vec<(&'static str, PathBuf)>, Failure> {
    let name = if backend == Backend::Gvisor { "aos-isolate" } else { "aos-launch" };
    match programs.named(name) {
        Some(path) => Ok(vec![(name, path)]),
        None => fail(Stage::Isolation, format!("{backend}: {name} is not installed (Debian package agentd)")),
    }
}

/// The plan as a file in memory that nobody changes.
fn in_memory(plan: &SandboxPlan) -> Result<File, Failure> {
    let what = "cannot make the plan in memory";
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL;
    let mut file = File::from(memfd_create("aos-plan", flags).stage(Stage::Plan, what)?);
    let bytes = plan.to_json().stage(Stage::Plan, what)?;
    file.write_all(&bytes).stage(Stage::Plan, what)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    fcntl_add_seals(&file, seals).stage(Stage::Plan, what)?;
    Ok(file)
}

/// A directory as a standard stream would be a way around the file tree.
fn check_standard() -> Result<(), Failure> {
    for (name, stat) in [
        ("standard input", fstat(std::io::stdin())),
        ("standard output", fstat(std::io::stdout())),
        ("standard error", fstat(std::io::stderr())),
    ] {
        let kind = FileType::from_raw_mode(stat.stage(Stage::Process, name)?.st_mode);
        if matches!(kind, FileType::Directory | FileType::BlockDevice) {
            return fail(Stage::Process, format!("{name} is a directory or a disk"));
        }
    }
    Ok(())
}

fn run(start: Start, report: Option<File>, notifier: Option<&Notifier>) -> Result<u8, Failure> {
    let (receiver, sender) = pipe_with(PipeFlags::CLOEXEC).stage(Stage::Process, "cannot make a pipe")?;
    match process::fork().stage(Stage::Process, "cannot fork the stage")? {
        Fork::Child => {
            drop((receiver, report));
            // The driver waits for a status; the failure is printed here, where it is known.
            let code = stage(&start, sender).unwrap_or_else(|failure| {
                print_line(&failure.to_string());
                failure.exit_status()
            });
            Ok(code)
        }
        Fork::Parent(stage) => {
            drop(sender);
            capability::drop_held().stage(Stage::Process, "cannot drop capabilities")?;
            set_no_new_privs(true).stage(Stage::Process, "cannot set no_new_privs")?;
            let area = Area::new();
            let is_started = match hear(receiver)? {
                Some(heard) => {
                    started(&start, heard, report, notifier)?;
                    true
                }
                None => false,
            };
            let code = runtime::wait_for(stage, &Ending)?;
            if is_started { Ok(code) } else { not_started(&start, code, &area) }
        }
    }
}

/// Pid 1: prepares the bundle, starts the runtime, and ends with it.
fn stage(start: &Start, sender: OwnedFd) -> Result<u8, Failure> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .stage(Stage::Process, "cannot tie the stage to the driver")?;
    has_listener(&sender)?;
    let identity = Identity { agent: start.plan.agent.clone(), uid: start.user.uid, gid: start.user.gid };
    let kind = if start.backend == Backend::Gvisor { Runtime::Sandbox } else { Runtime::Container };
    network::loopback_up().stage(Stage::Namespace, "cannot bring the loopback up")?;
    let area = Area::new();
    area.prepare(&start.plan, &identity, kind, &start.inside)?;
    let runtime = runtime::spawn(start.backend, &start.program, &area, &start.copy, sender)?;
    let by_command = ByCommand { program: &start.program, area: &area };
    let passing: &dyn Passing = if start.backend == Backend::Gvisor { &by_command } else { &Direct };
    runtime::wait_for(runtime, passing)
}

/// A driver that ended before the stage was tied to it has closed its end of the pipe.
fn has_listener(sender: &OwnedFd) -> Result<(), Failure> {
    let mut ends = [PollFd::new(sender, PollFlags::empty())];
    poll(&mut ends, Some(&Timespec::default())).stage(Stage::Process, "cannot look at the driver")?;
    match ends {
        [end] if end.revents().contains(PollFlags::ERR) => fail(Stage::Process, "the driver has ended"),
        _ => Ok(()),
    }
}

/// Reads the report of the first process inside; `None` when all ended before it was complete. A runtime
/// holds the pipe open too, so its end is not waited for.
fn hear(receiver: OwnedFd) -> Result<Option<LaunchReport>, Failure> {
    let mut receiver = File::from(receiver);
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = receiver.read(&mut buffer).stage(Stage::Report, "cannot hear of the start")?;
        bytes.extend_from_slice(buffer.get(..length).unwrap_or_default());
        if let Ok(report) = LaunchReport::parse(&bytes) {
            return Ok(Some(report));
        }
        if length == 0 || bytes.len() > REPORT_MAX_BYTES {
            return Ok(None);
        }
    }
}

/// The agent runs: writes the report and tells the service manager.
fn started(
    start: &Start,
    mut heard: LaunchReport,
    report: Option<File>,
    notifier: Option<&Notifier>,
) -> Result<(), Failure> {
    Area::new().forget_programs().stage(Stage::Isolation, "cannot remove the names of the programs")?;
    let layer = LayerReport {
        layer: "isolation".to_owned(),
        asked: start.backend.to_string(),
        in_force: start.backend.isolates().to_owned(),
        ok: true,
        detail: start.program.display().to_string(),
    };
    heard.layers.insert(0, layer);
    if let Some(mut file) = report {
        let bytes = heard.to_json().stage(Stage::Report, "cannot write the report")?;
        file.write_all(&bytes).stage(Stage::Report, "cannot write the report")?;
    }
    let count = heard.layers.len();
    notifier.map_or(Ok(()), |notifier| {
        notifier.ready(&format!("Confined: {count} layers in force, in {}", start.backend))
    })
}

/// The agent did not run: the status of the first process inside when it says why itself, else the
/// runtime's own words.
fn not_started(start: &Start, code: u8, area: &Area) -> Result<u8, Failure> {
    let mut words = Vec::new();
    if let Ok(log) = File::open(&area.log) {
        log.take(LOG_BYTES).read_to_end(&mut words).stage(Stage::Isolation, "the runtime's log")?;
    }
    let words = String::from_utf8_lossy(&words).split_whitespace().collect::<Vec<_>>().join(" ");
    if words.is_empty() && code >= Stage::Isolation.exit_status() {
        return Ok(code);
    }
    let name = start.backend.program();
    let hint = if start.backend == Backend::Gvisor && start.is_filtered { FILTERED } else { "" };
    fail(Stage::Isolation, format!("{name} ended with status {code} before the agent ran: {words}{hint}"))
}
