//! One step from its request to its changes: descriptors for the launcher, its process, its end.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::sync::mpsc::sync_channel;

use aos_sandbox::caller::{
    Cause, Given, Watched, exit_status, has_report, in_memory, sealed_in_memory, spawn,
};
use aos_sandbox::launch::options::User;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::error::{Doing, RunError};
use super::output::Output;
use super::proxy::{Proxy, Rules};
use super::scratch::Scratch;
use super::watch::Hearing;
use super::{Account, Changes, RunRequest, Secret, prepare, settle};

/// Notes of the proxy that wait; more are dropped.
const NOTES_MAX: usize = 64;
/// Bytes of a secret: keys and tokens are far smaller.
const SECRET_BYTES_MAX: usize = 64 * 1024;

/// Runs the step; see [`super::execute`].
pub(super) fn execute(
    request: &RunRequest,
    on_output: &mut dyn FnMut(Output<'_>),
) -> Result<Changes, RunError> {
    let account = Account::of_process();
    let scratch = Scratch::make(&request.scratch, account)?;
    let plan = prepare::plan(request, &scratch, account)?;
    run(request, &plan, account, on_output)?;
    let notes = settle::settle(&scratch.upper())?.finish();
    Ok(Changes::new(scratch, notes))
}

/// Runs the launcher with the plan until nothing of the step is left.
fn run(
    request: &RunRequest,
    plan: &[u8],
    account: Account,
    on_output: &mut dyn FnMut(Output<'_>),
) -> Result<(), RunError> {
    let (notes, heard) = sync_channel(NOTES_MAX);
    let (socket, proxy) = match request.net.as_slice() {
        [] => (None, None),
        endpoints => {
            let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
            let (ours, theirs) = pair.doing(|| "make a socket for the proxy".to_owned())?;
            let proxy = Proxy::start(ours, Rules::new(endpoints, notes));
            (Some(theirs), Some(proxy.doing(|| "start the proxy".to_owned())?))
        }
    };
    let mut report = in_memory("aos-report", &[]).doing(|| "make the report in memory".to_owned())?;
    let child = start(request, plan, account, &report, socket)?;
    let mut step = Watched::new(child)?;
    let mut hearing = Hearing::new(&request.cancel, heard, on_output);
    let watched = step.watch(request.timeout, &mut hearing);
    let status = step.end(&mut hearing);
    let why = hearing.finish();
    drop(proxy);
    judge(watched?, status?, &mut report, &why, request)
}

/// Starts the launcher.
fn start(
    request: &RunRequest,
    plan: &[u8],
    account: Account,
    report: &File,
    socket: Option<OwnedFd>,
) -> Result<Child, RunError> {
    let sealed = |name: &str, content: &[u8]| {
        sealed_in_memory(name, content).doing(|| format!("make {name} in memory"))
    };
    let report = report.try_clone().doing(|| "share the report".to_owned())?;
    let mut given = vec![(Given::Plan, sealed("aos-plan", plan)?.into()), (Given::Report, report.into())];
    if !request.secrets.is_empty() {
        given.push((Given::Secrets, sealed("aos-secrets", &encode(&request.secrets)?)?.into()));
    }
    given.extend(socket.map(|socket| (Given::Listeners, socket)));
    let user = account.is_other().then_some(User { uid: account.uid, gid: account.gid });
    spawn(&request.launcher, user, given)
        .map_err(|source| RunError::Launcher { launcher: request.launcher.clone(), source })
}

/// The secrets in the launcher's form: length of the name (one byte), name, length of the content
/// (four bytes, little endian), content.
fn encode(secrets: &[Secret]) -> Result<zeroize::Zeroizing<Vec<u8>>, RunError> {
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    for Secret { name, value } in secrets {
        let too_long = || RunError::Request(format!("the secret {name} is over {SECRET_BYTES_MAX} bytes"));
        let name_length = u8::try_from(name.len()).map_err(|_| too_long())?;
        let length = u32::try_from(value.len()).map_err(|_| too_long())?;
        if value.len() > SECRET_BYTES_MAX {
            return Err(too_long());
        }
        bytes.push(name_length);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(value);
    }
    Ok(bytes)
}

/// What the end of the launcher means.
fn judge(
    cause: Cause,
    status: ExitStatus,
    report: &mut File,
    why: &str,
    request: &RunRequest,
) -> Result<(), RunError> {
    match cause {
        Cause::Cancelled => return Err(RunError::Cancelled),
        Cause::Timeout => return Err(RunError::Timeout(request.timeout)),
        Cause::Ended => {}
    }
    let has_run = has_report(report).doing(|| "read the launcher's report".to_owned())?;
    match exit_status(status) {
        status if !has_run => Err(RunError::Confinement { status, why: why.to_owned() }),
        0 => Ok(()),
        status => Err(RunError::Failed { status }),
    }
}
