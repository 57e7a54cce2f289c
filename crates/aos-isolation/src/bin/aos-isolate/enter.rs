//! The first process in a sandbox of gVisor: it gives itself the agent's number, forks the agent, and is its
//! init. The agent restricts itself to the plan's system calls before it becomes the entrypoint, and does that
//! only when the init has given up all that it may.
//!
//! gVisor's kernel has no Landlock, so what the launcher does by that is done by mounts, before: see
//! [`crate::parts`].

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::fs::File;
use std::io::{Read, Write};

use aos_core::report::{LaunchReport, LayerReport, REPORT_VERSION};
use aos_sandbox::launch::options::User;
use aos_sandbox::plan::SandboxPlan;
use aos_sys::namespace::{self, Kind};
use aos_sys::process::{self, Fork};
use aos_sys::{capability, seccomp, signal};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{DumpableBehavior, Gid, Uid, chdir, set_dumpable_behavior, setsid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, no_new_privs, set_capabilities, set_keep_capabilities, set_no_new_privs,
    set_thread_res_gid, set_thread_res_uid,
};

use crate::error::{Context, LaunchError, Layer, fail};
use crate::options::Options;
use crate::runtime::{self, Direct};

/// The init's user and group in gVisor's kernel, which knows every number.
const INIT: u32 = 1;

/// After a report: the agent does not run. No report, which is JSON, ends with it.
const FAILED: u8 = b'!';

/// Runs inside gVisor until the agent has ended.
pub(crate) fn run(options: &Options) -> Result<u8, LaunchError> {
    let mut inherited = options.take_inherited()?;
    let plan = options.read_plan(&mut inherited)?;
    let Some(mut report) = options.open_report(&mut inherited)? else {
        return fail(Layer::Usage, "enter needs --report-fd");
    };
    let user = options.wanted_user()?;
    signal::block_all().layer(Layer::Process, "cannot block signals")?;
    // The agent has the owner's number of all that is made for it; of /dev it is to use what is there.
    std::os::unix::fs::chown("/dev", Some(INIT), Some(INIT)).layer(Layer::Namespace, "/dev")?;
    let (heard, said) = pipe_with(PipeFlags::CLOEXEC).layer(Layer::Process, "cannot make a pipe")?;
    let (waiting, allowed) = pipe_with(PipeFlags::CLOEXEC).layer(Layer::Process, "cannot make a pipe")?;
    match process::fork().layer(Layer::Process, "cannot fork the agent")? {
        Fork::Child => {
            drop((report, heard, allowed));
            let mut said = File::from(said);
            let entered = enter_user(user).and_then(|()| wait_for_init(waiting.into()));
            let Err(failure) = entered.and_then(|()| become_agent(&plan, user, &mut said));
            said.write_all(&[FAILED]).layer(Layer::Report, "cannot report the failure")?;
            Err(failure)
        }
        Fork::Parent(agent) => {
            drop((said, waiting));
            become_init().layer(Layer::Process, "cannot become the init's user")?;
            allow(allowed.into());
            pass_report(heard.into(), &mut report)?;
            drop(report);
            runtime::wait_for(agent, &Direct)
        }
    }
}

/// What the init says when it is no more than the agent's init.
const IS_INIT: u8 = b'i';

/// Lets the agent go on. One that has failed meanwhile says so itself.
fn allow(mut allowed: File) {
    if allowed.write_all(&[IS_INIT]).is_err() {
        // Nobody waits.
    }
}

/// Waits until the init has another user than the agent and no right but to signal it: until then the agent
/// could reach a process with all rights in this sandbox.
fn wait_for_init(waiting: File) -> Result<(), LaunchError> {
    let mut bytes = Vec::new();
    waiting.take(1).read_to_end(&mut bytes).layer(Layer::Process, "cannot wait for the init")?;
    if bytes == [IS_INIT] { Ok(()) } else { fail(Layer::Process, "the init has ended before its agent") }
}

/// Passes the agent's report on when exec has closed the pipe; nothing if the agent does not run.
fn pass_report(mut heard: File, report: &mut File) -> Result<(), LaunchError> {
    let mut bytes = Vec::new();
    heard.read_to_end(&mut bytes).layer(Layer::Report, "cannot hear of the agent")?;
    match bytes.last() {
        None | Some(&FAILED) => Ok(()),
        Some(_) => report.write_all(&bytes).layer(Layer::Report, "cannot write the report"),
    }
}

/// Another user than the agent's, with the right to signal it and no other: in gVisor a process can signal its
/// own init if it is the same user.
fn become_init() -> rustix::io::Result<()> {
    let (user, group) = (Uid::from_raw(INIT), Gid::from_raw(INIT));
    set_keep_capabilities(true)?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    let (kill, none) = (CapabilitySet::KILL, CapabilitySet::empty());
    set_capabilities(None, CapabilitySets { effective: kill, permitted: kill, inheritable: none })?;
    set_no_new_privs(true)
}

/// The agent's number, in a user namespace of its own.
fn enter_user(user: User) -> Result<(), LaunchError> {
    namespace::unshare(&[Kind::User]).layer(Layer::Namespace, "cannot make a user namespace")?;
    // The maps belong to root while a process is not dumpable.
    set_dumpable_behavior(DumpableBehavior::Dumpable).layer(Layer::Process, "cannot become dumpable")?;
    // gVisor has no file `setgroups`, and demands none.
    for (file, id) in [("uid_map", user.uid), ("gid_map", user.gid)] {
        fs::write(format!("/proc/self/{file}"), format!("{id} 0 1"))
            .layer(Layer::Namespace, format!("cannot map the user into the namespace ({file})"))?;
    }
    // gVisor has no secure bits and no ambient set; the user is not 0, so neither would matter.
    capability::empty_bounding_set().layer(Layer::Process, "cannot empty the bounding set")
}

fn become_agent(plan: &SandboxPlan, user: User, report: &mut File) -> Result<Infallible, LaunchError> {
    let text = |text: &str| CString::new(text).layer(Layer::Plan, "a NUL byte in the program");
    let arguments: Vec<CString> = plan.program.argv.iter().map(|one| text(one)).collect::<Result<_, _>>()?;
    let variables = plan.program.env.iter().map(|(name, value)| text(&format!("{name}={value}")));
    let environment: Vec<CString> = variables.collect::<Result<_, _>>()?;
    let Some(program) = arguments.first().cloned() else {
        return fail(Layer::Plan, "the plan has no program");
    };
    let filter = plan.seccomp.compile();
    // A session of its own has no controlling terminal.
    setsid().layer(Layer::Process, "cannot leave the session")?;
    chdir(plan.program.cwd.as_path()).layer(Layer::Exec, &plan.program.cwd)?;
    capability::drop_held().layer(Layer::Process, "cannot drop capabilities")?;
    set_no_new_privs(true).layer(Layer::Process, "cannot set no_new_privs")?;
    signal::reset_for_exec().layer(Layer::Process, "cannot reset signals")?;
    seccomp::install(filter).layer(Layer::Process, "cannot install the system call filter")?;
    let refused = namespace::unshare(&[Kind::User]);
    if refused.is_ok() {
        return fail(Layer::Process, "making a user namespace is possible");
    }
    let bytes = confirm(plan, user)?.to_json().layer(Layer::Report, "cannot write the report")?;
    report.write_all(&bytes).layer(Layer::Report, "cannot write the report")?;
    process::exec(&program, &arguments, &environment)
        .layer(Layer::Exec, format!("cannot execute {}", program.to_string_lossy()))
}

/// What gVisor's kernel says of this process.
fn confirm(plan: &SandboxPlan, user: User) -> Result<LaunchReport, LaunchError> {
    let status = fs::read_to_string("/proc/self/status").layer(Layer::Report, "/proc/self/status")?;
    let mounts = fs::read_to_string("/proc/self/mounts").layer(Layer::Report, "/proc/self/mounts")?;
    let field = |key: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    };
    if let Some(why) = another_user(&field("Uid"), &field("Gid"), user) {
        return fail(Layer::Report, why);
    }
    let capabilities = ["CapInh", "CapPrm", "CapEff", "CapBnd"].map(|name| format!("{name}={}", field(name)));
    let is_empty = capabilities.iter().all(|set| {
        set.split('=').nth(1).is_some_and(|set| !set.is_empty() && set.bytes().all(|digit| digit == b'0'))
    });
    let has_no_new_privs = no_new_privs().layer(Layer::Report, "no_new_privs")?;
    let layers = vec![
        layer(
            "mounts",
            "what the plan's rules open, and nothing else",
            format!("{} mounts", mounts.lines().count()),
            true,
        ),
        layer("capabilities", "none in any set", capabilities.join(" "), is_empty),
        layer(
            "no_new_privs",
            "NoNewPrivs=1",
            format!("NoNewPrivs={}", u8::from(has_no_new_privs)),
            has_no_new_privs,
        ),
        layer("seccomp", "Seccomp=2", format!("Seccomp={}", field("Seccomp")), field("Seccomp") == "2"),
    ];
    if let Some(layer) = layers.iter().find(|layer| !layer.ok) {
        return fail(
            Layer::Report,
            format!("{}: asked {}, in force {}", layer.layer, layer.asked, layer.in_force),
        );
    }
    Ok(LaunchReport {
        version: REPORT_VERSION,
        agent: plan.agent.clone(),
        launcher: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        layers,
        landlock: None,
    })
}

/// Why a process with these lines of its status is not of the user alone.
fn another_user(uids: &str, gids: &str, user: User) -> Option<String> {
    let are_all = |numbers: &str, wanted: u32| {
        let mut numbers = numbers.split_ascii_whitespace().map(str::parse::<u32>).peekable();
        numbers.peek().is_some() && numbers.all(|number| number == Ok(wanted))
    };
    let is_user = are_all(uids, user.uid) && are_all(gids, user.gid) && user.uid != 0 && user.uid != INIT;
    (!is_user).then(|| format!("user: asked {} {}, in force {uids}; {gids}", user.uid, user.gid))
}

fn layer(name: &str, asked: &str, in_force: String, ok: bool) -> LayerReport {
    LayerReport { layer: name.to_owned(), asked: asked.to_owned(), in_force, ok, detail: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_goes_on_only_when_the_init_is_one() {
        let (waiting, allowed) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let waiter = std::thread::spawn(|| wait_for_init(waiting.into()).is_ok());
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!waiter.is_finished());
        allow(allowed.into());
        assert!(waiter.join().unwrap());
        let (waiting, ended) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        drop(ended);
        assert!(wait_for_init(waiting.into()).unwrap_err().to_string().contains("has ended"));
    }

    #[test]
    fn every_number_is_the_users() {
        let user = User { uid: 7, gid: 8 };
        assert_eq!(another_user("7\t7\t7\t7", "8\t8\t8\t8", user), None);
        for (uids, gids) in [("7 7 0 7", "8 8 8 8"), ("7 7 7 7", "8 8 0 8"), ("", "8"), ("7", ""), ("x", "8")]
        {
            assert!(another_user(uids, gids, user).is_some(), "{uids} {gids}");
        }
        assert!(another_user("1 1 1 1", "8 8 8 8", User { uid: 1, gid: 8 }).is_some());
    }
}
