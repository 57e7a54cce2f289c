//! Asking a launcher for a call.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, sendmsg_addr, socket_with, socketpair,
};

use super::{CallRequest, RequestError};

/// Bytes of the ancillary data: [`super::DESCRIPTORS`] descriptors, with room.
const ANCILLARY_BYTES: usize = 64;

/// Why a launcher was not asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The request is none.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Nobody listens: the agent's launcher does not run, or serves no calls.
    #[error("the agent's launcher takes no calls")]
    Nobody,
    /// The launcher has as many requests waiting as the kernel keeps, or is frozen.
    #[error("the agent's launcher does not take any more requests now")]
    Full,
    /// The kernel refused.
    #[error("cannot ask the agent's launcher: {0}")]
    Failed(#[from] io::Error),
}

/// Sends a request, without waiting. The answer comes out of the returned socket, in one message; closing it ends the
/// call. `key` is the control key's file, open for writing.
pub fn ask(
    control: &Path,
    key: BorrowedFd<'_>,
    request: &CallRequest,
    streams: [BorrowedFd<'_>; 3],
) -> Result<OwnedFd, AskError> {
    let bytes = request.to_json()?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(io::Error::from)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).map_err(io::Error::from)?;
    let address = SocketAddrUnix::new(control).map_err(io::Error::from)?;
    let [input, output, errors] = streams;
    let descriptors = [key, theirs.as_fd(), input, output, errors];
    let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::from(Errno::MSGSIZE).into());
    }
    match sendmsg_addr(&socket, &address, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
        Ok(_) => Ok(ours),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Err(AskError::Nobody),
        Err(Errno::AGAIN | Errno::NOBUFS) => Err(AskError::Full),
        Err(error) => Err(io::Error::from(error).into()),
    }
}
