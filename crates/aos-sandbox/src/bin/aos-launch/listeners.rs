//! The plan's listeners: sockets on the own loopback, bound before anything else runs inside and
//! passed out to the caller over the Unix socket of `--listener-socket`. The caller serves on them
//! what the sandbox may reach; nothing of the caller's network comes in.
//!
//! One message: the names, each followed by a newline, and as many descriptors (`SCM_RIGHTS`) in
//! the same order.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aos_sandbox::plan::Listener;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, bind,
    listen, sendmsg, socket_with,
};

use crate::error::{Context, LaunchError, Layer, fail};

/// Connections that wait to be accepted: a package manager opens some dozens at once.
const BACKLOG: i32 = 128;
/// Bytes of the ancillary data: more than a plan's greatest number of descriptors needs.
const ANCILLARY_BYTES: usize = 1024;

/// Makes the listeners and passes them out. Nothing of them is left in this process.
pub(crate) fn pass_out(listeners: &[Listener], socket: Option<OwnedFd>) -> Result<(), LaunchError> {
    if listeners.is_empty() {
        return Ok(());
    }
    let Some(socket) = socket else {
        return fail(Layer::Network, "the plan has listeners, which need --listener-socket");
    };
    let bound: Vec<OwnedFd> = listeners.iter().map(bind_one).collect::<Result<_, _>>()?;
    let names: String = listeners.iter().flat_map(|listener| [listener.name.as_str(), "\n"]).collect();
    let descriptors: Vec<BorrowedFd<'_>> = bound.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return fail(Layer::Network, "the plan has too many listeners for one message");
    }
    let sent = sendmsg(&socket, &[IoSlice::new(names.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL);
    let sent = sent.layer(Layer::Network, "cannot pass the listeners out")?;
    if sent == names.len() { Ok(()) } else { fail(Layer::Network, "cannot pass all listeners out") }
}

fn bind_one(listener: &Listener) -> Result<OwnedFd, LaunchError> {
    let what = || format!("cannot listen on port {} for {}", listener.port, listener.name);
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .layer(Layer::Network, what())?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.port)).layer(Layer::Network, what())?;
    listen(&socket, BACKLOG).layer(Layer::Network, what())?;
    Ok(socket)
}
