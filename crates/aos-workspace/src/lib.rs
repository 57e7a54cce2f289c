//! Transactional workspaces: what an agent changed, and applying, freezing or throwing it away.
//!
//! A workspace is a union of layers: the changes, snapshots, and what is below (`aos_sandbox::plan::workspace` has
//! the layout). [`Folder`] is the changes of one agent; its operations work on the layers as plain directories, with
//! overlayfs's rules of what hides what, while the union is not mounted.
//!
//! Everything in the layers was made by an agent. So: names are looked up beneath an open directory, one by one or
//! with `RESOLVE_BENEATH`, and no symbolic link is followed; only regular files are opened, without blocking; a path
//! is at most 4,095 bytes; a walk holds a few descriptors whatever the depth; what is deleted is flattened, not
//! descended into. Names become text only by `aos_core::workspace::escaped`.
//!
//! # What holds at any moment, also after a kill
//!
//! - An operation writes `intent.json` first and removes it last. The next operation finds it and does the same to
//!   its end (*roll forward*); until then the launcher does not start the agent.
//! - A commit never changes what the agent would see (but for the staging directory, while it works): it makes what is below equal to the view, one whole file at a
//!   time by rename, and takes layers away, the lowest first, only when all of it is equal and on the disk.
//! - A layer appears and disappears whole, by rename.

mod beneath;
mod checkpoint;
mod commit;
mod content;
mod diff;
mod error;
mod folder;
mod intent;
mod patch;
pub mod progress;
pub mod quota;
mod selection;
mod snapshots;
mod trash;
mod tree;
mod view;
mod walk;

pub use error::WorkspaceError;
pub use folder::Folder;
