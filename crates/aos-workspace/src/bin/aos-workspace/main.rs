//! `aos-workspace`: does one operation on an agent's workspace, as the agent's own user.
//!
//! Runs from `aos-workspace@ID.service`; nobody else calls it. It is single-threaded, has no network and no D-Bus.
//! The request is the supervisor's (a credential); the answer is a file `answer-TOKEN.json` that the agent's user
//! owns and the supervisor's may read, which it passes on unread. What went wrong is in the answer; the exit status
//! says whether the operation was done (0), was not (1), or that there is no answer (2).
//!
//! It makes a user namespace with itself as the only user: there, and for the agent's own files alone, it reads and
//! changes what the agent has closed to itself, as overlayfs does for the agent.

mod answer;
mod patience;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use aos_core::workspace::{Answer, REQUEST_MAX_BYTES, Request, VERSION};
use aos_sys::namespace::{self, Inside, Kind};
use aos_workspace::{Folder, progress};

use answer::AnswerFile;
use patience::Patience;

const USAGE: &str = "usage: aos-workspace REQUEST ANSWER-FOLDER";
/// There is no answer.
const NO_ANSWER: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match run(&arguments) {
        Ok(Answer::Failed { message }) => {
            tell(&message);
            ExitCode::FAILURE
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(message) => {
            tell(&message);
            ExitCode::from(NO_ANSWER)
        }
    }
}

#[expect(clippy::print_stderr, reason = "a one-shot unit reports to the journal by standard error")]
fn tell(message: &str) {
    eprintln!("aos-workspace: {message}");
}

fn run(arguments: &[std::ffi::OsString]) -> Result<Answer, String> {
    let [request, folder] = arguments else { return Err(USAGE.to_owned()) };
    if rustix::process::geteuid().is_root() {
        return Err("it never runs as root".to_owned());
    }
    let request = read(Path::new(request))?;
    be_patient()?;
    // Before the namespace: in it, the reader is nobody.
    let file = AnswerFile::create(Path::new(folder), &request.token, request.reader_uid)?;
    let answer =
        enter().and_then(|()| perform(&request)).unwrap_or_else(|message| Answer::Failed { message });
    file.write(&answer)?;
    Ok(answer)
}

/// Keeps the service manager from ending an operation that makes progress.
fn be_patient() -> Result<(), String> {
    #[allow(
        clippy::disallowed_methods,
        reason = "the service manager's protocol passes the socket in this variable; read once at the start"
    )]
    let name = std::env::var_os("NOTIFY_SOCKET");
    if let Some(name) = name {
        let mut patience = Patience::at(&name)?;
        progress::listen(move || patience.progress());
    }
    Ok(())
}

fn read(path: &Path) -> Result<Request, String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot read the request: {error}");
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    let max = u64::try_from(REQUEST_MAX_BYTES).unwrap_or(u64::MAX);
    file.take(max + 1).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if bytes.len() > REQUEST_MAX_BYTES {
        return Err(failed(&"it is too large"));
    }
    let request: Request = serde_json::from_slice(&bytes).map_err(|error| failed(&error))?;
    if request.version == VERSION { Ok(request) } else { Err(failed(&"it has another version")) }
}

/// The namespace in which this user is the owner of its own files and of nothing else.
fn enter() -> Result<(), String> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    namespace::unshare(&[Kind::User])
        .and_then(|()| namespace::map_user(uid, gid, Inside::Same))
        .map_err(|error| format!("cannot make a user namespace: {error}"))
}

fn perform(request: &Request) -> Result<Answer, String> {
    let words = |error: &dyn std::error::Error| {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{error}{cause}")
    };
    let folder =
        Folder::open(&request.changes, &request.lower, request.below).map_err(|error| words(&error))?;
    folder.perform(&request.operation).map_err(|error| words(&error))
}
