//! Dependency resolution: from version requirements to one version of each package, or the conflict in words.
//!
//! A package is known by its kind and its name ([`PackageKey`](aos_core::lock::PackageKey)): an agent and a skill of one name are two packages.
//! [`solve`] asks a [`Catalogue`] for the versions that exist and for what each of them wants, as late as it can,
//! and returns one version of every package that is needed:
//!
//! - a version that the lock names is taken as long as the requirements allow it, else the highest that they allow;
//! - a pre-release is taken only where a requirement names one of the same MAJOR.MINOR.PATCH (as in Cargo);
//! - the same catalogue and the same root give the same answer, whatever order the catalogue answers in;
//! - packages that need each other in a circle are refused, with the circle;
//! - what has no solution is told by who wants what and what exists ([`Conflict`]).
//!
//! The algorithm is `PubGrub` (crate `pubgrub`). The crate is pure: no input, no output, no clock, no thread.
//!
//! | module | owns |
//! |---|---|
//! | `universe` | packages, what they want, the catalogue |
//! | `choice` | sets of versions |
//! | `search` | the search itself: preference, determinism, bounds |
//! | `solution` | the answer: its order, its circles |
//! | `conflict` | why there is no answer, in words |

mod choice;
mod conflict;
mod search;
mod solution;
mod universe;

pub use conflict::{Conflict, Existing, Want};
pub use search::{MAX_PACKAGES, MAX_STEPS, MAX_VERSIONS, MAX_WANTS, SolveError, solve};
pub use solution::{Chosen, Solution};
pub use universe::{Catalogue, Release, Wanted};
