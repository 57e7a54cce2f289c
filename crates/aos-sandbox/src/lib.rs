//! From capabilities to a sandbox.
//!
//! - [`plan`]: the pure function from an agent's declaration to the sandbox plan, the plan's format,
//!   and its bounded reader;
//! - [`seccomp`]: the pure generator of system call filters;
//! - [`record`]: the calls that are recorded of an agent that is watched;
//! - [`rootfs`]: the one look at a package's root that a plan needs;
//! - the program `aos-launch` (in `src/bin`) applies a plan and executes the agent.
//!
//! A plan says everything that will be enforced; the launcher adds nothing and leaves nothing out.

pub mod plan;
pub mod record;
pub mod rootfs;
pub mod seccomp;
