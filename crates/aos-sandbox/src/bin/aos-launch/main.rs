//! `aos-launch`: applies a sandbox plan around one agent, or one step of a build, and executes it.
//!
//! Small, single-threaded, no async, no network. Processes, outermost first:
//!
//! | process | is | does |
//! |---|---|---|
//! | launcher | the caller's child | reports readiness, passes signals on, exits with the agent's status |
//! | init | pid 1 inside | builds the tree, reaps, passes signals on |
//! | agent | pid 2 inside | confines itself, then becomes the entrypoint |
//!
//! Started as pid 1 of a pid namespace that somebody else made (`PrivatePIDs=`), the launcher is the
//! init itself and uses that `/proc`. `aos-agent@.service` does not do that: systemd 257 loses the
//! exit status of such a process when its control group is empty before its end is noticed.
//!
//! A step of a build (`Purpose::Build`) differs in its file tree ([`tree`]), in the number that its
//! user has inside, and in what is not asked of it: ports. Everything else is the same code.
//!
//! Order: scrub; become the user; the unit's limits; namespaces; file tree; loopback; listeners;
//! fork; limits; capabilities;
//! Landlock; probes; seccomp; the kernel's own word on each; exec; and only then readiness. Every
//! step is required: the first that fails ends the launch with `aos-launch: <layer>: <why>` and the
//! layer's exit status ([`error::Layer`]). Nothing is retried with less.

mod agent;
mod cgroup;
mod error;
mod landlock;
mod listeners;
mod loader;
mod message;
mod notify;
mod options;
mod probe;
mod report;
mod scrub;
mod supervise;
mod tree;

use std::fs::File;
use std::process::ExitCode;

use aos_sandbox::plan::{Identity, Purpose, SandboxPlan};
use aos_sys::namespace::{self, Inside, Kind};
use aos_sys::process::{self, Fork};
use aos_sys::{capability, identity, keyring, network, signal};
use rustix::process::{DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal};

use error::{Context, LaunchError, Layer, fail};
use message::Sender;
use notify::{Notifier, telling};
use options::{Inherited, Options, User};
use probe::Outside;
use report::Before;
use supervise::Reporting;
use tree::ProcSource;

fn main() -> ExitCode {
    match launch() {
        Ok(code) => code,
        Err(error) => {
            error.print();
            ExitCode::from(error.layer().exit_status())
        }
    }
}

/// What the caller gave for the agent.
struct Start {
    plan: SandboxPlan,
    identity: Identity,
    before: Before,
    /// Secrets and the listeners' socket: each is gone when the tree is built.
    inherited: Inherited,
}

fn launch() -> Result<ExitCode, LaunchError> {
    let options = Options::from_process()?;
    let inherited = scrub::process(&options)?;
    // First of what can be used: from here on the service manager hears why a start fails.
    let notifier = Notifier::from_environment()?;
    let is_own_init = rustix::process::getpid().is_init();
    let prepared = prepare(&options, inherited, is_own_init);
    let (mut start, report) = telling(notifier.as_ref(), prepared)?;
    let (receiver, sender) = telling(notifier.as_ref(), message::channel())?;
    if is_own_init {
        let outside = telling(notifier.as_ref(), build(&mut start, ProcSource::OfUnit))?;
        return split(&start, outside, sender, Some(Reporting { receiver, report, notifier }));
    }
    let forked = process::fork().layer(Layer::Process, "cannot fork the init");
    let forked = telling(notifier.as_ref(), forked)?;
    let reporting = Reporting { receiver, report, notifier };
    match forked {
        Fork::Parent(init) => {
            let purpose = start.plan.purpose;
            drop((start, sender));
            if purpose == Purpose::Build {
                telling(reporting.notifier.as_ref(), supervise::end_with_caller())?;
            }
            supervise::run(init, Some(reporting))
        }
        Fork::Child => {
            drop(reporting);
            run_init(start, sender)
        }
    }
}

/// All that comes before the first fork.
fn prepare(
    options: &Options,
    mut inherited: Inherited,
    is_own_init: bool,
) -> Result<(Start, Option<File>), LaunchError> {
    // What belongs to the caller is opened while its files and its identity are still there.
    let plan = options.read_plan(&mut inherited)?;
    let report = options.open_report(&mut inherited)?;
    let user = options.become_user()?;
    options.check_unit(&plan)?;
    keyring::leave_session().layer(Layer::Keyring, "cannot leave the session keyring")?;
    let identity = Identity { agent: plan.agent.clone(), uid: user.uid, gid: user.gid };
    let inside = match plan.purpose {
        Purpose::Agent => Inside::Same,
        Purpose::Build => Inside::Zero,
    };
    let before = enter_namespaces(is_own_init, user, inside)?;
    // Once for all processes: they keep what they need to build the sandbox, and each drops it.
    capability::drop_inheritable().layer(Layer::Capabilities, "cannot empty the bounding set")?;
    signal::block_all().layer(Layer::Process, "cannot block signals")?;
    Ok((Start { plan, identity, before, inherited }, report))
}

/// Makes all namespaces at once and maps the one user into them.
fn enter_namespaces(has_pid_namespace: bool, user: User, inside: Inside) -> Result<Before, LaunchError> {
    let kinds: Vec<Kind> =
        Kind::ALL.into_iter().filter(|kind| !(has_pid_namespace && *kind == Kind::Pid)).collect();
    let before = Before::note(&kinds)?;
    namespace::unshare(&kinds)
        .layer(Layer::Namespace, "cannot make the namespaces (are unprivileged user namespaces allowed?)")?;
    // The maps belong to root while a process is not dumpable.
    set_dumpable_behavior(DumpableBehavior::Dumpable).layer(Layer::Process, "cannot become dumpable")?;
    namespace::map_user(user.uid, user.gid, inside)
        .layer(Layer::Namespace, "cannot map the user into the namespace")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).layer(Layer::Process, "cannot become undumpable")?;
    Ok(before)
}

/// Pid 1 of the namespace made here. It ends with the launcher, and tells it why it fails.
fn run_init(mut start: Start, mut sender: Sender) -> Result<ExitCode, LaunchError> {
    match tied_to_parent().and_then(|()| build(&mut start, ProcSource::Fresh)) {
        Ok(outside) => split(&start, outside, sender, None),
        Err(error) => sender.give_up(error),
    }
}

fn tied_to_parent() -> Result<(), LaunchError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .layer(Layer::Process, "cannot tie the init to the launcher")
}

/// Builds what all processes inside share.
fn build(start: &mut Start, proc_source: ProcSource) -> Result<Outside, LaunchError> {
    let Inherited { secrets, listener_socket, .. } = std::mem::take(&mut start.inherited);
    if !rustix::process::getpid().is_init() {
        return fail(Layer::Namespace, "the init is not the first process of its pid namespace");
    }
    let tree = tree::assemble(&start.plan, &start.identity, proc_source, secrets)?;
    network::loopback_up().layer(Layer::Network, "cannot bring the loopback up")?;
    listeners::pass_out(&start.plan.listeners, listener_socket)?;
    rustix::system::sethostname(start.plan.agent.as_str().as_bytes())
        .layer(Layer::Namespace, "cannot set the host name")?;
    Outside::prepare(tree)
}

/// Forks the agent; the init stays.
fn split(
    start: &Start,
    outside: Outside,
    mut sender: Sender,
    reporting: Option<Reporting>,
) -> Result<ExitCode, LaunchError> {
    match process::fork().layer(Layer::Process, "cannot fork the agent") {
        Ok(Fork::Child) => {
            drop(reporting);
            agent::run(&start.plan, &start.before, &outside, sender)
        }
        Ok(Fork::Parent(agent)) => {
            drop((sender, outside));
            supervise::run(agent, reporting)
        }
        // As the outermost process: nobody else would read what it sends.
        Err(error) if reporting.is_some() => {
            telling(reporting.as_ref().and_then(|reporting| reporting.notifier.as_ref()), Err(error))
        }
        Err(error) => sender.give_up(error),
    }
}
