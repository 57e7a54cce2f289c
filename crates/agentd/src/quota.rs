//! The note about an agent's limit on the disk: `/var/lib/aos/quotas/ID`, which `aos-quota@ID.service` reads before
//! each start and each operation on the workspace. `aos_sandbox::plan::DiskLimit` has its format.
//!
//! An agent that has no limit has no note, unless something still limits its directories: a limit of an earlier
//! package, or of an agent of the same name whose workspace was kept.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use aos_core::id::AgentId;
use aos_sandbox::disk;
use aos_sandbox::plan::{DiskLimit, NOTE_MAX_BYTES};

use crate::files::{self, FileError};
use crate::settings::Places;

/// systemd reads them as root, and looks whether there is one.
const FILE_MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;

fn path(places: &Places, id: &AgentId) -> PathBuf {
    places.state.join("quotas").join(id.as_str())
}

/// Notes the limit of an agent that is about to be started. Blocking, as all here.
pub fn write(places: &Places, id: &AgentId, limit: Option<DiskLimit>) -> Result<(), FileError> {
    let path = path(places, id);
    let before = match files::read_bounded(&path, NOTE_MAX_BYTES) {
        Err(error) if error.is_missing() => None,
        // A damaged one is replaced.
        read => Some(read.unwrap_or_default()),
    };
    let text = DiskLimit::note(limit);
    if before.as_deref() == Some(text.as_bytes()) {
        return Ok(());
    }
    if limit.is_none() && before.is_none() && !is_limited(places, id) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        let made = std::fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder);
        made.map_err(|error| FileError::new("make", folder, error))?;
    }
    files::write_atomic(&path, text.as_bytes(), FILE_MODE)
}

/// Notes that the limit is lifted for an operation that needs room twice, if there is one.
pub fn lift(places: &Places, id: &AgentId) -> Result<(), FileError> {
    if path(places, id).exists() { write(places, id, None) } else { Ok(()) }
}

/// Forgets the limit of an agent that is gone.
pub fn remove(places: &Places, id: &AgentId) -> Result<(), FileError> {
    match files::remove_durably(&path(places, id)) {
        Err(error) if error.is_missing() => Ok(()),
        removed => removed,
    }
}

/// Whether its directories have a limit, whoever set it. What cannot be looked at has none that holds.
fn is_limited(places: &Places, id: &AgentId) -> bool {
    [&places.workspaces, &places.changes]
        .iter()
        .any(|folder| disk::measure(&folder.join(id.as_str())).is_ok_and(|measured| measured.is_limited))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_follows_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places {
            state: dir.path().into(),
            workspaces: dir.path().join("w"),
            changes: dir.path().join("c"),
            ..Places::default()
        };
        let id: AgentId = "web".parse().unwrap();
        let note = || std::fs::read_to_string(dir.path().join("quotas/web")).ok();
        let limit = DiskLimit { bytes: 1 << 30, inodes: 65_536 };
        write(&places, &id, None).unwrap();
        lift(&places, &id).unwrap();
        assert_eq!(note(), None, "no limit, no note");
        write(&places, &id, Some(limit)).unwrap();
        assert_eq!(note().unwrap(), "1073741824 65536\n");
        lift(&places, &id).unwrap();
        assert_eq!(note().unwrap(), "none\n");
        write(&places, &id, Some(limit)).unwrap();
        std::fs::write(dir.path().join("quotas/web"), "x".repeat(1000)).unwrap();
        write(&places, &id, Some(limit)).unwrap();
        assert_eq!(note().unwrap(), "1073741824 65536\n", "a damaged one is replaced");
        write(&places, &id, None).unwrap();
        assert_eq!(note().unwrap(), "none\n", "the limit that there was has to go");
        remove(&places, &id).unwrap();
        remove(&places, &id).unwrap();
        assert_eq!(note(), None);
    }
}
