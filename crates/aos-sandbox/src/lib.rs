//! From capabilities to a sandbox.
//!
//! - [`plan`]: the pure function from an agent's declaration to the sandbox plan, the plan's format,
//!   and its bounded reader;
//! - [`seccomp`]: the pure generator of system call filters;
//! - [`record`]: the calls that are recorded of an agent that is watched;
//! - [`disk`]: the limit on the disk, as the kernel has it;
//! - [`rootfs`]: the one look at a package's root that a plan needs;
//! - [`launch`]: what `aos-launch` and `aos-isolate` do alike before an agent runs;
//! - [`call`]: one command in the sandbox of an agent that runs, as it is asked for and answered;
//! - [`caller`]: starting `aos-launch` and watching it to its end;
//! - the program `aos-launch` (in `src/bin`) applies a plan and executes the agent.
//!
//! A plan says everything that will be enforced; the launcher adds nothing and leaves nothing out.

pub mod call;
pub mod caller;
pub mod disk;
pub mod launch;
pub mod plan;
pub mod record;
pub mod rootfs;
pub mod seccomp;
