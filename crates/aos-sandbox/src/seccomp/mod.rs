//! System call filters: one policy table, compiled into a balanced range tree of classic BPF.
//!
//! A linear filter costs more to install than all other layers together, since the kernel emulates
//! it once for every system call number to find those that are always allowed; a tree does not.
//! Layout of every filter:
//!
//! 1. any architecture but x86_64 (`int 0x80`) and any number with the x32 bit kill the process;
//! 2. a binary search over the number, whose leaves are verdicts;
//! 3. a verdict that depends on arguments compares the values, never memory behind a pointer.
//!
//! Pure: nothing here is installed, see `aos_sys::seccomp`.

mod build;
mod call;
mod generate;
mod policy;
mod table;
#[cfg(test)]
mod tests;

pub use aos_sys::seccomp::Instruction;
pub use policy::{Check, Policy, Row, Verdict};
