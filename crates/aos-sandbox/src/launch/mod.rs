//! What `aos-launch` and `aos-isolate` do alike: they take a start from their caller and look at the host.
//!
//! - [`options`]: the plan, the report and the user that a command line names;
//! - [`sources`]: every source of the plan's tree, opened without following links and checked;
//! - [`layers`]: the layers of a transactional workspace, which are one of these sources;
//! - [`aliases`]: refusing what the host's own mounts would make writable and executable at once;
//! - [`devices`]: what an agent has in `/dev`;
//! - [`mounts`]: detached mounts of the sources with the plan's flags;
//! - [`notify`]: readiness and failures to the service manager;
//! - [`error`]: the layers, each with its name and exit status;
//! - [`contents`]: reading a file whole.
//!
//! The two programs differ in what comes after: the one confines, the other has a backend confine. What is
//! here runs before the agent, in single-threaded programs; it starts no process and makes no namespace.

pub mod aliases;
pub mod contents;
pub mod devices;
pub mod error;
pub mod layers;
pub mod mounts;
pub mod notify;
pub mod options;
pub mod sources;
