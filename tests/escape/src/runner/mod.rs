//! The outside of a run: a host with things to steal, a plan, the launcher, and the judgement.
#![allow(clippy::disallowed_methods, reason = "the runner starts the launcher and the processes around it")]

mod host;
pub mod launcher;
pub mod probe;
mod steps;
pub mod unit;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use aos_isolation::backend::Backend;
use thiserror::Error;

use crate::corpus::{Attempt, CORPUS, IN_GVISOR, IN_MACHINE, STEPS};
use crate::outcome::{Expected, Outcome};
pub use host::Host;
use probe::Line;

/// How the launcher is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Situation {
    /// As root, with `--uid`.
    Root,
    /// As the agent's user.
    User,
    /// By systemd, as `aos-agent@escape.service`.
    Unit,
    /// In an isolation backend other than `native`, started by root.
    Backend(Backend),
    /// As a step of a build of root's.
    StepOfRoot,
    /// As a step of a user's build.
    StepOfUser,
}

impl Situation {
    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "as root with --uid",
            Self::User => "as an unprivileged user",
            Self::Unit => "as aos-agent@escape.service",
            Self::Backend(backend) => backend.name(),
            Self::StepOfRoot => "as a step of a build by root",
            Self::StepOfUser => "as a step of a build by an unprivileged user",
        }
    }

    /// The situations that the calling user can make anywhere: not the unit, which needs an installed
    /// system.
    pub fn possible() -> Vec<Self> {
        if rustix::process::geteuid().is_root() {
            vec![Self::Root, Self::User, Self::StepOfRoot, Self::StepOfUser]
        } else {
            vec![Self::User, Self::StepOfUser]
        }
    }

    /// The isolation backends beside `native`.
    pub fn backends() -> Vec<Self> {
        [Backend::Crun, Backend::Runc, Backend::Gvisor, Backend::Vm].map(Self::Backend).to_vec()
    }

    /// The table of what is tried.
    pub fn corpus(self) -> &'static [Attempt] {
        match self {
            Self::Root | Self::User | Self::Unit | Self::Backend(_) => CORPUS,
            Self::StepOfRoot | Self::StepOfUser => STEPS,
        }
    }
}

/// What came of one attempt.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The place in the corpus.
    pub index: usize,
    /// How the attempt ended.
    pub attempt: Outcome,
    /// How the neighbour ended.
    pub neighbour: Outcome,
    /// Whether both are as they have to be.
    pub ok: bool,
}

/// Why there is no result at all.
#[derive(Debug, Error)]
pub enum RunError {
    /// The host could not be prepared.
    #[error("cannot prepare {what}: {source}")]
    Prepare {
        /// What was prepared.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
    /// No plan.
    #[error("no plan: {0}")]
    Plan(String),
    /// The launcher could not be built or started.
    #[error("the launcher: {0}")]
    Launcher(String),
    /// The probe said nothing.
    #[error("the probe did not run: {0}")]
    Nothing(String),
}

/// Names what could not be prepared.
pub(crate) trait Preparing<T> {
    fn preparing(self, what: impl Into<String>) -> Result<T, RunError>;
}

impl<T, E: Into<std::io::Error>> Preparing<T> for Result<T, E> {
    fn preparing(self, what: impl Into<String>) -> Result<T, RunError> {
        self.map_err(|source| RunError::Prepare { what: what.into(), source: source.into() })
    }
}

/// A new directory that the agent's user can reach: below `/srv`, or for others than root in this
/// crate's own. `/tmp` is private to each agent and can never be granted.
pub fn scratch() -> Result<Scratch, RunError> {
    let parent = if rustix::process::geteuid().is_root() { "/srv" } else { env!("CARGO_MANIFEST_DIR") };
    loop {
        let name = format!("aos-escape-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(parent).join(name);
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(Scratch(path)),
            // Of a run that was killed, whose number is used again.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).preparing(path.display().to_string()),
        }
    }
}

/// A directory that is removed with all in it when the value is dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed stays visible in /srv; there is nobody to tell.
        std::fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}

/// The end of an attempt that another one's end prevented.
const DID_NOT_RUN: &str = "did not run";

/// Numbers the directories of one process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Runs the corpus once. What did not run, since an attempt ended the whole agent, has failed.
pub fn run(
    launch: &Path,
    probe: &Path,
    situation: Situation,
    scratch: Scratch,
) -> Result<Vec<Judged>, RunError> {
    let host = Host::prepare(scratch, probe, situation)?;
    let (out, err) = match situation {
        Situation::StepOfRoot | Situation::StepOfUser => steps::run(&host, launch, probe, situation)?,
        _ => {
            let output = host.launch(launch, situation)?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (text(&output.stdout), text(&output.stderr))
        }
    };
    let lines: Vec<Line> = out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if lines.is_empty() {
        return Err(RunError::Nothing(err));
    }
    if matches!(situation, Situation::Root | Situation::User | Situation::Backend(_)) {
        host.check_notifications()?;
    }
    Ok(judge(situation, &lines))
}

fn judge(situation: Situation, lines: &[Line]) -> Vec<Judged> {
    let outcome = |index: usize, is_neighbour: bool| {
        let line = lines.iter().find(|line| line.index == index && line.is_neighbour == is_neighbour);
        line.map_or_else(|| Outcome::Other(DID_NOT_RUN.to_owned()), |line| line.outcome.clone())
    };
    situation
        .corpus()
        .iter()
        .enumerate()
        .map(|(index, entry)| {
            let (attempt, neighbour) = (outcome(index, false), outcome(index, true));
            let ok = is_as_demanded(situation, entry, &attempt, &neighbour);
            Judged { index, attempt, neighbour, ok }
        })
        .collect()
}

/// In a virtual machine some neighbours end otherwise. In gVisor errors have other numbers, and the table of differences is demanded line by line.
fn is_as_demanded(situation: Situation, entry: &Attempt, attempt: &Outcome, neighbour: &Outcome) -> bool {
    if situation == Situation::Backend(Backend::Vm) {
        let different = IN_MACHINE.iter().find(|(name, ..)| *name == entry.neighbour_name);
        let wanted = different.map_or(Outcome::Done, |(_, error, _)| Outcome::Refused(vec![*error]));
        return entry.expected.is_met_by(attempt) && *neighbour == wanted;
    }
    if situation != Situation::Backend(Backend::Gvisor) {
        return entry.expected.is_met_by(attempt) && *neighbour == Outcome::Done;
    }
    let is_held = Expected::is_refusal(attempt) && *neighbour == Outcome::Done;
    let did_run = |outcome: &Outcome| *outcome != Outcome::Other(DID_NOT_RUN.to_owned());
    let is_different = IN_GVISOR.iter().any(|(name, _)| *name == entry.name);
    did_run(attempt) && did_run(neighbour) && is_held != is_different
}
