//! The vocabulary that every part of AOS shares: ids, quantities, the capability algebra, the
//! Agentfile, what a package's config carries, references and dependencies, the states of an agent and
//! the launcher's report.
//!
//! The crate has no input or output, no clock and no environment: each type is parsed once, from
//! text or bytes that the caller read, and is valid from then on. Every decoder is bounded, and
//! its error names the bound, the place and what was expected.

pub mod agentfile;
pub mod capability;
pub mod config;
pub mod dependency;
pub mod foreign;
pub mod glob;
pub mod graph;
pub mod id;
pub mod lock;
mod macros;
pub mod path;
pub mod port;
pub mod quantity;
mod quoted;
pub mod reference;
pub mod report;
pub mod state;
pub mod text;
pub mod time;
pub mod workspace;
