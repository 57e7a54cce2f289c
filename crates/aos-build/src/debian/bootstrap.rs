//! Runs mmdebstrap. Concurrency: this thread reads the tar, another one the messages; the process
//! is killed and waited for on every path.

use super::tarball::{self, Root};
use super::{DebianError, Wanted, architecture};
use crate::run::Cancel;
use crate::tarball::TarballError;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

/// The program, looked for in [`PATH`].
const PROGRAM: &str = "mmdebstrap";
/// Where it and what it starts are looked for; nothing of the caller's environment is passed on.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Lines of its messages that an error quotes: the last ones say what went wrong.
const SAID_LINES: usize = 6;
/// Bytes of one message.
const LINE_MAX: u64 = 4 << 10;
/// What may precede a mirror's address.
const SCHEMES: [&str; 4] = ["http://", "https://", "file:/", "copy:/"];

/// A running process that does not outlive this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail for a process that has ended and was waited for.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Makes a root. `said` is told what mmdebstrap says.
pub(super) fn run(
    wanted: &Wanted<'_>,
    scratch: &Path,
    cancel: &Cancel,
    said: &(dyn Fn(&str) + Sync),
) -> Result<Root, DebianError> {
    let mut running = Running(start(wanted)?);
    let output = running.0.stdout.take();
    let messages = running.0.stderr.take();
    let (Some(output), Some(messages)) = (output, messages) else {
        return Err(DebianError::Start(io::Error::other("it has no output")));
    };
    std::thread::scope(|scope| {
        // Progress is told from one place at a time, and this thread has nothing else to tell.
        let listener = scope.spawn(|| listen(messages, said));
        let root = tarball::read(Cancelled { inner: output, cancel }, wanted, scratch);
        if root.is_err() {
            // Else it would wait for somebody to read the rest.
            drop(running.0.kill());
        }
        let last = listener.join().unwrap_or_default();
        let status = running.0.wait().map_err(DebianError::Start)?;
        if !status.success() && !cancel.is_cancelled() {
            return Err(match root {
                // It was ended since its output cannot be used.
                Err(
                    error @ (DebianError::Tarball(TarballError::Entry { .. }) | DebianError::Scratch { .. }),
                ) => error,
                _ => DebianError::Failed { status: status.to_string(), said: last },
            });
        }
        root
    })
}

/// Fails when the build is cancelled.
struct Cancelled<'a, R> {
    inner: R,
    cancel: &'a Cancel,
}

impl<R: Read> Read for Cancelled<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("the build was cancelled"));
        }
        self.inner.read(buffer)
    }
}

#[expect(clippy::disallowed_methods, reason = "this module is where mmdebstrap is started")]
fn start(wanted: &Wanted<'_>) -> Result<Child, DebianError> {
    let mirror = &wanted.options.mirror;
    let plain = mirror.chars().all(|c| c.is_ascii_graphic());
    if !plain || !SCHEMES.iter().any(|scheme| mirror.starts_with(scheme)) {
        return Err(DebianError::Mirror(mirror.clone()));
    }
    let mut arguments: Vec<OsString> = vec!["--variant=minbase".into(), "--format=tar".into()];
    // The lists say which release it was; devices are made by the launcher.
    arguments.push("--skip=cleanup/apt/lists,output/dev,output/mknod".into());
    arguments.push(format!("--architectures={}", architecture(&wanted.options.architecture)?).into());
    if !wanted.packages.is_empty() {
        arguments.push(format!("--include={}", wanted.packages.join(",")).into());
    }
    arguments.extend([wanted.suite.into(), "-".into(), mirror.into()]);
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C.UTF-8")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .envs(&wanted.options.debian_environment)
        .env("SOURCE_DATE_EPOCH", wanted.options.source_date_epoch.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => DebianError::Missing,
        _ => DebianError::Start(error),
    })
}

/// Reads all messages and returns the last ones.
fn listen(messages: ChildStderr, said: &(dyn Fn(&str) + Sync)) -> String {
    let mut messages = BufReader::new(messages);
    let mut last = VecDeque::new();
    loop {
        let mut line = Vec::new();
        match messages.by_ref().take(LINE_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let text: String = String::from_utf8_lossy(&line).chars().filter(|c| !c.is_control()).collect();
        if text.trim().is_empty() {
            continue;
        }
        said(&text);
        last.push_back(text);
        if last.len() > SAID_LINES {
            last.pop_front();
        }
    }
    Vec::from(last).join("; ")
}
