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
//! The launcher stays outside but for the user and the network namespace. It makes the latter while
//! the init builds the tree ([`network`]). The agent shares the init's memory until it executes, and
//! the init waits for that: a copy of the memory would only be thrown away.
//!
//! Started as pid 1 of a pid namespace that somebody else made (`PrivatePIDs=`), the launcher is the
//! init itself and uses that `/proc`. `aos-agent@.service` does not do that: systemd 257 loses the
//! exit status of such a process when its control group is empty before its end is noticed.
//!
//! A step of a build (`Purpose::Build`) differs in its file tree ([`tree`]), in the number that its
//! user has inside, and in what is not asked of it: ports. Everything else is the same code.
//!
//! Order: scrub; become the user; the unit's limits; user and pid namespace; fork; then at once the
//! network namespace, loopback, listeners and the other namespaces, file tree; capabilities; limits;
//! Landlock; probes; seccomp; the kernel's own word on each; the filter of a record
//! ([`record`]), if one is asked for; exec; and only then readiness. Every
//! step is required: the first that fails ends the launch with `aos-launch: <layer>: <why>` and the
//! layer's exit status ([`error::Layer`]). Nothing is retried with less.

// A launcher is started once for each agent: the runtime's preparations are a noticeable part of it.
#![cfg_attr(not(test), no_main)]

mod agent;
mod calls;
mod cgroup;
mod disk;
mod error;
mod isolate;
mod landlock;
mod link;
mod listeners;
mod loader;
mod message;
mod network;
mod options;
mod probe;
mod record;
mod report;
mod scrub;
mod supervise;
mod tree;

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;

use aos_sandbox::launch::notify::{Notifier, telling};
use aos_sandbox::launch::options::User;
use aos_sandbox::plan::{Identity, Node, Purpose, SandboxPlan};
use aos_sys::namespace::{self, Inside, Kind};
use aos_sys::process::{self, Fork};
use aos_sys::{capability, keyring};
use rustix::process::{
    DumpableBehavior, Pid, Signal, set_dumpable_behavior, set_parent_process_death_signal,
};

use calls::Ends;
use calls::inside::{self, Inside as CallsInside};
use error::{Context, LaunchError, Layer, fail, print_line};
use link::{ToInit, ToLauncher};
use message::Sender;
use options::{Inherited, Options, Surroundings};
use probe::Outside;
use report::Before;
use supervise::{End, Reporting, Serving};
use tree::ProcSource;

#[cfg(not(test))]
aos_sys::plain_main!(main_of_launcher);

/// The program.
#[cfg_attr(test, allow(dead_code, reason = "the tests have an entry of their own"))]
fn main_of_launcher(arguments: Vec<OsString>) -> u8 {
    match launch(arguments) {
        Ok(status) => status,
        Err(error) => {
            print_line(&error.to_string());
            error.layer().exit_status()
        }
    }
}

/// What the caller gave for the agent.
struct Start {
    plan: SandboxPlan,
    identity: Identity,
    before: Before,
    surroundings: Surroundings,
    /// Secrets and the listeners' socket, gone when the tree is built; the record's, when the agent is
    /// forked.
    inherited: Inherited,
    /// Whether the cgroup namespace is made already, above the init's group.
    has_cgroup_namespace: bool,
}

/// What the preparations leave for the processes.
struct Prepared {
    start: Start,
    report: Option<File>,
    calls: Option<Ends>,
}

fn launch(arguments: Vec<OsString>) -> Result<u8, LaunchError> {
    let options = Options::parse(arguments.into_iter().skip(1))?;
    let inherited = scrub::process(&options)?;
    // First of what can be used: from here on the service manager hears why a start fails.
    let notifier = Notifier::from_environment()?;
    let is_own_init = rustix::process::getpid().is_init();
    let prepared = prepare(&options, inherited, is_own_init);
    let Prepared { mut start, report, calls } = telling(notifier.as_ref(), prepared)?;
    let (receiver, sender) = telling(notifier.as_ref(), message::channel())?;
    if is_own_init {
        let outside = telling(notifier.as_ref(), build(&mut start, ProcSource::OfUnit, None))?;
        let reporting = Reporting { receiver, report, notifier };
        return split(start, outside, sender, End::OfChild, Some(reporting), None);
    }
    let (to_init, to_launcher) = telling(notifier.as_ref(), link::channel())?;
    let group = calls.as_ref().and_then(Ends::group);
    let forked = group.map_or_else(process::fork, process::fork_into);
    let forked = forked.layer(Layer::Process, "cannot fork the init");
    let forked = telling(notifier.as_ref(), forked)?;
    let reporting = Reporting { receiver, report, notifier };
    match forked {
        Fork::Parent(init) => {
            drop((sender, to_launcher));
            // Groups of calls are left to nobody: all is over when the init is.
            let waits_for_init = options.is_unit() || calls.is_some();
            let end = telling(reporting.notifier.as_ref(), serve_init(start, to_init, waits_for_init))?;
            let serving =
                calls.map_or(Serving::Nothing, |calls| Serving::Calls(Box::new(calls.of_launcher())));
            supervise::run(init, end, Some(reporting), serving)
        }
        Fork::Child => {
            drop((reporting, to_init));
            run_init(start, sender, to_launcher, calls.map(Ends::of_init))
        }
    }
}

/// The launcher's part while the init builds the tree; and the end for which it waits.
fn serve_init(mut start: Start, to_init: ToInit, waits_for_init: bool) -> Result<End, LaunchError> {
    // A step does not outlive its build, nor an agent who records what it asks for.
    let is_tied = start.plan.purpose == Purpose::Build || start.inherited.record_socket.is_some();
    if is_tied {
        supervise::end_with_caller()?;
    }
    network::make(&start.plan.listeners, start.inherited.listener_socket.take())?;
    to_init.pass_network()?;
    // Its layers are the next one's when the kernel has taken the union down.
    let has_union = start.plan.tree.iter().any(|entry| matches!(entry.node, Node::Transaction { .. }));
    if is_tied || waits_for_init || has_union {
        return Ok(End::OfChild);
    }
    to_init.signal()?;
    Ok(End::Heard(to_init))
}

/// All that comes before the first fork.
fn prepare(options: &Options, mut inherited: Inherited, is_own_init: bool) -> Result<Prepared, LaunchError> {
    // What belongs to the caller is opened while its files and its identity are still there.
    let plan = options.read_plan(&mut inherited)?;
    if isolate::is_asked(&plan, options) {
        options.check_unit(&plan)?;
        match isolate::become_it(&plan, options)? {}
    }
    let report = options.open_report(&mut inherited)?;
    let user = options.become_user()?;
    options.check_unit(&plan)?;
    keyring::leave_session().layer(Layer::Keyring, "cannot leave the session keyring")?;
    let identity = Identity { agent: plan.agent.clone(), uid: user.uid, gid: user.gid };
    let inside = match plan.purpose {
        Purpose::Agent => Inside::Same,
        Purpose::Build => Inside::Zero,
    };
    let calls = options.control()?.map(Ends::new).transpose()?;
    let is_plain = options.surroundings() == Surroundings::Own && plan.purpose == Purpose::Agent;
    if calls.is_some() && (is_own_init || !is_plain) {
        return fail(Layer::Usage, "--control is for an agent whose sandbox this program makes");
    }
    let has_cgroup_namespace = calls.as_ref().is_some_and(|calls| calls.group().is_some());
    let before = match options.surroundings() {
        Surroundings::Own => enter_namespaces(is_own_init, has_cgroup_namespace, user, inside)?,
        Surroundings::Given => enter_given(is_own_init, &plan, user)?,
    };
    // Once for all processes: they keep what they need to build the sandbox, and each drops it.
    capability::drop_inheritable().layer(Layer::Capabilities, "cannot empty the bounding set")?;
    let surroundings = options.surroundings();
    let start = Start { plan, identity, before, surroundings, inherited, has_cgroup_namespace };
    Ok(Prepared { start, report, calls })
}

/// Makes the namespaces that have to be there before the init, and maps the one user into them. The
/// others are [`build`]'s and [`network`]'s.
fn enter_namespaces(
    has_pid_namespace: bool,
    with_cgroup: bool,
    user: User,
    inside: Inside,
) -> Result<Before, LaunchError> {
    let is_left = |kind: &Kind| !(has_pid_namespace && *kind == Kind::Pid);
    let before = Before::note(Kind::ALL.into_iter().filter(is_left).collect())?;
    let mut first = vec![Kind::User];
    first.extend((!has_pid_namespace).then_some(Kind::Pid));
    first.extend(with_cgroup.then_some(Kind::Cgroup));
    namespace::unshare(&first).layer(Layer::Namespace, error::NO_NAMESPACES)?;
    // The maps belong to root while a process is not dumpable.
    set_dumpable_behavior(DumpableBehavior::Dumpable).layer(Layer::Process, "cannot become dumpable")?;
    namespace::map_user(user.uid, user.gid, inside)
        .layer(Layer::Namespace, "cannot map the user into the namespace")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).layer(Layer::Process, "cannot become undumpable")?;
    Ok(before)
}

/// Makes a user namespace with the user's number in what a container's runtime made.
fn enter_given(is_init: bool, plan: &SandboxPlan, user: User) -> Result<Before, LaunchError> {
    if !is_init || plan.purpose == Purpose::Build {
        return fail(Layer::Usage, "--inside is for the first process of an agent's container");
    }
    let before = Before::note(vec![Kind::User])?;
    namespace::unshare(&[Kind::User]).layer(Layer::Namespace, error::NO_NAMESPACES)?;
    set_dumpable_behavior(DumpableBehavior::Dumpable).layer(Layer::Process, "cannot become dumpable")?;
    namespace::map_user(0, 0, Inside::Other(user.uid, user.gid))
        .layer(Layer::Namespace, "cannot map the user into the namespace")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).layer(Layer::Process, "cannot become undumpable")?;
    Ok(before)
}

/// Pid 1 of the namespace made here. It ends with the launcher, and tells it why it fails.
fn run_init(
    mut start: Start,
    mut sender: Sender,
    link: ToLauncher,
    calls: Option<OwnedFd>,
) -> Result<u8, LaunchError> {
    let built = tied_to_parent().and_then(|()| build(&mut start, ProcSource::Fresh, Some(&link)));
    let built = built.and_then(|outside| {
        // The last for which the privilege to mount is needed.
        let calls = calls.map(|socket| Ok((socket, inside::processes()?))).transpose()?;
        Ok((outside, calls))
    });
    match built {
        Ok((outside, calls)) => split(start, outside, sender, End::Told(link), None, calls),
        Err(error) => sender.give_up(error),
    }
}

fn tied_to_parent() -> Result<(), LaunchError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .layer(Layer::Process, "cannot tie the init to the launcher")
}

/// Builds what all processes inside share. Without a link the network namespace is made here too.
fn build(
    start: &mut Start,
    proc_source: ProcSource,
    link: Option<&ToLauncher>,
) -> Result<Outside, LaunchError> {
    let Inherited { secrets, listener_socket, record_socket, .. } = std::mem::take(&mut start.inherited);
    start.inherited.record_socket = record_socket;
    if !rustix::process::getpid().is_init() {
        return fail(Layer::Namespace, "the init is not the first process of its pid namespace");
    }
    if start.surroundings == Surroundings::Given {
        return Outside::prepare(tree::given()?);
    }
    let mut kinds = vec![Kind::Ipc, Kind::Mount, Kind::Uts];
    kinds.extend((!start.has_cgroup_namespace).then_some(Kind::Cgroup));
    namespace::unshare(&kinds).layer(Layer::Namespace, error::NO_NAMESPACES)?;
    let tree = tree::assemble(&start.plan, &start.identity, proc_source, secrets)?;
    match link {
        Some(link) => {
            drop(listener_socket);
            link.enter_network()?;
        }
        None => network::make(&start.plan.listeners, listener_socket)?,
    }
    rustix::system::sethostname(start.plan.agent.as_str().as_bytes())
        .layer(Layer::Namespace, "cannot set the host name")?;
    Outside::prepare(tree)
}

/// Starts the agent; the init stays.
fn split(
    start: Start,
    outside: Outside,
    mut sender: Sender,
    end: End,
    reporting: Option<Reporting>,
    calls: Option<(OwnedFd, OwnedFd)>,
) -> Result<u8, LaunchError> {
    match start_agent(&start, &outside, &mut sender) {
        Ok(agent) => {
            drop(sender);
            let serving = match calls {
                Some((socket, processes)) => {
                    let Start { plan, before, .. } = start;
                    let inside = CallsInside::new(socket, plan, before, outside, processes)?;
                    Serving::Inside(Box::new(inside))
                }
                None => {
                    drop((start, outside));
                    Serving::Nothing
                }
            };
            supervise::run(agent, end, reporting, serving)
        }
        // As the outermost process: nobody else would read what it sends.
        Err(error) if reporting.is_some() => {
            telling(reporting.as_ref().and_then(|reporting| reporting.notifier.as_ref()), Err(error))
        }
        Err(error) => sender.give_up(error),
    }
}

/// Starts the process that becomes the agent, and waits until it has, or has failed. Neither of the two
/// has a privilege any more.
fn start_agent(start: &Start, outside: &Outside, sender: &mut Sender) -> Result<Pid, LaunchError> {
    supervise::give_up_privileges()?;
    let record = start.inherited.record_socket.as_ref();
    let mut become_agent = || agent::run(&start.plan, &start.before, outside, record, sender);
    process::fork_sharing_memory(&mut become_agent).layer(Layer::Process, "cannot fork the agent")
}
