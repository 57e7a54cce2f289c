//! The recorder: a thread that hears of every call that names a file or an address, notes what it
//! would need, and lets it go on.
//!
//! It answers one call after the other, so the agent waits while it looks: nothing queues up in this
//! process, whatever the agent does. It is a thread of its own since looking at a path of the agent's
//! choice can take long (a network file system that does not answer), and the one who watches the
//! clock must not wait for it.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use aos_sandbox::record;
use aos_sys::notify::{self, Notification};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::ask::{Unreadable, decode};
use crate::host::Files;
use crate::need::{Found, Record};
use crate::process::Process;
use crate::view::View;

/// Bytes of the ancillary data: one descriptor needs 24.
const ANCILLARY_BYTES: usize = 64;

/// A recorder at work.
pub(crate) struct Recorder {
    done: Receiver<io::Result<Record>>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    /// Starts one that gets its listener over `socket`.
    pub(crate) fn start<F: Files + Send + 'static>(socket: OwnedFd, view: View<F>) -> io::Result<Self> {
        let (send, done) = sync_channel(1);
        let work = move || {
            // Nobody is left to hear it when the run was given up.
            send.send(record(&socket, &view)).unwrap_or_default();
        };
        thread::Builder::new().name("recorder".to_owned()).spawn(work)?;
        Ok(Self { done })
    }

    /// What was recorded, once nothing of the agent is left.
    pub(crate) fn finish(self, patience: Duration) -> io::Result<Record> {
        match self.done.recv_timeout(patience) {
            Ok(record) => record,
            Err(RecvTimeoutError::Timeout) => {
                Err(io::Error::other("the recorder still looks at a path: a file system does not answer"))
            }
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the recorder ended early")),
        }
    }
}

/// Records until no process has the filter any more.
fn record<F: Files>(socket: &OwnedFd, view: &View<F>) -> io::Result<Record> {
    let mut record = Record::default();
    let Some(listener) = receive_listener(socket)? else { return Ok(record) };
    loop {
        let mut waited = [PollFd::new(&listener, PollFlags::IN)];
        match poll(&mut waited, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let happened = waited.first().map_or_else(PollFlags::empty, PollFd::revents);
        if happened.contains(PollFlags::IN) {
            if let Some(call) = notify::receive(&listener)? {
                note(&listener, &call, view, &mut record)?;
                notify::let_go_on(&listener, call.id)?;
            }
        } else if happened.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return Ok(record);
        }
    }
}

/// The descriptor that the launcher sends; `None` when it ends without, since a layer is missing.
fn receive_listener(socket: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(descriptors.last())
}

/// Notes one call. What was read counts only if the call waited all the time.
fn note<F: Files>(
    listener: impl AsFd,
    call: &Notification,
    view: &View<F>,
    record: &mut Record,
) -> io::Result<()> {
    record.calls = record.calls.saturating_add(1);
    let process = Process::new(call.thread);
    let found = decode(call, &process).map(|asks| asks.iter().filter_map(|ask| view.judge(ask)).collect());
    let found: Vec<Found> = match found {
        Ok(found) => found,
        Err(Unreadable) => {
            record.unreadable = record.unreadable.saturating_add(1);
            return Ok(());
        }
    };
    // Most calls need nothing.
    if found.is_empty() {
        return Ok(());
    }
    let name = process.name();
    if notify::is_waiting(listener, call.id)? {
        let known = u32::try_from(call.number).ok().and_then(record::find);
        for found in found {
            record.add(found, known.map_or("?", |known| known.name), &name);
        }
    }
    Ok(())
}
