//! The processes that stay: the init inside, and the launcher outside.
//!
//! Both give up every privilege, pass the signals of the service manager on, wait, and exit with
//! the status of what they wait for. An agent cannot reach the init: it is outside the agent's
//! Landlock domain (no signals, no ptrace), not dumpable (no `/proc/1/mem`, `/proc/1/root`), and a
//! pid 1 takes no fatal signal from inside.

use std::fs::File;
use std::io::Write;

use aos_sandbox::launch::notify::{Notifier, telling};
use aos_sandbox::seccomp::Policy;
use aos_sys::{capability, process, seccomp, signal};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, kill_process, set_parent_process_death_signal, wait,
};
use rustix::thread::set_no_new_privs;

use crate::calls::inside::Inside;
use crate::calls::table::Calls;
use crate::error::{self, Context, LaunchError, Layer, print_line};
use crate::link::{ToInit, ToLauncher};
use crate::message::{Outcome, Receiver};

/// Signals that a service manager or an operator sends to stop, reload or wake an agent.
const PASSED_ON: [Signal; 7] =
    [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2, Signal::CONT];

/// The caller's word that everything inside ends at once. It reaches the init as SIGKILL, and the
/// kernel ends all processes of a pid namespace whose init ends; unlike after a SIGKILL to the
/// launcher itself, they are gone when the launcher is.
const END: Signal = Signal::ALARM;

/// The part of the outermost process: to hear how the start went, write it down, and report it.
pub(crate) struct Reporting {
    /// Where the processes inside report.
    pub(crate) receiver: Receiver,
    /// Where the report goes.
    pub(crate) report: Option<File>,
    /// Who is told.
    pub(crate) notifier: Option<Notifier>,
}

impl Reporting {
    /// Waits until the agent runs, or until it is clear that it will not: then its exit status, and
    /// the reason is printed and reported.
    fn finish(self) -> Result<(Option<u8>, Option<Notifier>), LaunchError> {
        let Self { receiver, report, notifier } = self;
        match telling(notifier.as_ref(), receiver.wait())? {
            Outcome::Failed { exit_status, why } => {
                print_line(&why);
                if let Some(notifier) = &notifier {
                    notifier.failed(&why);
                }
                Ok((Some(exit_status), notifier))
            }
            Outcome::Started { status, report: bytes } => {
                if let Some(mut file) = report {
                    let written = file.write_all(&bytes).layer(Layer::Report, "cannot write the report");
                    telling(notifier.as_ref(), written)?;
                }
                if let Some(notifier) = &notifier {
                    notifier.ready(&status)?;
                }
                Ok((None, notifier))
            }
        }
    }
}

/// By what a process knows that its child is done.
pub(crate) enum End {
    /// The child has ended.
    OfChild,
    /// The launcher's: the init has ended, or has told the agent's status.
    Heard(ToInit),
    /// The init's: the agent has ended. All others are then ended too, and the launcher is told.
    Told(ToLauncher),
}

/// What a process does while it waits.
pub(crate) enum Serving {
    /// Nothing else.
    Nothing,
    /// The launcher's part in calls.
    Calls(Box<Calls>),
    /// The init's part in calls.
    Inside(Box<Inside>),
}

impl Serving {
    /// What waiting like this needs.
    const fn policy(&self) -> Policy {
        match self {
            Self::Nothing => Policy::Init,
            Self::Calls(_) => Policy::Launcher,
            Self::Inside(_) => Policy::Caller,
        }
    }
}

/// Ends everything inside when the calling thread of the caller ends: a step does not outlive its
/// build. An agent does outlive a supervisor that is restarted.
pub(crate) fn end_with_caller() -> Result<(), LaunchError> {
    set_parent_process_death_signal(Some(END)).layer(Layer::Process, "cannot tie the launcher to its caller")
}

/// Locks this process down and waits for `child`.
pub(crate) fn run(
    child: Pid,
    end: End,
    reporting: Option<Reporting>,
    serving: Serving,
) -> Result<u8, LaunchError> {
    let notifier = reporting.as_ref().and_then(|reporting| reporting.notifier.as_ref());
    telling(notifier, lock_down(serving.policy()))?;
    let (failed, notifier) = reporting.map(Reporting::finish).transpose()?.unwrap_or_default();
    if let Some(exit_status) = failed {
        return Ok(exit_status);
    }
    process::give_back_memory();
    match serving {
        Serving::Nothing => wait_for(child, &end, None),
        Serving::Inside(mut inside) => wait_for(child, &end, Some(&mut *inside)),
        Serving::Calls(calls) => calls.serve(child, notifier.as_ref()),
    }
}

/// No capability and no new privilege, for this process and those that it starts from now on.
pub(crate) fn give_up_privileges() -> Result<(), LaunchError> {
    capability::drop_held().layer(Layer::Capabilities, "cannot drop capabilities")?;
    set_no_new_privs(true).layer(Layer::NoNewPrivileges, "cannot set no_new_privs")
}

/// No privilege, and a filter of what waiting needs.
fn lock_down(policy: Policy) -> Result<(), LaunchError> {
    give_up_privileges()?;
    seccomp::install(policy.compile()).layer(Layer::Seccomp, error::NO_FILTER)
}

/// Passes signals on and reaps until `child` has ended.
fn wait_for(child: Pid, end: &End, mut calls: Option<&mut Inside>) -> Result<u8, LaunchError> {
    loop {
        let ended = reap(child, |other, status| {
            if let Some(calls) = &mut calls {
                calls.ended(other, status);
            }
        })?;
        if let Some(status) = ended {
            let status = exit_status(status);
            if let End::Told(link) = end {
                end_all_others()?;
                link.ended(status)?;
            }
            return Ok(status);
        }
        if let End::Heard(link) = end
            && let Some(status) = link.status()?
        {
            return Ok(status);
        }
        if let Some(calls) = &mut calls {
            calls.serve()?;
        }
        pass_on(child, signal::wait().layer(Layer::Process, "cannot wait for signals")?)?;
    }
}

/// Passes a signal on to the child, if it is one for it.
pub(crate) fn pass_on(child: Pid, signal: Signal) -> Result<(), LaunchError> {
    let passed =
        if signal == END { Some(Signal::KILL) } else { PASSED_ON.contains(&signal).then_some(signal) };
    match passed.map(|passed| kill_process(child, passed)) {
        // Between its end and its reaping the child takes no signal.
        None | Some(Ok(()) | Err(Errno::SRCH)) => Ok(()),
        Some(Err(error)) => Err(error).layer(Layer::Process, "cannot pass a signal on"),
    }
}

/// Ends every other process of this init's pid namespace and waits until they are gone.
fn end_all_others() -> Result<(), LaunchError> {
    let what = "cannot end what the agent left";
    signal::kill_all_others().layer(Layer::Process, what)?;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::CHILD) => return Ok(()),
            Err(error) => return Err(error).layer(Layer::Process, what),
        }
    }
}

/// Reaps all that have ended, and tells of each but `child`; the status of that if it is among them.
pub(crate) fn reap(
    child: Pid,
    mut other: impl FnMut(Pid, WaitStatus),
) -> Result<Option<WaitStatus>, LaunchError> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child => return Ok(Some(status)),
            Ok(Some((pid, status))) => other(pid, status),
            Ok(None) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).layer(Layer::Process, "cannot wait for the agent"),
        }
    }
}

/// A shell's convention: the status itself, or 128 and the signal.
pub(crate) fn exit_status(status: WaitStatus) -> u8 {
    let code = status
        .exit_status()
        .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
        .unwrap_or(i32::from(Layer::Process.exit_status()));
    u8::try_from(code).unwrap_or(u8::MAX)
}
