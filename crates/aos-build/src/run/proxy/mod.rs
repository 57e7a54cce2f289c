//! The way to the declared endpoints, and to no other: an HTTP proxy (CONNECT, and absolute-form
//! requests for `http`) on a socket in the step's own network namespace.
//!
//! The launcher binds the socket inside and passes it out; connections to the endpoints are made
//! from here. Whether an endpoint may be reached is decided by its name, before it is resolved; of
//! what it resolves to, only addresses of the public network are used, and the address that was
//! vetted is the one that is connected to. An address of any network can be declared as an address.
//!
//! What is inside a CONNECT tunnel is not looked at: a server that serves several names under one
//! address is reached as a whole.
//!
//! Concurrency: one thread that accepts and one for each connection, [`CONNECTIONS_MAX`] at most.
//! All end when the [`Proxy`] is dropped, which waits for them; a name that is being resolved then
//! is left to a thread of its own, which ends with the system's resolver.

mod connection;
mod relay;
pub mod request;
#[cfg(test)]
mod tests;
mod vet;

use std::collections::BTreeSet;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use aos_core::capability::HostName;
use aos_sandbox::plan::build::PROXY_LISTENER;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pipe::{PipeFlags, pipe_with};

use super::Endpoint;

/// Connections at once: npm opens 50, cargo 32, pip 10. More wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// How often a full proxy looks whether a connection has ended.
const FULL_PAUSE: Duration = Duration::from_millis(20);
/// Bytes of the message with the listeners' names: the launcher's names have 64 each.
const NAMES_BYTES_MAX: usize = 8192;
/// Bytes of its ancillary data.
const ANCILLARY_BYTES: usize = 1024;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// From the start of a connection to the end of its request's head.
    pub(super) head: Duration,
    /// To resolve a name.
    pub(super) resolve: Duration,
    /// To connect to one address.
    pub(super) connect: Duration,
    /// Between two transfers of a connection.
    pub(super) idle: Duration,
}

impl Default for Times {
    /// Generous for servers that compute before they answer, and short enough that 64 silent
    /// connections do not hold a step up until its time-out.
    fn default() -> Self {
        Self {
            head: Duration::from_secs(30),
            resolve: Duration::from_secs(20),
            connect: Duration::from_secs(15),
            idle: Duration::from_secs(300),
        }
    }
}

/// Finds the addresses of a name.
pub(super) type Resolve = dyn Fn(&HostName, u16) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// What all connections share.
pub(super) struct Rules {
    /// What may be reached.
    pub(super) endpoints: BTreeSet<Endpoint>,
    /// The resolver.
    pub(super) resolve: Arc<Resolve>,
    /// The bounds.
    pub(super) times: Times,
    /// Gets a line for each request that was refused; lines that do not fit are dropped.
    pub(super) notes: SyncSender<String>,
}

impl Rules {
    /// The rules for these endpoints with the system's resolver.
    pub(super) fn new(endpoints: &[Endpoint], notes: SyncSender<String>) -> Self {
        let endpoints = endpoints.iter().cloned().collect();
        Self { endpoints, resolve: Arc::new(vet::by_system), times: Times::default(), notes }
    }

    /// Tells the builder about a refusal.
    fn note(&self, line: String) {
        if self.notes.try_send(line).is_err() {
            // A step that asks for much that it does not get has told enough already.
        }
    }
}

/// A running proxy.
#[derive(Debug)]
pub(super) struct Proxy {
    /// Its end wakes and ends every thread.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// Wakes a thread of the proxy when it is to end: the reading end of a pipe that nobody writes to.
#[derive(Clone, Debug)]
pub(super) struct Stop(Arc<OwnedFd>);

impl Proxy {
    /// Serves on the listener that arrives over `socket` ([`Rules::endpoints`] from there on).
    pub(super) fn start(socket: OwnedFd, rules: Rules) -> io::Result<Self> {
        Self::run(rules, move |stop| receive(&socket, stop))
    }

    /// Serves on a listener.
    #[cfg(test)]
    pub(super) fn on(listener: TcpListener, rules: Rules) -> io::Result<Self> {
        Self::run(rules, move |_| Ok(Some(listener)))
    }

    fn run(
        rules: Rules,
        listener: impl FnOnce(&Stop) -> io::Result<Option<TcpListener>> + Send + 'static,
    ) -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        let stop = Stop(Arc::new(read));
        let body = move || {
            let served = listener(&stop).and_then(|listener| match listener {
                Some(listener) => accept(&listener, &rules, &stop),
                None => Ok(()),
            });
            if let Err(error) = served {
                rules.note(format!("the proxy has ended: {error}"));
            }
        };
        let thread = std::thread::Builder::new().name("aos-proxy".to_owned()).spawn(body)?;
        Ok(Self { stop: Some(write), thread: Some(thread) })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Stop {
    /// Waits until one of the descriptors is ready for what it is named with, the time is over, or
    /// it is time to end.
    pub(super) fn wait(
        &self,
        others: &[(BorrowedFd<'_>, PollFlags)],
        time: Option<Duration>,
    ) -> io::Result<Woken> {
        let mut all = vec![PollFd::new(&*self.0, PollFlags::IN)];
        all.extend(others.iter().map(|(other, events)| PollFd::from_borrowed_fd(*other, *events)));
        let time = time.map(|time| Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        });
        let ready = loop {
            match poll(&mut all, time.as_ref()) {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        Ok(match all.first() {
            Some(own) if !own.revents().is_empty() => Woken::Stop,
            _ if ready == 0 => Woken::Time,
            _ => Woken::Ready,
        })
    }
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// One of the descriptors is ready.
    Ready,
    /// The time is over.
    Time,
    /// It is time to end.
    Stop,
}

/// Waits for the launcher's message with the listener; `None` if the launcher ends without it.
fn receive(socket: &OwnedFd, stop: &Stop) -> io::Result<Option<TcpListener>> {
    if stop.wait(&[(socket.as_fd(), PollFlags::IN)], None)? == Woken::Stop {
        return Ok(None);
    }
    let mut names = vec![0; NAMES_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(&mut names)];
    let received = recvmsg(socket, parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets: Vec<OwnedFd> = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            sockets.extend(descriptors);
        }
    }
    let text = String::from_utf8_lossy(names.get(..received.bytes).unwrap_or_default()).into_owned();
    let named = text.lines().zip(sockets).find(|(name, _)| *name == PROXY_LISTENER);
    Ok(named.map(|(_, socket)| TcpListener::from(socket)))
}

/// Accepts connections until it is time to end, and waits for all of them.
fn accept(listener: &TcpListener, rules: &Rules, stop: &Stop) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let active = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        loop {
            let is_full = active.load(Ordering::SeqCst) >= CONNECTIONS_MAX;
            let woken = if is_full {
                stop.wait(&[], Some(FULL_PAUSE))?
            } else {
                stop.wait(&[(listener.as_fd(), PollFlags::IN)], None)?
            };
            match woken {
                Woken::Stop => return Ok(()),
                Woken::Ready if !is_full => {}
                _ => continue,
            }
            let client = match listener.accept() {
                Ok((client, _)) => client,
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error),
            };
            active.fetch_add(1, Ordering::SeqCst);
            let leave = Leave(&active);
            std::thread::Builder::new().name("aos-proxy-connection".to_owned()).spawn_scoped(
                scope,
                move || {
                    let _leave = leave;
                    connection::serve(&client, rules, stop);
                },
            )?;
        }
    })
}

/// Errors of accept(2) that say something of one connection only.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
    )
}

/// Counts a connection out, however it ends.
struct Leave<'a>(&'a AtomicUsize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
