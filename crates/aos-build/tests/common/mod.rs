//! Directories to build from, a store to build into, and what is in it then.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of what all share")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a panic in a helper is the test's failure report, and tests read the clock"
)]

use aos_build::{BuildError, Built, Event, Local, Options, Progress, Request, Silent, StepName, build};
use aos_package::repository::Repository;
use aos_package::unpack::{Layer, Modes, Options as Unpacking, unpack};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// A package of one script.
pub const SIMPLE: &str = "\
apiVersion: aos/v1
kind: Agent
metadata: { name: web, version: 1.0.0 }
run: { entrypoint: [ /usr/bin/python3, /app/main.py ] }
";

/// `SIMPLE` with one stage.
pub fn with_build(from: &str, steps: &str) -> String {
    format!("{SIMPLE}build: {{ stages: [ {{ name: app, from: {from}, steps: [ {steps} ] }} ] }}\n")
}

/// A directory with these files; a name that ends in `*` is executable.
pub fn directory(agentfile: &str, files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "Agentfile", agentfile);
    for (name, text) in files {
        write(dir.path(), name, text);
    }
    dir
}

pub fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name.trim_end_matches('*'));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    if name.ends_with('*') {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// The usual options; the build believes that it began an hour ago, so that nothing in the test's
/// directories is old enough to be remembered.
pub fn options() -> Options {
    Options::at(SystemTime::now() - Duration::from_secs(3600))
}

/// Options of a build that begins far enough in the future for every file to be old.
pub fn later() -> Options {
    Options::at(SystemTime::now() + Duration::from_secs(3600))
}

/// A store of its own.
pub struct Store {
    pub dir: TempDir,
    pub repository: Repository,
}

pub fn store() -> Store {
    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::open(&dir.path().join("store")).unwrap();
    Store { dir, repository }
}

impl Store {
    pub fn build(&self, directory: &Path) -> Result<Built, BuildError> {
        self.build_with(directory, options())
    }

    pub fn build_with(&self, directory: &Path, options: Options) -> Result<Built, BuildError> {
        build(&Request::new(directory, options), &self.repository, &Local, &Silent)
    }

    /// The files of a package, unpacked into a directory.
    pub fn unpack(&self, built: &Built) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        let (manifest, config) = self.repository.package(&built.manifest).unwrap();
        let opens: Vec<_> = manifest
            .layers
            .iter()
            .map(|layer| || self.repository.open_blob(&layer.digest).map_err(io::Error::other))
            .collect();
        let layers: Vec<Layer<'_>> = manifest
            .layers
            .iter()
            .zip(&config.diff_ids)
            .zip(&opens)
            .map(|((descriptor, &diff_id), open)| Layer { descriptor, diff_id, open })
            .collect();
        unpack(&layers, root.path(), Unpacking { modes: Modes::Kept }).unwrap();
        root
    }
}

/// Builds into a store that is thrown away.
pub fn try_build(directory: &Path) -> Result<Built, BuildError> {
    store().build(directory)
}

/// The message of a build that fails, with its causes.
pub fn refused(directory: &Path) -> String {
    chain(&try_build(directory).unwrap_err())
}

/// An error with its causes.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// All paths below, sorted.
pub fn paths(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, top: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            found.push(entry.path().strip_prefix(top).unwrap().to_str().unwrap().to_owned());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), top, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found);
    found.sort();
    found
}

/// Writes down what it is told: `cached [app 1/2] copy ...`.
#[derive(Default)]
pub struct Told(Mutex<Vec<String>>);

impl Told {
    /// What was told, apart from bytes.
    pub fn lines(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Progress for Told {
    fn event(&self, step: &StepName<'_>, event: Event<'_>) {
        let what = match event {
            Event::Started => "started",
            Event::Cached { .. } => "cached",
            Event::Bytes { .. } => return,
            Event::Output(line) => return self.0.lock().unwrap().push(format!("{step}: {line}")),
            Event::Done { .. } => "done",
            Event::Failed { message } => {
                return self.0.lock().unwrap().push(format!("failed {step}: {message}"));
            }
        };
        self.0.lock().unwrap().push(format!("{what} {step}"));
    }
}
