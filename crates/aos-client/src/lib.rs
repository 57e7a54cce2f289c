//! The D-Bus contract of the supervisor and a typed client for it.
//!
//! What it owns: the names on the bus ([`names`]), the shape of what travels ([`view`]), the error names
//! ([`ClientError`], [`ErrorKind`]), the raw proxies ([`proxy`]) and [`Client`], which adds deadlines and
//! error mapping. The supervisor itself uses `names` and `view`, so that both ends share one table.
//!
//! Invariants: nothing of the supervisor's insides is here; every call has a deadline; every call that may
//! need authorisation carries the flag that lets polkit ask the user.

pub mod capability;
pub mod checkpoint;
pub mod client;
mod error;
pub mod exec;
pub mod explanation;
pub mod names;
pub mod proxy;
pub mod view;
pub mod workspace;

pub use capability::{CapabilityView, ChangeOptions, ChangedView};
pub use checkpoint::{CheckpointAnswer, CheckpointOptions, CheckpointView};
pub use client::{AgentEvent, Change, Client, Collect, EventStream, Workspace};
pub use error::{ClientError, ErrorKind};
pub use exec::ExecOptions;
pub use explanation::Explanation;
pub use view::{AgentView, CollectedView, InstallOptions, PackageView, RunOptions};
pub use workspace::{WorkspaceAnswer, WorkspaceOptions};
pub use zbus;
