//! The snapshots of a folder of changes: their numbers, and what is noted of each.

use std::os::fd::OwnedFd;

use aos_core::workspace::{NAME_MAX_BYTES, Snapshot};
use aos_sandbox::plan::workspace::{SNAPSHOTS, snapshot_name, snapshot_number};
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::beneath;
use crate::error::WorkspaceError;
use crate::intent;

/// What is noted of a snapshot.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Note {
    name: Option<String>,
    at_us: u64,
}

/// The snapshots' folder.
#[derive(Debug)]
pub(crate) struct Snapshots(pub(crate) OwnedFd);

fn note_name(number: u32) -> String {
    format!("{}.json", snapshot_name(number))
}

impl Snapshots {
    /// The numbers, oldest first.
    pub(crate) fn numbers(&self) -> Result<Vec<u32>, WorkspaceError> {
        let names = beneath::names(&self.0).map_err(WorkspaceError::io("read", SNAPSHOTS))?;
        let mut numbers: Vec<u32> =
            names.iter().filter_map(|name| name.to_str().ok().and_then(snapshot_number)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The newest one's number, 0 when there is none.
    pub(crate) fn newest(&self) -> Result<u32, WorkspaceError> {
        Ok(self.numbers()?.last().copied().unwrap_or(0))
    }

    /// Opens a snapshot's layer.
    pub(crate) fn open(&self, number: u32) -> Result<OwnedFd, WorkspaceError> {
        let name = snapshot_name(number);
        beneath::open_directory(&self.0, std::path::Path::new(&name))
            .map_err(WorkspaceError::io("open snapshot", name))
    }

    /// Notes a snapshot that is about to be made.
    pub(crate) fn note(&self, number: u32, name: Option<&str>, at_us: u64) -> Result<(), WorkspaceError> {
        let name = name.map(|name| name.chars().take(NAME_MAX_BYTES).collect());
        intent::write(&self.0, &note_name(number), &serde_json::to_vec(&Note { name, at_us })?)
    }

    /// Forgets what is noted of a snapshot that is gone.
    pub(crate) fn forget(&self, number: u32) -> Result<(), WorkspaceError> {
        match unlinkat(&self.0, note_name(number), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(WorkspaceError::io("remove", note_name(number))(error)),
        }
    }

    /// All of them, oldest first.
    pub(crate) fn list(&self) -> Result<Vec<Snapshot>, WorkspaceError> {
        let describe = |number| {
            let note: Note = match intent::read(&self.0, &note_name(number))? {
                // A damaged note hides the name and not the snapshot.
                Some(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
                None => Note::default(),
            };
            Ok(Snapshot { number, name: note.name, at_us: note.at_us })
        };
        self.numbers()?.into_iter().map(describe).collect()
    }
}
