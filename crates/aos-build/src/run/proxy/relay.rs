//! Bytes in both directions between two connections, bounded in memory and in silence.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::PollFlags;

use super::{Stop, Woken};

/// Bytes that wait in one direction: a fast network's worth of a millisecond.
const BUFFER_BYTES: usize = 64 * 1024;

/// What a client may still send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upload {
    /// Anything: a tunnel.
    All,
    /// The rest of one body, and nothing after it: a second request would be one that nobody vetted.
    Bytes(u64),
}

/// Relays until both ends are done, the server is done with its one answer, one of them fails, or
/// nothing moves for `idle`.
pub(super) fn run(
    client: &TcpStream,
    server: &TcpStream,
    upload: Upload,
    idle: Duration,
    stop: &Stop,
) -> io::Result<()> {
    client.set_nonblocking(true)?;
    server.set_nonblocking(true)?;
    let mut up = Direction::new(client, server, upload);
    let mut down = Direction::new(server, client, Upload::All);
    loop {
        while up.pump()? | down.pump()? {}
        let is_over = match upload {
            Upload::All => up.is_done && down.is_done,
            Upload::Bytes(_) => down.is_done,
        };
        if is_over {
            return Ok(());
        }
        let wanted: Vec<_> = up.wanted().into_iter().chain(down.wanted()).flatten().collect();
        if stop.wait(&wanted, Some(idle))? != Woken::Ready {
            return Ok(());
        }
    }
}

struct Direction<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    buffer: Vec<u8>,
    /// What of the buffer waits to be written.
    start: usize,
    end: usize,
    /// What may still be read.
    left: Upload,
    is_done: bool,
}

impl<'a> Direction<'a> {
    fn new(from: &'a TcpStream, to: &'a TcpStream, left: Upload) -> Self {
        let mut direction =
            Self { from, to, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0, left, is_done: false };
        direction.is_done = left == Upload::Bytes(0);
        direction
    }

    /// Reads and writes what is possible at once; whether anything moved.
    fn pump(&mut self) -> io::Result<bool> {
        if self.is_done {
            return Ok(false);
        }
        let mut moved = false;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            let most = match self.left {
                Upload::All => BUFFER_BYTES,
                Upload::Bytes(left) => usize::try_from(left).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES),
            };
            match self.from.read(self.buffer.get_mut(..most).unwrap_or_default()) {
                Ok(0) => {
                    self.is_done = true;
                    // The other direction may go on: a client that has sent all waits for an answer.
                    return finish(self.to);
                }
                Ok(count) => {
                    self.end = count;
                    moved = true;
                    if let Upload::Bytes(left) = &mut self.left {
                        *left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
                    }
                }
                Err(error) if is_later(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(waiting) = self.buffer.get(self.start..self.end).filter(|waiting| !waiting.is_empty()) {
            match self.to.write(waiting) {
                Ok(count) => {
                    self.start += count;
                    moved |= count > 0;
                }
                Err(error) if is_later(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if self.start == self.end && self.left == Upload::Bytes(0) {
            self.is_done = true;
        }
        Ok(moved)
    }

    /// What to wait for.
    fn wanted(&self) -> [Option<(BorrowedFd<'a>, PollFlags)>; 1] {
        if self.is_done {
            [None]
        } else if self.start == self.end {
            [Some((self.from.as_fd(), PollFlags::IN))]
        } else {
            [Some((self.to.as_fd(), PollFlags::OUT))]
        }
    }
}

/// Tells the other end that no more comes.
fn finish(to: &TcpStream) -> io::Result<bool> {
    match to.shutdown(Shutdown::Write) {
        Err(error) if error.kind() != ErrorKind::NotConnected => Err(error),
        _ => Ok(true),
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
