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

mod enter;
mod error;
mod options;
mod parts;
mod runtime;
mod staging;
mod vm;

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
use aos_sandbox::caller::sealed_in_memory;
use aos_sandbox::launch::notify::{Notifier, telling};
use aos_sandbox::launch::options::User;
use aos_sandbox::plan::{Identity, SandboxPlan};
use aos_sys::namespace::{self, Inside, Kind};
use aos_sys::process::{self, Fork};
use aos_sys::{capability, network, signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, fstat};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getrlimit, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::set_no_new_privs;

use error::{Context, LaunchError, Layer, fail, print_line};
use options::Options;
use runtime::{ByCommand, Direct, Ending, Passing};
use staging::Area;

/// Bytes of the runtime's own words that are shown when it fails.
const LOG_BYTES: u64 = 4096;

/// What helps where the unit's filter is in the way of gVisor, which traces its own processes.
const FILTERED: &str =
    " (a unit allows gVisor what it needs with `SystemCallFilter=ptrace`: systemctl edit aos-agent@ID)";

fn main() -> ExitCode {
    let outcome = if vm::is_guest() {
        vm::run_guest()
    } else {
        Options::from_process()
            .and_then(|options| if options.is_stage { enter::run(&options) } else { drive(&options) })
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            print_line(&failure.to_string());
            ExitCode::from(failure.layer().exit_status())
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
    /// The backend's program, and where others are.
    program: PathBuf,
    programs: Programs,
    /// Whether a filter of system calls is on this process already, as in a unit.
    is_filtered: bool,
    /// What the runtime executes, by name.
    inside: Vec<(&'static str, PathBuf)>,
}

fn drive(options: &Options) -> Result<u8, LaunchError> {
    let mut inherited = options.take_inherited()?;
    check_standard()?;
    let notifier = Notifier::from_environment()?;
    let prepared = options.read_plan(&mut inherited).and_then(|plan| {
        let report = options.open_report(&mut inherited)?;
        Ok((prepare(options, plan)?, report))
    });
    let outcome = prepared.and_then(|(start, report)| run(start, report, notifier.as_ref()));
    telling(notifier.as_ref(), outcome)
}

/// Checks the plan and the backend, becomes the user, and enters the namespaces.
fn prepare(options: &Options, plan: SandboxPlan) -> Result<Start, LaunchError> {
    let backend = options.backend(plan.isolation)?;
    express::check(backend, &plan).layer(Layer::Isolation, "the plan")?;
    let programs = options.programs();
    let Some(program) = programs.find(backend) else {
        let (name, package) = (backend.program(), backend.package());
        return fail(
            Layer::Isolation,
            format!("{backend}: {name} is not installed (Debian package {package})"),
        );
    };
    let inside = inside(backend, &programs)?;
    let status = std::fs::read_to_string("/proc/self/status").layer(Layer::Process, "/proc/self/status")?;
    let is_filtered = status.lines().any(|line| line.starts_with("Seccomp:") && line.ends_with('2'));
    let copy = in_memory(&plan)?;
    process::reset_personality().layer(Layer::Process, "cannot reset the execution domain")?;
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    // Sources need a descriptor each; the agent's own limit is set later.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .layer(Layer::Process, "cannot raise the number of open files")?;
    let user = options.become_user()?;
    signal::block_all().layer(Layer::Process, "cannot block signals")?;
    namespace::unshare(&Kind::ALL)
        .layer(Layer::Namespace, "cannot make the namespaces (are unprivileged user namespaces allowed?)")?;
    // The maps belong to root while a process is not dumpable.
    set_dumpable_behavior(DumpableBehavior::Dumpable).layer(Layer::Process, "cannot become dumpable")?;
    // QEMU shows files with the numbers that it sees; a runtime wants to be uid 0.
    let number = if backend == Backend::Vm { Inside::Same } else { Inside::Zero };
    namespace::map_user(user.uid, user.gid, number)
        .layer(Layer::Namespace, "cannot map the user into the namespace")?;
    Ok(Start { backend, plan, copy, user, program, programs, is_filtered, inside })
}

/// The programs of the first process inside.
fn inside(backend: Backend, programs: &Programs) -> Result<Vec<(&'static str, PathBuf)>, LaunchError> {
    let names: &[&'static str] = match backend {
        Backend::Gvisor => &["aos-isolate"],
        Backend::Vm => &vm::INSIDE,
        _ => &["aos-launch"],
    };
    let found = names.iter().map(|name| match programs.named(name) {
        Some(path) => Ok((*name, path)),
        None => fail(Layer::Isolation, format!("{backend}: {name} is not installed (Debian package agentd)")),
    });
    found.collect()
}

/// The plan as a file in memory that nobody changes.
fn in_memory(plan: &SandboxPlan) -> Result<File, LaunchError> {
    let what = "cannot make the plan in memory";
    let bytes = plan.to_json().layer(Layer::Plan, what)?;
    sealed_in_memory("aos-plan", &bytes).layer(Layer::Plan, what)
}

/// A directory as a standard stream would be a way around the file tree.
fn check_standard() -> Result<(), LaunchError> {
    for (name, stat) in [
        ("standard input", fstat(std::io::stdin())),
        ("standard output", fstat(std::io::stdout())),
        ("standard error", fstat(std::io::stderr())),
    ] {
        let kind = FileType::from_raw_mode(stat.layer(Layer::Process, name)?.st_mode);
        if matches!(kind, FileType::Directory | FileType::BlockDevice) {
            return fail(Layer::Process, format!("{name} is a directory or a disk"));
        }
    }
    Ok(())
}

fn run(start: Start, report: Option<File>, notifier: Option<&Notifier>) -> Result<u8, LaunchError> {
    if start.backend == Backend::Vm {
        return vm::run(&start, report, notifier);
    }
    let (receiver, sender) = pipe_with(PipeFlags::CLOEXEC).layer(Layer::Process, "cannot make a pipe")?;
    match process::fork().layer(Layer::Process, "cannot fork the stage")? {
        Fork::Child => {
            drop((receiver, report));
            // The driver waits for a status; the failure is printed here, where it is known.
            let code = stage(&start, sender).unwrap_or_else(|failure| {
                print_line(&failure.to_string());
                failure.layer().exit_status()
            });
            Ok(code)
        }
        Fork::Parent(stage) => {
            drop(sender);
            capability::drop_held().layer(Layer::Process, "cannot drop capabilities")?;
            set_no_new_privs(true).layer(Layer::Process, "cannot set no_new_privs")?;
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
fn stage(start: &Start, sender: OwnedFd) -> Result<u8, LaunchError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .layer(Layer::Process, "cannot tie the stage to the driver")?;
    has_listener(&sender)?;
    let identity = Identity { agent: start.plan.agent.clone(), uid: start.user.uid, gid: start.user.gid };
    let kind = if start.backend == Backend::Gvisor { Runtime::Sandbox } else { Runtime::Container };
    network::loopback_up().layer(Layer::Namespace, "cannot bring the loopback up")?;
    let area = Area::new();
    area.prepare(&start.plan, &identity, kind, &start.inside)?;
    let runtime = runtime::spawn(start.backend, &start.program, &area, &start.copy, sender)?;
    let by_command = ByCommand { program: &start.program, area: &area };
    let passing: &dyn Passing = if start.backend == Backend::Gvisor { &by_command } else { &Direct };
    runtime::wait_for(runtime, passing)
}

/// A driver that ended before the stage was tied to it has closed its end of the pipe.
fn has_listener(sender: &OwnedFd) -> Result<(), LaunchError> {
    let mut ends = [PollFd::new(sender, PollFlags::empty())];
    poll(&mut ends, Some(&Timespec::default())).layer(Layer::Process, "cannot look at the driver")?;
    match ends {
        [end] if end.revents().contains(PollFlags::ERR) => fail(Layer::Process, "the driver has ended"),
        _ => Ok(()),
    }
}

/// Reads the report of the first process inside; `None` when all ended before it was complete. A runtime
/// holds the pipe open too, so its end is not waited for.
fn hear(receiver: OwnedFd) -> Result<Option<LaunchReport>, LaunchError> {
    let mut receiver = File::from(receiver);
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = receiver.read(&mut buffer).layer(Layer::Report, "cannot hear of the start")?;
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
) -> Result<(), LaunchError> {
    Area::new().forget_programs().layer(Layer::Isolation, "cannot remove the names of the programs")?;
    let layer = LayerReport {
        layer: "isolation".to_owned(),
        asked: start.backend.to_string(),
        in_force: start.backend.isolates().to_owned(),
        ok: true,
        detail: start.program.display().to_string(),
    };
    heard.layers.insert(0, layer);
    if let Some(mut file) = report {
        let bytes = heard.to_json().layer(Layer::Report, "cannot write the report")?;
        file.write_all(&bytes).layer(Layer::Report, "cannot write the report")?;
    }
    let count = heard.layers.len();
    notifier.map_or(Ok(()), |notifier| {
        notifier.ready(&format!("Confined: {count} layers in force, in {}", start.backend))
    })
}

/// The agent did not run: the status of the first process inside when it says why itself, else the
/// runtime's own words.
fn not_started(start: &Start, code: u8, area: &Area) -> Result<u8, LaunchError> {
    let mut words = Vec::new();
    if let Ok(log) = File::open(&area.log) {
        log.take(LOG_BYTES).read_to_end(&mut words).layer(Layer::Isolation, "the runtime's log")?;
    }
    let words = String::from_utf8_lossy(&words).split_whitespace().collect::<Vec<_>>().join(" ");
    if words.is_empty() && code >= Layer::Isolation.exit_status() {
        return Ok(code);
    }
    let name = start.backend.program();
    let hint = if start.backend == Backend::Gvisor && start.is_filtered { FILTERED } else { "" };
    fail(Layer::Isolation, format!("{name} ended with status {code} before the agent ran: {words}{hint}"))
}
