//! A step of a build, run by `aos_build::run` in a process of its own: as root, or as a user that the
//! caller of this process chose. Request and report are JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use aos_build::run::{
    CacheMount, Cancel, Change, ChangeKind, Changes, Output, RunError, RunRequest, Secret, Stream, execute,
};
use aos_core::config::RootKind;
use serde::{Deserialize, Serialize};

/// What to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The launcher.
    pub launcher: PathBuf,
    /// Whose `/usr`.
    pub root: RootKind,
    /// Layers below.
    pub lower: Vec<PathBuf>,
    /// The arguments.
    pub command: Vec<String>,
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// The working directory.
    pub workdir: String,
    /// What may be reached.
    pub net: Vec<String>,
    /// Caches: place inside, directory outside.
    pub caches: Vec<(String, PathBuf)>,
    /// Secrets.
    pub secrets: BTreeMap<String, String>,
    /// The time-out.
    pub timeout_ms: u64,
    /// Where the upper directory is made.
    pub scratch: PathBuf,
    /// Where the upper directory is moved when the step has succeeded.
    pub keep: Option<PathBuf>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Standard output, a line each.
    pub out: Vec<String>,
    /// Standard error.
    pub err: Vec<String>,
    /// What the builder said.
    pub notes: Vec<String>,
    /// Paths that changed, each with what is there: `d`, `o` (opaque directory), `f`, `h`, `l`, `w`,
    /// and its permissions in octal.
    pub changes: BTreeMap<String, String>,
    /// How it ended.
    pub end: End,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// With status 0.
    Done,
    /// With another status.
    Failed(i32),
    /// It was not started.
    Confinement(String),
    /// Its time was over.
    Timeout,
    /// Something else.
    Other(String),
}

impl Step {
    /// Runs it in this process.
    pub fn run(&self) -> Report {
        let mut report = Report {
            out: Vec::new(),
            err: Vec::new(),
            notes: Vec::new(),
            changes: BTreeMap::new(),
            end: End::Done,
        };
        let request = match self.request() {
            Ok(request) => request,
            Err(error) => return Report { end: End::Other(error), ..report },
        };
        let mut on_output = |output: Output<'_>| {
            let lines = match output.stream {
                Stream::Out => &mut report.out,
                Stream::Err => &mut report.err,
                Stream::Note => &mut report.notes,
            };
            lines.push(output.line.to_owned());
        };
        let result = execute(&request, &mut on_output);
        match result {
            Ok(changes) => {
                report.notes.extend(changes.notes().iter().cloned());
                match self.finish(&changes) {
                    Ok(list) => report.changes = list,
                    Err(error) => report.end = End::Other(error),
                }
            }
            Err(RunError::Failed { status }) => report.end = End::Failed(status),
            Err(RunError::Confinement { why, .. }) => report.end = End::Confinement(why),
            Err(RunError::Timeout(_)) => report.end = End::Timeout,
            Err(error) => report.end = End::Other(chain(&error)),
        }
        report
    }

    fn request(&self) -> Result<RunRequest, String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let path = |path: &str| path.parse().map_err(|error| text(&error));
        let caches = self
            .caches
            .iter()
            .map(|(inside, directory)| Ok(CacheMount { path: path(inside)?, directory: directory.clone() }));
        let secrets = self
            .secrets
            .iter()
            .map(|(name, value)| Secret { name: name.clone(), value: value.clone().into_bytes().into() });
        let net = self.net.iter().map(|one| one.parse().map_err(|error| text(&error)));
        Ok(RunRequest {
            launcher: self.launcher.clone(),
            root: self.root,
            lower: self.lower.clone(),
            command: self.command.clone(),
            env: self.env.clone(),
            workdir: path(&self.workdir)?,
            net: net.collect::<Result<_, String>>()?,
            caches: caches.collect::<Result<_, String>>()?,
            secrets: secrets.collect(),
            timeout: Duration::from_millis(self.timeout_ms),
            scratch: self.scratch.clone(),
            cancel: Cancel::default(),
        })
    }

    fn finish(&self, changes: &Changes) -> Result<BTreeMap<String, String>, String> {
        let entries = changes.entries().map_err(|error| chain(&error))?;
        let entries: Result<Vec<Change>, _> = entries.collect();
        let entries = entries.map_err(|error| chain(&error))?;
        if let Some(keep) = &self.keep {
            std::fs::rename(changes.upper(), keep).map_err(|error| error.to_string())?;
        }
        Ok(entries.iter().map(|change| (change.path.display().to_string(), word(change))).collect())
    }
}

/// A change in one word.
fn word(change: &Change) -> String {
    match &change.kind {
        ChangeKind::Directory { opaque: false } => format!("d{:o}", change.mode),
        ChangeKind::Directory { opaque: true } => format!("o{:o}", change.mode),
        ChangeKind::File { .. } => format!("f{:o}", change.mode),
        ChangeKind::HardLink { to } => format!("h{}", to.display()),
        ChangeKind::Symlink { to } => format!("l{}", to.display()),
        ChangeKind::Whiteout => "w".to_owned(),
    }
}

/// An error with its sources, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
