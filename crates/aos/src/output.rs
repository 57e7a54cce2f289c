//! What `aos` writes: the only module that touches standard output and standard error.
//!
//! Results go to standard output; steps, notes and errors to standard error. Colours and moving progress are
//! for terminals only, and `NO_COLOR` or a `TERM` of `dumb` switches them off. A reader that went away
//! (`EPIPE`) is an ordinary [`std::io::Error`] here; `main` ends quietly on it.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::environment;
use crate::{failure, screen};

/// How often what moves moves.
const TICK: Duration = Duration::from_millis(120);

/// Where and how to write; cheap to copy, decided once in `main`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    stdout_tty: bool,
    stderr_tty: bool,
    colour: bool,
}

/// The few colours in use, by meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Fine: running, enforced, done.
    Good,
    /// Worth a look.
    Warn,
    /// Failed.
    Bad,
    /// Less important than what stands beside it.
    Faint,
    /// A heading.
    Strong,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "31",
            Self::Faint => "2",
            Self::Strong => "1",
        }
    }
}

impl Output {
    /// Looks at the streams and the environment.
    pub(crate) fn detect() -> Self {
        let colour = !environment::no_color() && environment::terminal_type().is_some();
        Self { stdout_tty: io::stdout().is_terminal(), stderr_tty: io::stderr().is_terminal(), colour }
    }

    /// True when standard output is a terminal: what an agent wrote is made safe for it.
    pub(crate) fn is_terminal(self) -> bool {
        self.stdout_tty
    }

    /// True when a person watches: standard error is a terminal that moves.
    pub(crate) fn is_interactive(self) -> bool {
        self.stderr_tty && self.colour
    }

    /// True when standard output may carry colours.
    pub(crate) const fn colours(self) -> bool {
        self.stdout_tty && self.colour
    }

    /// `text` in a tone, on a standard output that shows colours; otherwise `text`.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        if self.colours() { format!("\x1b[{}m{text}\x1b[0m", tone.code()) } else { text.to_owned() }
    }

    /// One line of result.
    pub(crate) fn line(self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.write_all(b"\n")?;
        stdout.flush()
    }

    /// Bytes of result as they are.
    pub(crate) fn bytes(self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    /// All of a file as result, in pieces.
    pub(crate) fn copy(self, mut file: File) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        io::copy(&mut file, &mut stdout)?;
        stdout.flush()
    }

    /// A value as indented JSON.
    pub(crate) fn json<T: serde::Serialize>(self, value: &T) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        Ok(self.line(&text)?)
    }

    /// A remark beside the result, on standard error, without anything that acts on a terminal.
    /// A closed standard error is not worth failing for.
    pub(crate) fn note(self, text: &str) {
        self.stderr_line(&screen::one_line(text));
    }

    /// A warning on standard error.
    pub(crate) fn warn(self, text: &str) {
        let label = self.paint_stderr(Tone::Warn, "warning:");
        self.stderr_line(&format!("{label} {}", screen::one_line(text)));
    }

    /// An error with its causes and hints, on standard error.
    pub(crate) fn error(self, error: &anyhow::Error) {
        let report = failure::Report::of(error);
        let label = self.paint_stderr(Tone::Bad, "error:");
        self.stderr_line(&format!("{label} {}", screen::one_line(&report.summary)));
        for cause in &report.causes {
            self.stderr_line(&format!("  cause: {}", screen::one_line(cause)));
        }
        for line in &report.details {
            self.stderr_line(&format!("  - {}", screen::one_line(line)));
        }
        let label = self.paint_stderr(Tone::Strong, "hint:");
        for hint in &report.hints {
            self.stderr_line(&format!("{label} {}", screen::one_line(hint)));
        }
    }

    /// A line that moves, among others or alone, on a terminal that can show one. `template` is indicatif's.
    pub(crate) fn bar(
        self,
        among: Option<&MultiProgress>,
        template: &str,
        message: String,
    ) -> Option<ProgressBar> {
        if !self.is_interactive() {
            return None;
        }
        // It is drawn once it is as it should be.
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("##-"));
        }
        bar.set_message(message);
        let bar = match among {
            Some(bars) => bars.add(bar),
            None => {
                bar.set_draw_target(ProgressDrawTarget::stderr());
                bar
            }
        };
        bar.enable_steady_tick(TICK);
        Some(bar)
    }

    /// Bars that move together, on a terminal that can show them.
    pub(crate) fn bars(self) -> Option<MultiProgress> {
        self.is_interactive().then(MultiProgress::new)
    }

    /// Announces a step that takes a moment: a spinner on a terminal, a plain line elsewhere.
    pub(crate) fn step(self, text: &str) -> Step {
        if !self.is_interactive() {
            self.stderr_line(text);
            return Step(None);
        }
        Step(self.bar(None, "{spinner} {msg} {elapsed:.dim}", text.to_owned()))
    }

    /// Like [`Output::step`], but silent where nothing moves: for steps whose end is reported anyway.
    pub(crate) fn step_on_terminal(self, text: &str) -> Step {
        if self.is_interactive() { self.step(text) } else { Step(None) }
    }

    fn paint_stderr(self, tone: Tone, text: &str) -> String {
        if self.is_interactive() { format!("\x1b[{}m{text}\x1b[0m", tone.code()) } else { text.to_owned() }
    }

    fn stderr_line(self, text: &str) {
        let written = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
        if written.is_err() {
            // Standard error is where this would be told. The result and the exit status do not depend on it.
        }
    }
}

/// A step in progress; its line disappears when it is dropped.
#[derive(Debug)]
pub(crate) struct Step(Option<ProgressBar>);

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
