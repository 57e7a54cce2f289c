//! What the processes inside tell the outermost one before the agent runs: a pipe that exec closes.
//!
//! Frames of one byte for the kind, four for the length (little endian), and the text. The end of
//! the pipe after a status frame and without a failure frame means that exec has succeeded.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use aos_sandbox::launch::contents;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Context, LaunchError, Layer, fail, print_line};

/// Bytes of all frames: a report of the greatest size, a status and a failure fit.
pub(crate) const BYTES_MAX: usize = 1 << 20;

const STATUS: u8 = b'S';
const REPORT: u8 = b'R';
const FAILURE: u8 = b'E';

/// The end of the outermost process.
#[derive(Debug)]
pub(crate) struct Receiver(File);

/// The end of the processes inside.
#[derive(Debug)]
pub(crate) struct Sender(File);

/// How the start of the agent went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The agent's program runs.
    Started {
        /// One line on what is in force.
        status: String,
        /// The report's bytes.
        report: Vec<u8>,
    },
    /// A layer is missing.
    Failed {
        /// The layer's exit status.
        exit_status: u8,
        /// The layer and why, in one line.
        why: String,
    },
}

/// A pipe that exec closes.
pub(crate) fn channel() -> Result<(Receiver, Sender), LaunchError> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).layer(Layer::Process, "cannot make a pipe")?;
    Ok((Receiver(read.into()), Sender(write.into())))
}

impl Sender {
    /// The end of a pipe that the launcher made.
    pub(crate) fn over(pipe: OwnedFd) -> Self {
        Self(pipe.into())
    }

    /// Says what is in force.
    pub(crate) fn in_force(&mut self, status: &str, report: &[u8]) -> Result<(), LaunchError> {
        self.send(REPORT, report)?;
        self.send(STATUS, status.as_bytes())
    }

    /// Says which layer is missing, and ends this process with its status; the other end prints it.
    pub(crate) fn give_up(&mut self, error: LaunchError) -> Result<u8, LaunchError> {
        match self.failed(&error) {
            Ok(()) => Ok(error.layer().exit_status()),
            Err(_) => Err(error),
        }
    }

    /// Says which layer is missing, or prints it where nobody listens.
    pub(crate) fn tell(&mut self, error: &LaunchError) {
        if self.failed(error).is_err() {
            print_line(&error.to_string());
        }
    }

    fn failed(&mut self, error: &LaunchError) -> Result<(), LaunchError> {
        let mut text = vec![error.layer().exit_status()];
        text.extend(error.to_string().into_bytes());
        self.send(FAILURE, &text)
    }

    fn send(&mut self, kind: u8, text: &[u8]) -> Result<(), LaunchError> {
        let length = u32::try_from(text.len()).layer(Layer::Process, "message too long")?;
        let mut frame = vec![kind];
        frame.extend(length.to_le_bytes());
        frame.extend(text);
        self.0.write_all(&frame).layer(Layer::Process, "cannot report to the launcher")
    }
}

impl Receiver {
    /// Waits for the end of the pipe.
    pub(crate) fn wait(self) -> Result<Outcome, LaunchError> {
        let bytes =
            contents::read(self.0, BYTES_MAX as u64).layer(Layer::Process, "cannot hear from inside")?;
        decode(&bytes)
    }
}

/// How the start went, from all that came before the end of the pipe.
pub(crate) fn decode(mut bytes: &[u8]) -> Result<Outcome, LaunchError> {
    let mut report = Vec::new();
    let mut status = None;
    while let Some((kind, text, rest)) = frame(bytes) {
        bytes = rest;
        match kind {
            REPORT => report = text.to_vec(),
            STATUS => status = Some(String::from_utf8_lossy(text).into_owned()),
            FAILURE => {
                let Some((&exit_status, text)) = text.split_first() else { break };
                return Ok(Outcome::Failed { exit_status, why: String::from_utf8_lossy(text).into_owned() });
            }
            _ => break,
        }
    }
    match status {
        Some(status) if bytes.is_empty() => Ok(Outcome::Started { status, report }),
        _ => fail(Layer::Process, "a process inside ended before the sandbox was complete"),
    }
}

/// The first frame and what follows it.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (text, rest) = rest.split_at_checked(length)?;
    Some((*kind, text, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(send: impl FnOnce(&mut Sender)) -> Result<Outcome, LaunchError> {
        let (receiver, mut sender) = channel().unwrap();
        send(&mut sender);
        drop(sender);
        receiver.wait()
    }

    #[test]
    fn started_is_status_and_end() {
        let outcome = exchange(|sender| sender.in_force("all", b"{}").unwrap()).unwrap();
        assert_eq!(outcome, Outcome::Started { status: "all".to_owned(), report: b"{}".to_vec() });
    }

    #[test]
    fn failure_after_the_report_is_failure() {
        let outcome = exchange(|sender| {
            sender.in_force("all", b"{}").unwrap();
            sender.failed(&fail::<()>(Layer::Exec, "x").unwrap_err()).unwrap();
        });
        assert_eq!(outcome.unwrap(), Outcome::Failed { exit_status: 203, why: "exec: x".to_owned() });
    }

    #[test]
    fn silence_and_fragments_are_not_success() {
        assert!(exchange(|_| {}).is_err());
        assert!(exchange(|sender| sender.send(REPORT, b"{}").unwrap()).is_err());
        assert!(decode(b"S\x05\x00\x00\x00abc").is_err());
        assert!(decode(b"S\x01\x00\x00\x00aX").is_err());
    }
}
