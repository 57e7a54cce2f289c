//! The caller's side of `aos-launch`: starting it with what it takes by descriptors, and watching it to its
//! end with everything inside.
//!
//! - `spawn`: the descriptors, each with its option, and the process;
//! - `watch`: its output as it comes, its deadline, and the word to end.
//!
//! Who watches blocks its thread; nothing here has a thread of its own.

mod spawn;
mod watch;

pub use spawn::{Given, exit_status, has_report, in_memory, sealed_in_memory, spawn};
pub use watch::{Cause, Stream, WatchError, Watched, Watcher, own_line};
