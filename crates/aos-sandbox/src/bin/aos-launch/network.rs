//! The network namespace. It takes the kernel longer than all others together, so the launcher makes
//! it, with its loopback and listeners, while the init builds the file tree; the init then enters it
//! through their [`link`](crate::link). What its lock down leaves the launcher cannot use a network.

use std::os::fd::OwnedFd;

use aos_sandbox::plan::Listener;
use aos_sys::namespace::{self, Kind};
use aos_sys::network::loopback_up;

use crate::error::{self, Context, LaunchError, Layer};
use crate::listeners;

/// Makes the namespace for the calling process, with a loopback that is up, and the plan's listeners.
pub(crate) fn make(listeners: &[Listener], socket: Option<OwnedFd>) -> Result<(), LaunchError> {
    namespace::unshare(&[Kind::Net]).layer(Layer::Namespace, error::NO_NAMESPACES)?;
    loopback_up().layer(Layer::Network, "cannot bring the loopback up")?;
    listeners::pass_out(listeners, socket)
}
