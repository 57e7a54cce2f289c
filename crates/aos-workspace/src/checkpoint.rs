//! Checkpoints: copies of all files of a workspace, and putting one in the place of what is there.
//!
//! | name | what |
//! |---|---|
//! | `checkpoints/0001/base/` | what the workspace was, below its changes |
//! | `checkpoints/0001/upper/`, `snapshots/` | the changes, if there were any |
//! | `restore/new/`, then `restore/in/` | the changes of a checkpoint that is being put in place |
//! | `stage.json` | the name of the directory in the workspace that has the rest of it |
//! | `.aos-restore-*/new/`, then `in/`, and `old/` | that directory, in the workspace; `old/` is what was there |
//!
//! A checkpoint appears by one rename, when all of it is on the disk. To bring one back, its copy is staged first,
//! which is all that needs room and all that can fail for what is in it; then what is there is moved out and the copy
//! in, entry by entry of the two roots. That has begun when its note is on the disk, and what is cut short is taken to
//! its end: while `new/` has its name things are moved out, while it is `in/` they are moved in, so that doing it
//! again never moves the wrong way. Nothing sees the state between the two: the agent has no plan meanwhile.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::Path;

use aos_core::workspace::{Answer, Below, CheckpointStep, NodeKind};
use aos_sandbox::plan::workspace::{SNAPSHOTS, UPPER, snapshot_name, snapshot_number};
use rustix::fs::{AtFlags, Dir, RenameFlags, fsync, renameat, renameat_with, syncfs, unlinkat};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

use crate::beneath;
use crate::error::WorkspaceError;
use crate::folder::{Folder, make, open};
use crate::intent::{self, Intent};
use crate::trash;
use crate::tree::{self, Copied};

/// The folder of checkpoints in a folder of changes.
const CHECKPOINTS: &str = "checkpoints";
/// One that is being made, in that folder.
const MAKING: &str = "new";
/// The files below the changes, in a checkpoint.
const BASE: &str = "base";
/// What is put in the place of the changes.
const RESTORE: &str = "restore";
/// What was staged.
const STAGE: &str = "stage.json";
/// How the directory in the workspace begins, which is there while a checkpoint is brought back.
const PREFIX: &str = ".aos-restore-";
// In both staging directories: what comes, while things go; what comes, while it comes; what went.
const COMING: &str = "new";
const ARRIVING: &str = "in";
const OLD: &str = "old";

/// What is staged.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stage {
    /// The directory in the workspace; a fork has none.
    base: Option<String>,
}

impl Folder {
    /// Does a step. The caller has ended what was cut short, unless the agent runs.
    pub(crate) fn checkpoint(&self, step: &CheckpointStep) -> Result<Answer, WorkspaceError> {
        match step {
            CheckpointStep::Save { number, keep } => {
                self.prune(keep)?;
                let Copied { entries, bytes } = self.save(*number)?;
                Ok(Answer::Saved { entries, bytes })
            }
            CheckpointStep::Stage { number } => {
                self.stage(*number)?;
                Ok(Answer::Done)
            }
            CheckpointStep::Swap => {
                if let Some(bytes) = intent::read(self.folder(), STAGE)? {
                    let Stage { base } = serde_json::from_slice(&bytes)?;
                    self.noted(&Intent::Restore { base: base.clone() }, || self.apply_swap(base.as_deref()))?;
                }
                // Else it was done before.
                Ok(Answer::Done)
            }
            CheckpointStep::Prune { keep } => {
                self.prune(keep)?;
                self.empty_trash()?;
                Ok(Answer::Done)
            }
        }
    }

    /// Deletes all checkpoints but some.
    fn prune(&self, keep: &[u32]) -> Result<(), WorkspaceError> {
        let Some(checkpoints) = self.checkpoints()? else { return Ok(()) };
        let names = beneath::names(&checkpoints).map_err(WorkspaceError::io("read", CHECKPOINTS))?;
        for name in names.iter().filter_map(|name| name.to_str().ok()) {
            if !snapshot_number(name).is_some_and(|number| keep.contains(&number)) {
                self.drop_layer(&checkpoints, name)?;
            }
        }
        Ok(())
    }

    fn checkpoints(&self) -> Result<Option<OwnedFd>, WorkspaceError> {
        match beneath::open_directory(self.folder(), Path::new(CHECKPOINTS)) {
            Ok(checkpoints) => Ok(Some(checkpoints)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(WorkspaceError::io("open", CHECKPOINTS)(error)),
        }
    }

    /// Copies everything into checkpoint `number`. After a failure nothing of it is left.
    fn save(&self, number: u32) -> Result<Copied, WorkspaceError> {
        make(self.folder(), CHECKPOINTS)?;
        let checkpoints = open(self.folder(), CHECKPOINTS)?;
        let saved = self.save_into(&checkpoints, number);
        // What was not finished, and what was pruned, takes room.
        self.drop_layer(&checkpoints, MAKING)?;
        self.empty_trash()?;
        saved
    }

    fn save_into(&self, checkpoints: &OwnedFd, number: u32) -> Result<Copied, WorkspaceError> {
        make(checkpoints, MAKING)?;
        let making = open(checkpoints, MAKING)?;
        let mut copied = Copied::default();
        let mut add = |more: Copied| {
            copied.entries = copied.entries.saturating_add(more.entries);
            copied.bytes = copied.bytes.saturating_add(more.bytes);
        };
        if let Some(base) = self.own_base() {
            let root = open(base, ".")?;
            let hidden = self.staged_base()?;
            add(tree::copy(root, &making, BASE, hidden.as_deref())?);
        }
        for layers in [UPPER, SNAPSHOTS] {
            match beneath::open_directory(self.folder(), Path::new(layers)) {
                Ok(from) => add(tree::copy(from, &making, layers, None)?),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(WorkspaceError::io("open", layers)(error)),
            }
        }
        let name = snapshot_name(number);
        let failed = || WorkspaceError::io("keep checkpoint", &name);
        syncfs(self.folder()).map_err(failed())?;
        renameat_with(checkpoints, MAKING, checkpoints, &name, RenameFlags::NOREPLACE).map_err(failed())?;
        fsync(checkpoints).map_err(failed())?;
        Ok(copied)
    }

    /// What is below the changes, if it is the agent's own.
    fn own_base(&self) -> Option<&OwnedFd> {
        match (self.below(), self.lower()) {
            (Below::Own, [base]) => Some(base),
            _ => None,
        }
    }

    fn staged_base(&self) -> Result<Option<CString>, WorkspaceError> {
        let Some(bytes) = intent::read(self.folder(), STAGE)? else { return Ok(None) };
        let Stage { base } = serde_json::from_slice(&bytes)?;
        Ok(base.and_then(|name| CString::new(name).ok()))
    }

    /// Copies a checkpoint to where it can be moved into place. After a failure nothing of it is left.
    fn stage(&self, number: u32) -> Result<(), WorkspaceError> {
        self.unstage()?;
        let name = snapshot_name(number);
        let checkpoint = match self.checkpoints()? {
            None => return Err(WorkspaceError::NoCheckpoint(number)),
            Some(all) => beneath::open_directory(&all, Path::new(&name)).map_err(|error| match error {
                Errno::NOENT => WorkspaceError::NoCheckpoint(number),
                error => WorkspaceError::io("open checkpoint", name)(error),
            })?,
        };
        let staged = self.stage_from(&checkpoint);
        if staged.is_err() {
            self.unstage()?;
        }
        staged
    }

    fn stage_from(&self, checkpoint: &OwnedFd) -> Result<(), WorkspaceError> {
        let mut base = None;
        if let Some(root) = self.own_base() {
            check_movable(root)?;
            let mut random = [0_u8; 16];
            getrandom(&mut random, GetRandomFlags::empty()).map_err(WorkspaceError::io("make", "a name"))?;
            base = Some(format!("{PREFIX}{:032x}", u128::from_ne_bytes(random)));
        }
        // Noted before it is made, so that it is found again.
        intent::write(self.folder(), STAGE, &serde_json::to_vec(&Stage { base: base.clone() })?)?;
        make(self.folder(), RESTORE)?;
        let restore = open(self.folder(), RESTORE)?;
        make(&restore, COMING)?;
        let coming = open(&restore, COMING)?;
        for layers in [UPPER, SNAPSHOTS] {
            if let Some(from) = part(checkpoint, layers)? {
                tree::copy(from, &coming, layers, None)?;
            }
        }
        if let (Some(root), Some(name)) = (self.own_base(), &base) {
            make(root, name)?;
            let staging = open(root, name)?;
            let from = part(checkpoint, BASE)?.ok_or(WorkspaceError::ForkOrNot)?;
            tree::copy(from, &staging, COMING, None)?;
            syncfs(root).map_err(WorkspaceError::io("write", "the workspace to the disk"))?;
        } else if part(checkpoint, BASE)?.is_some() {
            return Err(WorkspaceError::ForkOrNot);
        }
        syncfs(self.folder()).map_err(WorkspaceError::io("write", "the changes to the disk"))
    }

    /// Gives up what was staged and not put in place.
    pub(crate) fn unstage(&self) -> Result<(), WorkspaceError> {
        let Some(bytes) = intent::read(self.folder(), STAGE)? else { return Ok(()) };
        // One that was cut short while it was written was not followed by anything.
        let stage: Stage = serde_json::from_slice(&bytes).unwrap_or(Stage { base: None });
        self.end_stage(stage.base.as_deref())
    }

    /// Deletes the staging directories, and then forgets them.
    fn end_stage(&self, base: Option<&str>) -> Result<(), WorkspaceError> {
        if let (Some(root), Some(name)) = (self.own_base(), base) {
            let failed = || WorkspaceError::io("remove the staging directory", name);
            match beneath::open_directory(root, Path::new(name)) {
                Ok(staging) => {
                    trash::empty(&staging).map_err(failed())?;
                    unlinkat(root, name, AtFlags::REMOVEDIR).map_err(failed())?;
                }
                Err(Errno::NOENT) => {}
                Err(error) => return Err(failed()(error)),
            }
            fsync(root).map_err(failed())?;
        }
        self.drop_layer(self.folder(), RESTORE)?;
        let failed = || WorkspaceError::io("remove", STAGE);
        match unlinkat(self.folder(), STAGE, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => fsync(self.folder()).map_err(failed()),
            Err(error) => Err(failed()(error)),
        }
    }

    /// Moves what is there out, and what was staged in. Can be done again from any point.
    pub(crate) fn apply_swap(&self, base: Option<&str>) -> Result<(), WorkspaceError> {
        if let (Some(root), Some(name)) = (self.own_base(), base) {
            match beneath::open_directory(root, Path::new(name)) {
                Ok(staging) => swap_base(root, name, &staging)?,
                // The end was reached before.
                Err(Errno::NOENT) => {}
                Err(error) => return Err(WorkspaceError::io("open", name)(error)),
            }
        }
        if let Some(restore) = part(self.folder(), RESTORE)? {
            self.swap_layers(&restore)?;
        }
        self.make_upper()?;
        self.end_stage(base)
    }

    fn swap_layers(&self, restore: &OwnedFd) -> Result<(), WorkspaceError> {
        if part(restore, COMING)?.is_some() {
            self.apply_discard(0)?;
            arrive(restore)?;
        }
        let Some(arriving) = part(restore, ARRIVING)? else { return Ok(()) };
        if part(&arriving, UPPER)?.is_some() {
            self.drop_layer(self.folder(), UPPER)?;
            renameat(&arriving, UPPER, self.folder(), UPPER).map_err(WorkspaceError::io("restore", UPPER))?;
        }
        if let Some(snapshots) = part(&arriving, SNAPSHOTS)? {
            move_all(&snapshots, self.snapshots_folder(), None)?;
        }
        Ok(())
    }
}

fn swap_base(root: &OwnedFd, name: &str, staging: &OwnedFd) -> Result<(), WorkspaceError> {
    if part(staging, COMING)?.is_some() {
        make(staging, OLD)?;
        let own = CString::new(name).unwrap_or_default();
        move_all(root, &open(staging, OLD)?, Some(&own))?;
        arrive(staging)?;
    }
    let Some(arriving) = part(staging, ARRIVING)? else { return Ok(()) };
    move_all(&arriving, root, None)?;
    syncfs(root).map_err(WorkspaceError::io("write", "the workspace to the disk"))
}

/// From now on things come: what goes has gone, on the disk too.
fn arrive(staging: &OwnedFd) -> Result<(), WorkspaceError> {
    let failed = || WorkspaceError::io("go on with", "a restore");
    syncfs(staging).map_err(failed())?;
    renameat(staging, COMING, staging, ARRIVING).map_err(failed())?;
    fsync(staging).map_err(failed())
}

/// A directory that may be missing.
fn part(folder: &OwnedFd, name: &str) -> Result<Option<OwnedFd>, WorkspaceError> {
    match beneath::open_directory(folder, Path::new(name)) {
        Ok(part) => Ok(Some(part)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(WorkspaceError::io("open", name)(error)),
    }
}

/// Moves all that is in a directory to another of the same file system, but one name.
fn move_all(from: &OwnedFd, to: &OwnedFd, but: Option<&CStr>) -> Result<(), WorkspaceError> {
    let failed = || WorkspaceError::io("move", "what is in the workspace");
    loop {
        let names = beneath::some_names(from).map_err(failed())?;
        let mut moved = false;
        for name in names.iter().filter(|name| but != Some(name)) {
            let shown = || crate::walk::shown(beneath::part(name));
            renameat(from, name, to, name).map_err(|error| WorkspaceError::io("move", shown())(error))?;
            moved = true;
        }
        if !moved {
            return Ok(());
        }
    }
}

/// Whether all that is in the workspace can be moved away: a directory of another user cannot.
fn check_movable(root: &OwnedFd) -> Result<(), WorkspaceError> {
    let failed = || WorkspaceError::io("look at", "what is in the workspace");
    let own = rustix::process::geteuid().as_raw();
    for entry in Dir::read_from(root).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Some(stat) = beneath::look(root, name).map_err(failed())? else { continue };
        if beneath::kind(&stat) == NodeKind::Directory && stat.st_uid != own {
            return Err(WorkspaceError::Foreign(crate::walk::shown(beneath::part(name))));
        }
    }
    Ok(())
}

impl Folder {
    fn empty_trash(&self) -> Result<(), WorkspaceError> {
        trash::empty(self.trash()).map_err(WorkspaceError::io("empty", "trash"))
    }
}
