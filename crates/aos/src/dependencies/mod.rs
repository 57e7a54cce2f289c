//! What a package is built from and with that is not in its folder: base images, packages, dependencies; and the
//! lock that says which.
//!
//! | module | owns |
//! |---|---|
//! | `declared` | what an Agentfile and its parents say |
//! | `fetch` | bringing one package or image into the user store, from wherever it is |
//! | `offers` | which versions of a dependency there are, for the solver |
//! | `lock` | `Agentfile.lock`: read, checked, solved, written |

mod declared;
mod fetch;
mod lock;
mod offers;

pub(crate) use declared::declared;
pub(crate) use fetch::{Fetcher, SourceArgs};
pub(crate) use lock::{LockMode, lock};
