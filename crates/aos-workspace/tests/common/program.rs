//! The program, as a user without privilege.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use aos_core::workspace::{Answer, Below, Operation, Request, VERSION};

use super::Place;

pub(crate) const UID: u32 = 1_879_113_725;
pub(crate) const READER: u32 = 1_879_113_724;

fn own(path: &Path) {
    std::os::unix::fs::lchown(path, Some(UID), Some(UID)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            own(&entry.unwrap().path());
        }
    }
}

pub(crate) struct Program {
    pub(crate) place: Place,
}

impl Program {
    pub(crate) fn new() -> Self {
        let place = Place::new();
        fs::create_dir(place.path("answers")).unwrap();
        fs::set_permissions(place.dir.path(), Permissions::from_mode(0o755)).unwrap();
        // Where the build's own directory is closed to others.
        fs::copy(env!("CARGO_BIN_EXE_aos-workspace"), place.path("program")).unwrap();
        Self { place }
    }

    pub(crate) fn own(&self) {
        for name in ["base", "changes", "answers"] {
            own(&self.place.path(name));
        }
    }

    pub(crate) fn command(&self, operation: &Operation) -> Command {
        self.own();
        let request = Request {
            version: VERSION,
            token: "7".to_owned(),
            reader_uid: READER,
            changes: self.place.absolute("changes"),
            lower: vec![self.place.absolute("base")],
            below: Below::Own,
            operation: operation.clone(),
        };
        fs::write(self.place.path("request"), serde_json::to_vec(&request).unwrap()).unwrap();
        let mut command = Command::new(self.place.path("program"));
        command.arg(self.place.path("request")).arg(self.place.path("answers"));
        command.uid(UID).gid(UID).stderr(Stdio::null());
        command
    }

    pub(crate) fn run(&self, operation: &Operation) -> (ExitStatus, Answer) {
        let status = self.command(operation).status().unwrap();
        (status, serde_json::from_slice(&fs::read(self.answer()).unwrap()).unwrap())
    }

    pub(crate) fn answer(&self) -> PathBuf {
        self.place.path("answers/answer-7.json")
    }
}
