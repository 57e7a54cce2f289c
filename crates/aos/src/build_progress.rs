//! What a build tells while it goes on: a line for each step that is done, and on a terminal a moving line for each
//! that is under way.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use aos_build::{Event, Progress, StepName};
use indicatif::{MultiProgress, ProgressBar};

use crate::output::Output;
use crate::quantity;
use crate::screen;

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Telling {
    /// Each step, and what its command writes.
    Steps,
    /// Nothing but failures.
    Nothing,
}

/// Tells of a build on standard error.
pub(crate) struct Steps {
    out: Output,
    telling: Telling,
    bars: Option<MultiProgress>,
    moving: Mutex<BTreeMap<(String, usize), ProgressBar>>,
}

impl Steps {
    /// A teller.
    pub(crate) fn new(out: Output, telling: Telling) -> Self {
        let bars = out.bars().filter(|_| telling == Telling::Steps);
        Self { out, telling, bars, moving: Mutex::default() }
    }

    /// The bars, for what else moves during the build.
    pub(crate) fn bars(&self) -> Option<MultiProgress> {
        self.bars.clone()
    }

    /// Prints a line above what moves.
    fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| self.out.note(text)),
            None => self.out.note(text),
        }
    }

    fn start(&self, step: &StepName<'_>) {
        let message = screen::one_line(&step.to_string());
        let Some(bar) = self.out.bar(self.bars.as_ref(), "{spinner} {msg} {elapsed:.dim}", message) else {
            return;
        };
        let mut moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        moving.insert((step.stage.to_owned(), step.number), bar);
    }

    fn with(&self, step: &StepName<'_>, act: impl FnOnce(&ProgressBar)) {
        let moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = moving.get(&(step.stage.to_owned(), step.number)) {
            act(bar);
        }
    }

    fn end(&self, step: &StepName<'_>, text: &str) {
        let mut moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = moving.remove(&(step.stage.to_owned(), step.number)) {
            bar.finish_and_clear();
        }
        drop(moving);
        self.line(&format!("{step}: {text}"));
    }
}

impl Progress for Steps {
    fn event(&self, step: &StepName<'_>, event: Event<'_>) {
        match event {
            Event::Failed { message } => self.end(step, &format!("failed: {message}")),
            _ if self.telling == Telling::Nothing => {}
            Event::Started => self.start(step),
            Event::Cached { bytes: 0 } => self.end(step, "cached"),
            Event::Cached { bytes } => self.end(step, &format!("cached, {}", quantity::bytes(bytes))),
            Event::Bytes { done, total } => self.with(step, |bar| {
                let share = format!("{} of {}", quantity::bytes(done), quantity::bytes(total));
                bar.set_message(format!("{} {share}", screen::one_line(&step.to_string())));
            }),
            Event::Output(line) => {
                let name = if step.stage.is_empty() { "" } else { step.stage };
                self.line(&format!("  {name}| {}", line));
            }
            Event::Done { bytes: 0, took } => self.end(step, &format!("done in {}", seconds(took))),
            Event::Done { bytes, took } => {
                self.end(step, &format!("done in {}, {}", seconds(took), quantity::bytes(bytes)));
            }
        }
    }
}

/// A short time in seconds.
pub(crate) fn seconds(took: std::time::Duration) -> String {
    format!("{:.2} s", took.as_secs_f64())
}
