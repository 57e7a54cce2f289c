//! A virtual machine around one agent: QEMU, a kernel of its own, and `aos-launch` inside.
//!
//! - [`kernel`]: the kernel and the modules that a machine boots, found on this host;
//! - [`initrd`]: the archive that the kernel unpacks into memory and whose program it starts;
//! - [`manifest`]: what that program is told: which part of the host is shown where;
//! - [`machine`]: QEMU's command line;
//! - [`wire`]: the messages between the guest's first process and the driver outside.
//!
//! All of it is pure but for the look at the host in [`kernel`]. What comes from the guest is hostile: its
//! kernel may be the agent's. The program `aos-isolate` does the rest.

pub mod initrd;
pub mod kernel;
pub mod machine;
pub mod manifest;
pub mod wire;
