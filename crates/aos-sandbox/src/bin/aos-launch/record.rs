//! Recording what the agent asks for, with `--record-socket N`: a second filter that asks a listener
//! about calls which name files and addresses, and the listener's way out to the caller.
//!
//! It grants nothing: the listener can only let a call go on, and every layer of the plan is in force
//! by then. When the caller ends, the calls that the filter asks about fail with `ENOSYS`.
//!
//! One message: the byte `R`, and one descriptor (`SCM_RIGHTS`).

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use aos_sandbox::record;
use aos_sys::notify;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::error::{Context, LaunchError, Layer, fail};

/// Bytes of the ancillary data: one descriptor needs 24.
const ANCILLARY_BYTES: usize = 64;
const MESSAGE: &[u8] = b"R";

/// Installs the filter and passes its listener out. Neither the listener nor the socket is left when
/// this process has become the agent.
pub(crate) fn begin(socket: Option<&OwnedFd>) -> Result<(), LaunchError> {
    let Some(socket) = socket else { return Ok(()) };
    let listener =
        notify::install(&record::filter()).layer(Layer::Seccomp, "cannot record what the agent asks for")?;
    let what = "cannot pass the record's listener out";
    let descriptors = [listener.as_fd()];
    let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return fail(Layer::Seccomp, what);
    }
    let sent = sendmsg(socket, &[IoSlice::new(MESSAGE)], &mut ancillary, SendFlags::NOSIGNAL);
    if sent.layer(Layer::Seccomp, what)? == MESSAGE.len() { Ok(()) } else { fail(Layer::Seccomp, what) }
}
