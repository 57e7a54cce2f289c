//! Every unsafe line of AOS: safe wrappers over the kernel calls that neither the standard library
//! nor `rustix` offers in safe form, and the few sequences of calls that must stay together.
//!
//! The crate knows processes, namespaces, mounts and filters; it knows no agent, no capability and
//! no path of AOS. Every function is one attempt: it returns the kernel's error and never retries
//! with less. Linux on x86_64 only.
//!
//! The functions that change the calling *thread* (namespaces, credentials, seccomp) are meant for
//! a single-threaded program; [`process::fork`] verifies that it is in one.

#![deny(unsafe_op_in_unsafe_fn)]
#![allow(unsafe_code, reason = "this crate is where the kernel calls without a safe form live")]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!(
    "aos-sys wraps Linux on x86_64 only: another architecture needs its own seccomp table, argument order of clone, and tests"
);

pub mod capability;
pub mod identity;
pub mod keyring;
pub mod mount;
pub mod namespace;
pub mod network;
pub mod notify;
pub mod pending;
pub mod process;
pub mod quota;
pub mod seccomp;
pub mod signal;

use std::io;

/// Turns the -1 of a C library call into the error it left in `errno`.
fn checked(result: impl Into<i64>) -> io::Result<i64> {
    let result = result.into();
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
