//! One step from its request to its changes: descriptors for the launcher, its process, its end.

#![expect(clippy::disallowed_methods, reason = "this module starts aos-launch, and nothing else")]

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::sync_channel;

use aos_core::report::REPORT_MAX_BYTES;
use command_fds::{CommandFdExt, FdMapping};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::error::{Doing, RunError};
use super::output::Output;
use super::proxy::{Proxy, Rules};
use super::scratch::Scratch;
use super::watch::{Cause, Step};
use super::{Account, Changes, RunRequest, Secret, prepare, settle};

/// Notes of the proxy that wait; more are dropped.
const NOTES_MAX: usize = 64;
/// Bytes of a secret: keys and tokens are far smaller.
const SECRET_BYTES_MAX: usize = 64 * 1024;

/// The launcher's options for descriptors, each with the number that it has there.
const PLAN: (&str, i32) = ("--plan-fd", 3);
const REPORT: (&str, i32) = ("--report-fd", 4);
const SECRETS: (&str, i32) = ("--secrets-fd", 5);
const LISTENERS: (&str, i32) = ("--listener-socket", 6);

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
    let mut report = memory("aos-report", &[])?;
    let child = spawn(request, plan, account, &report, socket)?;
    let mut step = Step::new(child, heard)?;
    let watched = step.watch(request, on_output);
    let status = step.end(on_output);
    drop(proxy);
    judge(watched?, status?, &mut report, step.why(), request)
}

/// Starts the launcher. The descriptors are this process's own until the child has them.
fn spawn(
    request: &RunRequest,
    plan: &[u8],
    account: Account,
    report: &File,
    socket: Option<OwnedFd>,
) -> Result<Child, RunError> {
    let plan = sealed(memory("aos-plan", plan)?)?;
    let report = report.try_clone().doing(|| "share the report".to_owned())?;
    let secrets = match request.secrets.as_slice() {
        [] => None,
        secrets => Some(sealed(memory("aos-secrets", &encode(secrets)?)?)?),
    };
    let given = [
        (PLAN, Some(plan.into())),
        (REPORT, Some(report.into())),
        (SECRETS, secrets.map(OwnedFd::from)),
        (LISTENERS, socket),
    ];
    let mut command = Command::new(&request.launcher);
    command.env_clear().current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if account.is_other() {
        command.args(["--uid", &account.uid.to_string(), "--gid", &account.gid.to_string()]);
    }
    let mut mappings = Vec::new();
    for ((option, number), descriptor) in given {
        if let Some(parent_fd) = descriptor {
            command.args([option, &number.to_string()]);
            mappings.push(FdMapping { parent_fd, child_fd: number });
        }
    }
    let failed = |source| RunError::Launcher { launcher: request.launcher.clone(), source };
    command.fd_mappings(mappings).map_err(|error| failed(std::io::Error::other(error)))?;
    command.spawn().map_err(failed)
}

/// A file in memory.
fn memory(name: &str, content: &[u8]) -> Result<File, RunError> {
    let what = || format!("make {name} in memory");
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL;
    let mut file = File::from(memfd_create(name, flags).doing(what)?);
    file.write_all(content).doing(what)?;
    Ok(file)
}

/// The file as it is, for ever.
fn sealed(file: File) -> Result<File, RunError> {
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    fcntl_add_seals(&file, seals).doing(|| "seal a file in memory".to_owned())?;
    Ok(file)
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
    // A shell's convention, as the launcher's own.
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    match code {
        _ if !has_content(report)? => Err(RunError::Confinement { status: code, why: why.to_owned() }),
        0 => Ok(()),
        status => Err(RunError::Failed { status }),
    }
}

/// Whether the launcher wrote its report: it does when every layer is in force and the program runs.
fn has_content(report: &mut File) -> Result<bool, RunError> {
    let what = || "read the launcher's report".to_owned();
    report.rewind().doing(what)?;
    let mut bytes = Vec::new();
    let max = u64::try_from(REPORT_MAX_BYTES).unwrap_or(u64::MAX);
    report.take(max).read_to_end(&mut bytes).doing(what)?;
    Ok(!bytes.is_empty())
}
