//! The launcher by itself, started for real: who may start it, what it refuses, what it passes on, what an
//! agent is given, and what is left when it ends.
//!
//! Each module owns one of these; `place` is where an agent of a test lives.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a panic is the failure report of a test, numbers are told, and starting the launcher is the point"
)]

mod calls;
mod grants;
mod kernel;
mod listeners;
mod place;
mod processes;
mod programs;
mod races;
mod start;
mod workspace;
