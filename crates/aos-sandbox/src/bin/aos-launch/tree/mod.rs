//! The agent's file tree: a small read-only root in memory with the plan's entries in it, put in
//! the place of the host's root, which is detached. That of a step of a build, whose root is a
//! writable union, is [`build`]'s.
//!
//! Assembly has two passes. The first opens every source and makes every place that lies in the
//! root's own memory; so a place exists even where a union is laid over its directory later. The
//! second mounts, in the plan's order. Sources and places are held as descriptors that were opened
//! without following links: nobody who writes to a granted directory can redirect a mount.

mod build;
mod mounts;
mod places;
mod transaction;
mod union;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use aos_sandbox::launch::mounts::{Content, new_tmpfs};
use aos_sandbox::launch::{aliases, sources};
use aos_sandbox::plan::{Identity, Purpose, SandboxPlan};
use aos_sys::mount::{Attributes, Reach, set_attributes};
use rustix::fs::{CWD, Mode, OFlags, open, openat};
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};
use rustix::process::{chdir, fchdir, pivot_root};

use crate::error::{Context, LaunchError, Layer};

/// Where `/proc` comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcSource {
    /// A new one, for the pid namespace that this program made.
    Fresh,
    /// The unit's, for the pid namespace that the unit made and owns.
    OfUnit,
}

/// The host directory that the new root covers while it is assembled, in this mount namespace only.
/// Nothing of it can be a source: the plan grants nothing below it.
const SCAFFOLD: &str = "/run";
/// The root holds directories, links, a few files of a hundred bytes and two copies of at most 1 MiB.
const ROOT_BYTES: u64 = 4 << 20;
/// A directory, link or mount point for each entry of the largest plan and its parents.
const ROOT_INODES: u64 = 65_536;

/// What is left of the assembly for the probes.
pub(crate) struct Tree {
    /// A file of the root that no rule lets the agent read, and that has no name any more.
    pub(crate) ungranted: OwnedFd,
}

/// Builds the tree and makes it this process's root. `secrets` is for a step of a build.
pub(crate) fn assemble(
    plan: &SandboxPlan,
    identity: &Identity,
    proc_source: ProcSource,
    secrets: Option<File>,
) -> Result<Tree, LaunchError> {
    let host = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .layer(Layer::Namespace, "/")?;
    aos_sys::mount::make_private(&host, Reach::Tree)
        .layer(Layer::Namespace, "cannot keep mounts from spreading")?;
    // Of an agent it is the root; of a step, the bottom of the union that is.
    let memory = new_tmpfs(ROOT_BYTES, ROOT_INODES, "0755", Content::Data)
        .layer(Layer::Namespace, "cannot make the root in memory")?;
    match plan.purpose {
        Purpose::Agent => assemble_agent(&memory, &host, plan, identity, proc_source),
        Purpose::Build => build::assemble(&memory, plan, proc_source, secrets),
    }
}

fn assemble_agent(
    root: &OwnedFd,
    host: &OwnedFd,
    plan: &SandboxPlan,
    identity: &Identity,
    proc_source: ProcSource,
) -> Result<Tree, LaunchError> {
    let sources = sources::open_all(&plan.tree)?;
    aliases::refuse(&plan.tree, &sources)?;
    places::make_all(root, &plan.tree, &sources, identity)?;
    let ungranted = make_ungranted(root)?;
    cover(root)?;
    mounts::mount_all(root, host, &plan.tree, &sources, proc_source)?;
    let sealed = Attributes { read_only: true, no_exec: true, no_dev: true, private: true };
    set_attributes(root, sealed, Reach::One).layer(Layer::Namespace, "cannot seal the root")?;
    enter(root)?;
    Ok(Tree { ungranted })
}

/// What the probes need of a tree that a container's runtime built: this program's own file, which no rule
/// lets the agent read.
pub(crate) fn given() -> Result<Tree, LaunchError> {
    let what = "cannot open this program for the probes";
    let ungranted = open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .layer(Layer::Namespace, what)?;
    Ok(Tree { ungranted })
}

/// Mounts a root on the scaffold, so that mounts can be attached in it.
fn cover(root: &OwnedFd) -> Result<(), LaunchError> {
    move_mount(root, "", CWD, SCAFFOLD, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .layer(Layer::Namespace, "cannot mount the root")
}

/// Makes `root` the root directory and detaches the old one, with all that is mounted there.
fn enter(root: &OwnedFd) -> Result<(), LaunchError> {
    fchdir(root).layer(Layer::Namespace, "cannot enter the new root")?;
    // Both at one place: the old root is then on top of the new one and is taken off.
    pivot_root(".", ".").layer(Layer::Namespace, "cannot change the root")?;
    unmount(".", UnmountFlags::DETACH).layer(Layer::Namespace, "cannot detach the host's root")?;
    chdir("/").layer(Layer::Namespace, "cannot enter the new root")
}

/// A readable, executable file without a name.
fn make_ungranted(root: impl AsFd) -> Result<OwnedFd, LaunchError> {
    const NAME: &str = ".ungranted";
    let what = "cannot make the file for the probes";
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    openat(&root, NAME, flags, Mode::from_bits_retain(0o755)).layer(Layer::Namespace, what)?;
    let file =
        openat(&root, NAME, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).layer(Layer::Namespace, what)?;
    rustix::fs::unlinkat(&root, NAME, rustix::fs::AtFlags::empty()).layer(Layer::Namespace, what)?;
    Ok(file)
}
