//! Forks: agents that begin with the frozen files of another one and share its Unix user.
//!
//! `/var/lib/aos/forks/ID` says of agent `ID` whose fork it is: the parent's id and the number of the newest snapshot
//! that it shares, on one line. The supervisor writes it; `aos-account` reads it when it makes the fork's Unix user,
//! hence the modes. What is below a fork's changes follows from these files alone: the parent's snapshots, newest
//! first, then what is below the parent's. Nobody changes these layers while a fork is there.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use aos_core::id::AgentId;
use aos_core::path::AbsolutePath;
use aos_core::workspace::Below;
use aos_sandbox::plan::workspace::{LOWER_MAX, SNAPSHOTS, SNAPSHOTS_MAX, snapshot_name};

use crate::failure::Failure;
use crate::files::{self, FileError};
use crate::settings::Places;

/// An id and a number.
const FILE_MAX: usize = 64;
/// Forks of forks of forks, as `aos-account` counts them too.
const FORKS_DEEP: usize = 300;
/// `aos-account` reads them as root without capabilities.
const FILE_MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;

/// Whose fork an agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// The agent whose files it began with.
    pub parent: AgentId,
    /// The newest of the parent's snapshots that it shares; 0 when there was none.
    pub newest: u32,
}

impl Fork {
    /// Parses the one line.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (parent, newest) = text.strip_suffix('\n')?.split_once(' ')?;
        Some(Self { parent: parent.parse().ok()?, newest: newest.parse().ok()? })
    }

    fn line(&self) -> String {
        format!("{} {}\n", self.parent, self.newest)
    }
}

/// The layers below an agent's changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lower {
    /// The topmost first.
    pub layers: Vec<AbsolutePath>,
    /// Whose they are.
    pub below: Below,
}

fn folder(places: &Places) -> PathBuf {
    places.state.join("forks")
}

/// Whose fork an agent is; `None` for one that is no fork. Blocking, as all here.
pub fn read(places: &Places, id: &AgentId) -> Result<Option<Fork>, FileError> {
    let path = folder(places).join(id.as_str());
    let bytes = match files::read_bounded(&path, FILE_MAX) {
        Err(error) if error.is_missing() => return Ok(None),
        read => read?,
    };
    let fork = std::str::from_utf8(&bytes).ok().and_then(Fork::parse);
    fork.map(Some).ok_or_else(|| FileError::new("understand", &path, io::ErrorKind::InvalidData))
}

/// The forks of an agent, sorted, each with what it shares.
pub fn of(places: &Places, parent: &AgentId) -> Result<Vec<(AgentId, Fork)>, FileError> {
    let mut forks = Vec::new();
    for id in all(places)? {
        if let Some(fork) = read(places, &id)?
            && fork.parent == *parent
        {
            forks.push((id, fork));
        }
    }
    Ok(forks)
}

/// Removes the notes of agents that are not to be kept.
pub fn retain(places: &Places, keep: impl Fn(&AgentId) -> bool) -> Result<(), FileError> {
    for id in all(places)?.iter().filter(|id| !keep(id)) {
        remove(places, id)?;
    }
    Ok(())
}

/// All agents that there is a note of, even one that says nothing.
pub fn all(places: &Places) -> Result<BTreeSet<AgentId>, FileError> {
    let folder = folder(places);
    let failed = |error: io::Error| FileError::new("read", &folder, error);
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        read => read.map_err(failed)?,
    };
    let mut ids = BTreeSet::new();
    for entry in entries {
        ids.extend(entry.map_err(failed)?.file_name().to_str().and_then(|name| name.parse::<AgentId>().ok()));
    }
    Ok(ids)
}

/// Notes forks, all with one write to the disk at the end. Notes without an agent are removed when the supervisor
/// starts.
pub fn write(places: &Places, ids: &[AgentId], fork: &Fork) -> Result<(), FileError> {
    let folder = folder(places);
    let made = std::fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&folder);
    made.map_err(|error| FileError::new("make", &folder, error))?;
    files::write_many(&folder, ids.iter().map(AgentId::as_str), fork.line().as_bytes(), FILE_MODE)
}

/// Refuses ids of forks to be that something is left of: a note, which a damaged record may need, or changes, which the
/// fork would begin with.
pub fn refuse_leftovers(places: &Places, ids: &[AgentId]) -> Result<(), Failure> {
    let failed = |error: FileError| Failure::failed(&error);
    let noted = all(places).map_err(failed)?;
    for id in ids {
        if noted.contains(id) {
            return Err(refused_by_note(id));
        }
        let left = places.changes.join(id.as_str());
        match left.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(FileError::new("look at", &left, error))),
            Ok(_) => {
                return Err(Failure::refused(format!(
                    "{} is left of an earlier agent, and the fork {id} would begin with it; choose another prefix, or delete it",
                    left.display()
                )));
            }
        }
    }
    Ok(())
}

/// Refuses a new agent: with a note it would share another one's files and user.
pub fn refuse_noted(places: &Places, id: &AgentId) -> Result<(), Failure> {
    match read(places, id) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(refused_by_note(id)),
        Err(error) => Err(Failure::failed(&error)),
    }
}

fn refused_by_note(id: &AgentId) -> Failure {
    Failure::refused(format!("agent {id} is noted as a fork, but it has no record that can be read"))
        .with_hint("choose another id; a note without a record goes when agentd starts anew")
}

/// Forgets forks.
pub fn remove_all(places: &Places, ids: &[AgentId]) -> Result<(), FileError> {
    files::remove_many(&folder(places), ids.iter().map(AgentId::as_str))
}

/// Forgets that an agent is a fork.
pub fn remove(places: &Places, id: &AgentId) -> Result<(), FileError> {
    files::remove_durably(&folder(places).join(id.as_str()))
}

/// The folder of an agent's changes.
pub fn changes(places: &Places, id: &AgentId) -> Result<AbsolutePath, Failure> {
    absolute(&places.changes.join(id.as_str()))
}

/// What is below an agent's changes.
pub fn lower(places: &Places, id: &AgentId) -> Result<Lower, Failure> {
    let (mut layers, mut hops) = (Vec::new(), 0_usize);
    let mut agent = id.clone();
    let failed = |error: FileError| Failure::failed(&error);
    while let Some(fork) = read(places, &agent).map_err(failed)? {
        if fork.newest > SNAPSHOTS_MAX {
            return Err(Failure::refused(format!("agent {agent} is a fork that is being made; try again")));
        }
        for number in (1..=fork.newest).rev() {
            let snapshots = places.changes.join(fork.parent.as_str()).join(SNAPSHOTS);
            layers.push(absolute(&snapshots.join(snapshot_name(number)))?);
        }
        hops += 1;
        // Each is younger than its parent, so there is no circle; damaged files must not make one.
        if layers.len() > LOWER_MAX || hops > FORKS_DEEP {
            return Err(Failure::refused(format!(
                "agent {id} has too many forks above it; commit what is below"
            )));
        }
        agent = fork.parent;
    }
    layers.push(absolute(&places.workspaces.join(agent.as_str()))?);
    let below = if agent == *id { Below::Own } else { Below::Shared };
    Ok(Lower { layers, below })
}

fn absolute(path: &Path) -> Result<AbsolutePath, Failure> {
    let text = path.to_str().ok_or_else(|| Failure::invalid("the folder of workspaces is not UTF-8"))?;
    text.parse().map_err(Failure::invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> AgentId {
        text.parse().unwrap()
    }

    #[test]
    fn layers_of_a_fork_of_a_fork() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places {
            state: dir.path().into(),
            workspaces: "/w".into(),
            changes: "/c".into(),
            ..Places::default()
        };
        let layers = |name: &str| -> Vec<String> {
            lower(&places, &id(name)).unwrap().layers.iter().map(ToString::to_string).collect()
        };
        assert_eq!((layers("a"), lower(&places, &id("a")).unwrap().below), (vec!["/w/a".into()], Below::Own));
        write(&places, &[id("b"), id("c")], &Fork { parent: id("a"), newest: 2 }).unwrap();
        write(&places, &[id("d")], &Fork { parent: id("b"), newest: 1 }).unwrap();
        let of_a = ["/c/a/snapshots/0002", "/c/a/snapshots/0001", "/w/a"].map(str::to_owned);
        assert_eq!(layers("b"), of_a);
        assert_eq!(
            layers("d"),
            ["/c/b/snapshots/0001".to_owned()].into_iter().chain(of_a).collect::<Vec<_>>()
        );
        assert_eq!(lower(&places, &id("d")).unwrap().below, Below::Shared);
        let forks: Vec<_> = of(&places, &id("a")).unwrap().into_iter().map(|(id, _)| id).collect();
        assert_eq!(forks, [id("b"), id("c")]);
        remove(&places, &id("b")).unwrap();
        assert_eq!(of(&places, &id("a")).unwrap().len(), 1);
        assert_eq!(read(&places, &id("b")).unwrap(), None);
    }

    #[test]
    fn damaged_notes_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places { state: dir.path().into(), ..Places::default() };
        std::fs::create_dir(dir.path().join("forks")).unwrap();
        for text in ["", "a", "a 1", "a x\n", "../x 1\n", "a -1\n", "a 1 2\n"] {
            std::fs::write(dir.path().join("forks/x"), text).unwrap();
            assert!(read(&places, &id("x")).is_err(), "{text:?}");
        }
        std::fs::write(dir.path().join("forks/x"), "x 0\n").unwrap();
        assert!(lower(&places, &id("x")).is_err(), "its own parent");
        std::fs::write(dir.path().join("forks/x"), "y 0\n").unwrap();
        std::fs::write(dir.path().join("forks/y"), "x 0\n").unwrap();
        assert!(lower(&places, &id("x")).is_err(), "its parent's parent");
        write(&places, &[id("x")], &Fork { parent: id("a"), newest: u32::MAX }).unwrap();
        assert!(lower(&places, &id("x")).is_err(), "not made yet");
    }
}
