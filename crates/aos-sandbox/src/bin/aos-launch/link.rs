//! The socket between the launcher and the init: the network namespace goes in, and at the end the
//! agent's exit status comes out.
//!
//! An init that exits has the kernel take down the file tree and the namespaces first. By telling the
//! status when every other process inside has ended, it lets the launcher exit without waiting for
//! that. A launcher that is a unit's main process waits all the same, so that the service manager
//! finds nothing left; so does one after which somebody goes on with the file tree: that of a step of a
//! build, and of an agent with a transactional workspace.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use aos_sys::namespace::{self, Kind};
use aos_sys::signal;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::error::{Context, LaunchError, Layer, fail};

/// Bytes of the ancillary data: one descriptor needs 24.
const ANCILLARY_BYTES: usize = 64;
/// A message has at least one byte.
const MESSAGE: &[u8] = b"N";

/// The launcher's end.
#[derive(Debug)]
pub(crate) struct ToInit(OwnedFd);

/// The init's end.
#[derive(Debug)]
pub(crate) struct ToLauncher(OwnedFd);

/// Both ends.
pub(crate) fn channel() -> Result<(ToInit, ToLauncher), LaunchError> {
    let ends = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (outer, inner) = ends.layer(Layer::Process, "cannot make a socket pair")?;
    Ok((ToInit(outer), ToLauncher(inner)))
}

impl ToInit {
    /// Lets the init into this process's network namespace.
    pub(crate) fn pass_network(&self) -> Result<(), LaunchError> {
        let what = "cannot pass the network namespace on";
        let own = namespace::own(Kind::Net).layer(Layer::Network, what)?;
        let descriptors = [own.as_fd()];
        let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return fail(Layer::Network, what);
        }
        match sendmsg(&self.0, &[IoSlice::new(MESSAGE)], &mut ancillary, SendFlags::NOSIGNAL) {
            // The init has ended, and has told why.
            Ok(_) | Err(Errno::PIPE) => Ok(()),
            Err(error) => Err(error).layer(Layer::Network, what),
        }
    }

    /// From now on the launcher gets a signal when the init tells the status, and [`Self::status`]
    /// does not wait.
    pub(crate) fn signal(&self) -> Result<(), LaunchError> {
        signal::when_readable(&self.0).layer(Layer::Process, "cannot listen to the init")
    }

    /// The agent's exit status, if it has been told.
    pub(crate) fn status(&self) -> Result<Option<u8>, LaunchError> {
        let mut status = [0];
        match rustix::io::read(&self.0, &mut status) {
            Ok(1..) => Ok(status.first().copied()),
            // An init that ends without a word is heard of by its own end.
            Ok(0) | Err(Errno::AGAIN | Errno::INTR | Errno::CONNRESET) => Ok(None),
            Err(error) => Err(error).layer(Layer::Process, "cannot hear from the init"),
        }
    }
}

impl ToLauncher {
    /// Waits for the launcher's network namespace and enters it.
    pub(crate) fn enter_network(&self) -> Result<(), LaunchError> {
        let what = "cannot enter the network namespace";
        let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut parts = [IoSliceMut::new(&mut byte)];
        recvmsg(&self.0, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC).layer(Layer::Network, what)?;
        let descriptors = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        match descriptors.flatten().next() {
            Some(namespace) => namespace::enter_network(namespace).layer(Layer::Network, what),
            // The launcher has ended, and so will this process.
            None => fail(Layer::Network, what),
        }
    }

    /// Tells the agent's exit status.
    pub(crate) fn ended(&self, status: u8) -> Result<(), LaunchError> {
        match rustix::io::write(&self.0, &[status]) {
            // The launcher waits for this process's end, or has ended itself.
            Ok(_) | Err(Errno::PIPE) => Ok(()),
            Err(error) => Err(error).layer(Layer::Process, "cannot tell the exit status"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_comes_out_and_silence_is_none() {
        let (outer, inner) = channel().unwrap();
        // SIGIO would end the test's process.
        rustix::fs::fcntl_setfl(&outer.0, rustix::fs::OFlags::NONBLOCK).unwrap();
        assert_eq!(outer.status().unwrap(), None);
        inner.ended(143).unwrap();
        assert_eq!(outer.status().unwrap(), Some(143));
        drop(inner);
        assert_eq!(outer.status().unwrap(), None);
        let (outer, inner) = channel().unwrap();
        drop(outer);
        // The launcher is gone: nothing to tell, and no failure.
        inner.ended(0).unwrap();
    }
}
