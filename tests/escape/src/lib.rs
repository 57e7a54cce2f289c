//! The escape corpus: every attempt of an agent against its sandbox, what must happen, and next to
//! it something similar that is allowed and must work.
//!
//! - [`corpus`]: the tables of attempts of agents and of steps of a build, from which the runs, the
//!   printed tables and `docs/escape-corpus.md` follow;
//! - [`attempts`]: the attempts as code, executed inside by the program `escape-probe`;
//! - [`runner`]: prepares a host with secrets, sockets and neighbours, derives a plan with the real
//!   `aos_sandbox`, starts the real `aos-launch`, and judges.
//!
//! [`lacking`] is no part of it: with it, tests take something away from the launcher's kernel.
//!
//! Each attempt runs in a process of its own, since some are killed.

pub mod attempts;
pub mod corpus;
pub mod lacking;
pub mod outcome;
mod raw;
pub mod runner;
pub mod step;
pub mod table;
