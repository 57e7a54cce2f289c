//! `aos exec`: a command in the sandbox of an agent that runs.
//!
//! Nothing of the caller's goes in: the command gets pipes, and this program copies. A terminal or a file that went
//! in could be kept by the agent after the command's end, and be read and written from there.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use aos_client::ExecOptions;
use aos_core::capability::Capability;
use aos_core::quantity::{ByteSize, DurationSpec};
use aos_sandbox::call::{ANSWER_MAX_BYTES, CallAnswer, CallEnd, Refusal};
use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use serde::Serialize;

use crate::completion;
use crate::failure::hinted;
use crate::output::Output;
use crate::screen::Screen;
use crate::supervisor;

/// The command took longer than its limit, as timeout(1) has it.
const TIMED_OUT: u8 = 124;
/// It cannot be executed, as podman-exec(1) has it.
const NOT_EXECUTED: u8 = 126;
/// The launcher's status for that (systemd.exec(5), "Process Exit Codes").
const LAYER_EXEC: u8 = 203;
/// Bytes copied at a time.
const PART_BYTES: usize = 64 << 10;

/// Run a command inside a running agent's sandbox
///
/// The command runs beside the agent, as its user, with the same files, capabilities and limits, and `aos exec` ends with
/// its exit status. With limits of its own it is ended before the agent is when memory is short. When it ends, or `aos
/// exec` does, everything that it started is ended.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// The agent's id
    #[arg(value_name = "ID", add = completion::agents())]
    id: String,

    /// Most memory of the command, such as 64M; within the agent's limit
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,

    /// Most processes and threads of the command; within the agent's limit
    #[arg(long, value_name = "N")]
    tasks: Option<u64>,

    /// End the command after this time, such as 30s
    #[arg(long, value_name = "TIME")]
    timeout: Option<DurationSpec>,

    /// The working directory, inside
    #[arg(long, value_name = "PATH")]
    workdir: Option<String>,

    /// Set a variable beside the agent's
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,

    /// The command may do only this, and what every agent may; each is part of what the agent may
    #[arg(long, value_name = "CAPABILITY")]
    capability: Vec<Capability>,

    /// Without any capability: only what every agent may
    #[arg(long, conflicts_with = "capability")]
    no_capabilities: bool,

    /// Print how it ended as JSON; what the command writes then goes to standard error
    #[arg(long)]
    json: bool,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// A command that was asked for.
pub(crate) struct Asked {
    answer: OwnedFd,
    input: File,
    output: File,
    errors: File,
}

/// How it ended, for a program. Fields are added, never renamed or removed.
#[derive(Serialize)]
struct Ended {
    #[serde(flatten)]
    end: CallEnd,
    duration_ms: u64,
}

/// Asks the supervisor for the command.
pub(crate) async fn ask(arguments: &ExecArgs) -> Result<Asked> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe");
    let ((command_input, input), (output, command_output)) = (pipe()?, pipe()?);
    let (errors, command_errors) = pipe()?;
    let client = supervisor::connect().await?;
    let words: Vec<&str> = arguments.command.iter().map(String::as_str).collect();
    let streams = [command_input, command_output, command_errors];
    let asked = client.exec(&arguments.id, &words, arguments.options(), streams).await;
    let answer = asked.map_err(supervisor::explain)?;
    Ok(Asked { answer, input: input.into(), output: output.into(), errors: errors.into() })
}

/// Copies what goes in and comes out until the command has ended; returns its exit status.
pub(crate) fn follow(asked: Asked, arguments: &ExecArgs, out: Output) -> Result<u8> {
    let Asked { answer, input, output, errors } = asked;
    // It ends with the program: a terminal that nobody types on cannot be waited for.
    drop(thread::spawn(move || feed(input)));
    let (output_end, output_done) = ending()?;
    let (errors_end, errors_done) = ending()?;
    let to_errors = Target::errors(out);
    let target = if arguments.json { to_errors } else { Target::output(out) };
    let copies = [copy(output, output_done, target), copy(errors, errors_done, to_errors)];
    let answer = read_answer(&answer);
    // What is in the pipes is still copied; who keeps them open inside is not waited for.
    drop((output_end, errors_end));
    for copy in copies {
        if let Ok(copied) = copy.join() {
            copied?;
        }
    }
    report(answer?, arguments, out)
}

impl ExecArgs {
    fn options(&self) -> ExecOptions {
        let lines: Vec<String> = self.capability.iter().map(ToString::to_string).collect();
        ExecOptions {
            env: (!self.env.is_empty()).then(|| self.env.clone()),
            workdir: self.workdir.clone(),
            capabilities: (self.no_capabilities || !lines.is_empty()).then_some(lines),
            memory: self.memory.map(|size| size.to_string()),
            tasks: self.tasks,
            timeout: self.timeout.map(|span| span.to_string()),
        }
    }
}

/// Says how it ended where the exit status alone does not.
fn report(answer: CallAnswer, arguments: &ExecArgs, out: Output) -> Result<u8> {
    let end = match answer {
        CallAnswer::Ended(end) => end,
        CallAnswer::Refused { reason, why } => {
            return Err(match reason {
                Refusal::Busy => hinted(why, "try again in a moment"),
                Refusal::Limits => hinted(why, "`aos explain` shows the limits of the agent"),
                Refusal::Invalid | Refusal::Streams => anyhow::Error::msg(why),
            });
        }
        CallAnswer::NotStarted { exit_status, why, oom_killed } => {
            let hint = if oom_killed { "its memory limit is too low" } else { "nothing of it ran" };
            let error = hinted(format!("the command was not started: {why}"), hint);
            if exit_status == LAYER_EXEC {
                out.error(&error);
                return Ok(NOT_EXECUTED);
            }
            return Err(error);
        }
    };
    if arguments.json {
        out.json(&Ended { end, duration_ms: end.duration_us / 1000 })?;
    }
    if end.oom_killed {
        out.warn("a process of the command was killed for lack of memory");
    }
    if end.timed_out {
        out.warn("the command took longer than its limit and was ended");
        return Ok(TIMED_OUT);
    }
    Ok(end.exit_status.unwrap_or_else(|| end.signal.unwrap_or_default().saturating_add(128)))
}

/// Waits for the launcher's answer. Its end without one is the agent's.
fn read_answer(answer: &OwnedFd) -> Result<CallAnswer> {
    let mut bytes = vec![0; ANSWER_MAX_BYTES];
    loop {
        match rustix::io::read(answer, &mut bytes) {
            Ok(0) | Err(Errno::CONNRESET) => {
                return Err(anyhow::Error::msg("the agent ended, and the command with it"));
            }
            Ok(length) => {
                bytes.truncate(length);
                return CallAnswer::parse(&bytes).context("the launcher's answer is not understood");
            }
            Err(Errno::AGAIN) => wait(&mut [PollFd::new(answer, PollFlags::IN)])?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot read the launcher's answer"),
        }
    }
}

fn wait(what: &mut [PollFd<'_>]) -> io::Result<()> {
    match poll(what, None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A channel whose second end is told when the first is dropped, for poll(2).
fn ending() -> Result<(OwnedFd, OwnedFd)> {
    let (done, end) = pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    Ok((end, done))
}

/// Copies standard input, until either side is closed.
fn feed(mut input: File) -> io::Result<u64> {
    io::copy(&mut io::stdin().lock(), &mut input)
}

/// Where what the command writes goes. On a terminal, nothing of it acts.
#[derive(Clone, Copy)]
enum Target {
    Output(Screen),
    Errors(Screen),
}

impl Target {
    fn output(out: Output) -> Self {
        Self::Output(screen(out.is_terminal(), out))
    }

    fn errors(out: Output) -> Self {
        Self::Errors(screen(io::stderr().is_terminal(), out))
    }

    const fn screen(self) -> Screen {
        match self {
            Self::Output(screen) | Self::Errors(screen) => screen,
        }
    }

    fn write(self, bytes: &[u8]) -> io::Result<()> {
        let shown = shown(self.screen(), bytes);
        match self {
            Self::Output(_) => {
                let mut stream = io::stdout().lock();
                stream.write_all(&shown)?;
                stream.flush()
            }
            Self::Errors(_) => io::stderr().lock().write_all(&shown),
        }
    }
}

const fn screen(is_terminal: bool, out: Output) -> Screen {
    match (is_terminal, out.colours()) {
        (false, _) => Screen::Raw,
        (true, true) => Screen::Coloured,
        (true, false) => Screen::Plain,
    }
}

/// A part of the output, line by line.
fn shown(screen: Screen, bytes: &[u8]) -> Vec<u8> {
    if screen == Screen::Raw {
        return bytes.to_vec();
    }
    let lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(|line| screen.show(line)).collect();
    lines.join(&b'\n')
}

/// How many bytes at the end are the beginning of a character whose rest has not come yet.
fn unfinished(bytes: &[u8]) -> usize {
    bytes.utf8_chunks().last().map_or(0, |chunk| {
        let rest = chunk.invalid();
        let is_begun = str::from_utf8(rest).is_err_and(|error| error.error_len().is_none());
        if is_begun { rest.len() } else { 0 }
    })
}

/// Copies what comes out of a pipe, to its end or, once `done` is told, what is in it then: somebody inside may have
/// kept the other end, and write on.
fn copy(mut pipe: File, done: OwnedFd, target: Target) -> JoinHandle<io::Result<()>> {
    thread::spawn(move || {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        let mut waiting: Vec<u8> = Vec::new();
        let mut part = vec![0; PART_BYTES];
        // What may still be copied, once the command is over.
        let mut left: Option<u64> = None;
        loop {
            let most =
                left.map_or(part.len(), |left| part.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            match pipe.read(part.get_mut(..most).unwrap_or_default()) {
                Ok(0) => return target.write(&waiting),
                Ok(length) => {
                    left = left.map(|left| left.saturating_sub(length as u64));
                    waiting.extend(part.iter().take(length));
                    let rest = waiting.split_off(waiting.len() - unfinished(&waiting));
                    target.write(&waiting)?;
                    waiting = rest;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if left.is_some() {
                        return target.write(&waiting);
                    }
                    if is_told(&pipe, &done)? {
                        left = Some(rustix::io::ioctl_fionread(&pipe)?);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    })
}

/// Waits until there is something to copy or the command is over; whether it is.
fn is_told(pipe: &File, done: &OwnedFd) -> io::Result<bool> {
    let mut waiting = [PollFd::new(pipe, PollFlags::IN), PollFd::new(done, PollFlags::IN)];
    wait(&mut waiting)?;
    let [_, done] = waiting;
    Ok(!done.revents().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_acts_on_a_terminal_and_characters_stay_whole() {
        assert_eq!(shown(Screen::Raw, b"a\x1b[2J\n"), b"a\x1b[2J\n");
        assert_eq!(shown(Screen::Plain, b"a\x1b[2J\nb"), b"a\\x1b[2J\nb");
        assert_eq!(shown(Screen::Plain, b"a\n\n"), b"a\n\n");
        let euro = "\u{20ac}".as_bytes();
        assert_eq!(unfinished(&euro[..2]), 2);
        assert_eq!((unfinished(euro), unfinished(b"a\xff"), unfinished(b"")), (0, 0, 0));
    }

    #[test]
    fn who_keeps_the_other_end_is_not_waited_for() {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::io::write(&write, b"x").unwrap();
        let (end, done) = ending().unwrap();
        let copied = copy(read.into(), done, Target::Output(Screen::Raw));
        drop(end);
        copied.join().unwrap().unwrap();
        // The reader is gone although this end is still open.
        assert_eq!(rustix::io::write(&write, b"x"), Err(Errno::PIPE));
    }
}
