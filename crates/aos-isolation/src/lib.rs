//! Isolation backends: one plan in, one running agent out, behind one facade.
//!
//! - [`backend`]: the backends and what each isolates; which one a declaration names;
//! - [`facade`]: [`facade::start`], which starts a plan in a backend, and what can be done with what runs;
//! - [`probe`]: whether a backend works on this machine, found by running a program in it;
//! - [`programs`]: where the programs of the backends are;
//! - [`express`]: what of a plan a backend cannot enforce; such a plan is refused, never run with less;
//! - [`layout`] and [`oci`]: the pure functions from a plan to a root file system and to the configuration
//!   of an OCI runtime;
//! - [`vm`]: a virtual machine: its kernel, its initial file system, QEMU's command line, and the messages
//!   between inside and outside;
//! - the program `aos-isolate` (in `src/bin`) does for the other backends what `aos-launch` does for
//!   `native`: it prepares, starts, reports readiness, passes signals on, and leaves nothing.
//!
//! The plan is the only input: no backend has settings of its own.

pub mod backend;
pub mod express;
pub mod facade;
pub mod layout;
pub mod oci;
pub mod probe;
pub mod programs;
pub mod vm;
