//! Learning what an agent needs: it is run in the launcher's sandbox with what it was granted so far,
//! what it asks for beyond that is recorded, somebody decides, and the list that makes the run pass is
//! made as small as it can be.
//!
//! Recording grants nothing. The agent has every layer of its plan around it; a second system call
//! filter asks the recorder about calls that name files and addresses, and the only answer there is
//! lets the call go on to those layers. What is recorded was written by the agent, which may lie: a
//! thread can change a path after it was read. So it is never a reason to allow something, and the
//! list is tried in a run of its own before it is shown.
//!
//! | module | owns |
//! |---|---|
//! | [`mod@learn`] | rounds, decisions, the smallest list |
//! | `sandbox`, `launch`, `output` | one run: plan, launcher, output, deadline, end |
//! | `recorder`, `process`, [`ask`] | what a waiting call asks for |
//! | `view`, `host` | what of it the plan gives, and what the host has |
//! | `need`, `lesson` | proposals and results |
//! | `caution`, `deny` | what is not granted without a look, and what never |
//! | [`edit`] | the list in the text of an Agentfile |
//!
//! Concurrency: one thread runs, watches and decides; a recorder is a thread of each run. Bounds: a
//! record has [`NEEDS_MAX`] needs; calls wait in the kernel, one for each thread of the agent.

pub mod ask;
mod caution;
mod deny;
pub mod edit;
mod error;
mod host;
mod launch;
pub mod learn;
mod lesson;
mod need;
mod output;
mod process;
mod recorder;
mod sandbox;
mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use caution::Caution;
pub use deny::Deny;
pub use error::LearnError;
pub use host::COUNTED_MAX;
pub use launch::{Ending, Launch, Ran};
pub use learn::{Answer, Choices, Goal, Purpose, Question, Settings, Trial, Trials, learn};
pub use lesson::{Denied, Learned, Lesson, Refused, Suggestion};
pub use need::{NEEDS_MAX, Need, Proposal, Record};
pub use sandbox::{Sandbox, Setting, Silent, Told, Workspace};

/// One line of the agent's output, as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output<'a> {
    /// Where it comes from.
    pub stream: Stream,
    /// The text, without its line end. It may steer a terminal.
    pub line: &'a str,
}

/// Where a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A switch that ends a run, and learning with it. Clones are the same switch.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends what has this switch.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it is set.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Decides without a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unattended {
    /// Grants exactly what was asked for, but nothing that a person has to look at: no directory, no
    /// writing, nothing that looks like a secret.
    Grant,
    /// Grants nothing.
    Record,
}

impl Choices for Unattended {
    fn choose(&mut self, question: &Question<'_>) -> Result<Answer, LearnError> {
        Ok(match self {
            Self::Grant if question.is_plain() => Answer::Exact,
            _ => Answer::Deny,
        })
    }
}
