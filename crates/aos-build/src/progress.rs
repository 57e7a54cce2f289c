//! What a build tells while it goes on.

use aos_core::agentfile::Position;
use std::fmt;
use std::time::Duration;

/// A step of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepName<'a> {
    /// The stage's name; empty for an Agentfile without `build`.
    pub stage: &'a str,
    /// The step's number in its stage, counted from 1; 0 is the stage's base.
    pub number: usize,
    /// The stage's steps.
    pub of: usize,
    /// What it does, on one line.
    pub title: &'a str,
    /// Where it stands in the Agentfile.
    pub place: Position,
}

impl fmt::Display for StepName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, number, of, title, .. } = self;
        if stage.is_empty() { write!(f, "{title}") } else { write!(f, "[{stage} {number}/{of}] {title}") }
    }
}

/// Something that happened to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// It is being made.
    Started,
    /// Its layer comes from the cache.
    Cached {
        /// Bytes of the layer.
        bytes: u64,
    },
    /// It has read so many bytes of its inputs.
    Bytes {
        /// Bytes done.
        done: u64,
        /// Bytes that there are to do.
        total: u64,
    },
    /// Its command wrote a line, here without the line's end and control characters.
    Output(&'a str),
    /// It is made.
    Done {
        /// Bytes of the layer; 0 for a step without one.
        bytes: u64,
        /// How long it took.
        took: Duration,
    },
    /// It failed.
    Failed {
        /// The error with its causes.
        message: &'a str,
    },
}

/// Who is told. Steps of several stages are told of at once, from several threads.
pub trait Progress: Sync {
    /// Something happened. Slow work here slows down the build.
    fn event(&self, step: &StepName<'_>, event: Event<'_>);
}

/// Nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: &StepName<'_>, _: Event<'_>) {}
}
