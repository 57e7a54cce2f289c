//! Calls: commands in the sandbox of the agent, beside it, for as long as it runs. [`aos_sandbox::call`] has what is
//! asked and answered.
//!
//! Three of this program's processes have a part in one, and none of them a privilege:
//!
//! | process | does | file |
//! |---|---|---|
//! | launcher | takes the request, makes the control group, answers | [`control`], [`groups`], [`table`] |
//! | init | forks the call into the group, reaps it | [`inside`] |
//! | call | confines itself as the agent did, and executes | [`inside`], [`crate::agent`] |
//!
//! The launcher and the init speak over a socket pair of their own: `C`, the call's number (four bytes, little endian)
//! and the request's bytes, with the standard streams, a pipe for [`crate::message`] and the group's directory; `K`
//! and the number ends a call that has no group; back comes `E`, the number and the wait status.
//!
//! An agent reaches none of it: the control socket and the control groups are not in its tree, both processes are
//! outside its Landlock domain, and each call is in a domain of its own.

mod apart;
pub(crate) mod control;
pub(crate) mod groups;
pub(crate) mod inside;
pub(crate) mod table;

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::error::{Context, LaunchError, Layer};
use control::Control;
use groups::Groups;
use table::Calls;

/// The launcher asks the init for a call.
const CALL: u8 = b'C';
/// The launcher wants a call without a group to end.
const KILL: u8 = b'K';
/// The init tells that a call has ended.
const ENDED: u8 = b'E';
/// The kind and the number.
const HEAD_BYTES: usize = 5;

/// Bytes of the ancillary data of one message: more than any message here has.
const ANCILLARY_BYTES: usize = 128;

/// The socket pair between the launcher and the init, in this order.
fn channel() -> Result<(OwnedFd, OwnedFd), LaunchError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .layer(Layer::Process, "cannot make a socket pair")
}

/// All that calls need, before the launcher and the init part.
pub(crate) struct Ends {
    control: Control,
    groups: Result<Groups, String>,
    launcher: OwnedFd,
    init: OwnedFd,
}

impl Ends {
    /// Those of an agent with this control socket.
    pub(crate) fn new(control: Control) -> Result<Self, LaunchError> {
        let (launcher, init) = channel()?;
        Ok(Self { control, groups: Groups::find(), launcher, init })
    }

    /// The group that the init is made in. The cgroup namespace of all processes then begins above it.
    pub(crate) fn group(&self) -> Option<&OwnedFd> {
        self.groups.as_ref().ok().map(Groups::agent)
    }

    /// The launcher's.
    pub(crate) fn of_launcher(self) -> Calls {
        Calls::new(self.control, self.groups, self.launcher)
    }

    /// The init's.
    pub(crate) fn of_init(self) -> OwnedFd {
        self.init
    }
}

/// One message with its descriptors.
#[derive(Debug)]
struct Message {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// Sends one message; does not wait.
fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::MSGSIZE);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags).map(drop)
}

/// What a socket has for us.
#[derive(Debug)]
enum Received {
    /// A whole message.
    Whole(Message),
    /// One that was longer or had more descriptors than fit. What came of it is closed.
    Cut,
    /// Nothing now.
    Nothing,
    /// The other end is closed.
    End,
}

/// Takes one message of at most `max` bytes; does not wait.
fn receive(socket: impl AsFd, max: usize) -> Result<Received, Errno> {
    let mut bytes = vec![0; max];
    let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
        Ok(received) => received,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(Received::Nothing),
        Err(Errno::CONNRESET) => return Ok(Received::End),
        Err(error) => return Err(error),
    };
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Ok(Received::Cut);
    }
    if received.bytes == 0 && descriptors.is_empty() {
        return Ok(Received::End);
    }
    bytes.truncate(received.bytes);
    Ok(Received::Whole(Message { bytes, descriptors }))
}

/// A message's kind, the call's number, and the rest.
fn parts(bytes: &[u8]) -> Option<(u8, u32, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let (number, rest) = rest.split_first_chunk::<4>()?;
    Some((*kind, u32::from_le_bytes(*number), rest))
}

/// The start of a message.
fn head(kind: u8, number: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES);
    bytes.push(kind);
    bytes.extend(number.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_with_their_descriptors_or_are_cut() {
        let (outer, inner) = channel().unwrap();
        assert!(matches!(receive(&inner, 10).unwrap(), Received::Nothing));
        let message = [head(CALL, 7), b"x".to_vec()].concat();
        send(&outer, &message, &[outer.as_fd(), inner.as_fd()]).unwrap();
        let Received::Whole(received) = receive(&inner, 10).unwrap() else { panic!("not whole") };
        assert_eq!(received.descriptors.len(), 2);
        assert_eq!(parts(&received.bytes).unwrap(), (CALL, 7, b"x".as_slice()));
        assert_eq!(parts(b"C\x01\x02"), None);
        send(&outer, &[0; 11], &[]).unwrap();
        assert!(matches!(receive(&inner, 10).unwrap(), Received::Cut));
        // More descriptors than the space for ancillary data holds.
        let many = [outer.as_fd(); 60];
        let mut space = [MaybeUninit::uninit(); 512];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&many)));
        sendmsg(&outer, &[IoSlice::new(b"x")], &mut ancillary, SendFlags::empty()).unwrap();
        assert!(matches!(receive(&inner, 10).unwrap(), Received::Cut));
        // What was received was an end of the same pair.
        drop((outer, received));
        assert!(matches!(receive(&inner, 10).unwrap(), Received::End));
    }
}
