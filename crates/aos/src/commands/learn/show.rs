//! Runs as they go, and what was learnt: for people on standard error, for programs as JSON.

use std::path::Path;

use aos_core::capability::Capability;
use aos_learn::{COUNTED_MAX, Ending, Learned, Lesson, Need, Purpose, Stream, Told};
use serde::Serialize;

use crate::output::Output;
use crate::screen;

/// Tells of runs on standard error.
pub(super) struct Telling {
    out: Output,
    is_quiet: bool,
}

impl Telling {
    /// A teller.
    pub(super) const fn new(out: Output, is_quiet: bool) -> Self {
        Self { out, is_quiet }
    }
}

impl Told for Telling {
    fn begins(&mut self, purpose: Purpose, without: Option<&Capability>) {
        if self.is_quiet {
            return;
        }
        match (purpose, without) {
            (Purpose::Round(round), _) => self.out.note(&format!("run {round}")),
            (Purpose::Without { number, of }, Some(capability)) => {
                self.out.note(&format!("trying without {capability} ({number} of {of})"));
            }
            (Purpose::Without { .. }, None) => {}
        }
    }

    fn wrote(&mut self, output: aos_learn::Output<'_>) {
        if !self.is_quiet {
            let mark = if output.stream == Stream::Err { "!" } else { "|" };
            self.out.note(&format!("  {mark} {}", output.line));
        }
    }
}

/// What asked for something.
#[derive(Debug, Serialize)]
struct Asked {
    /// The system call that asked first.
    call: &'static str,
    /// How often it was asked for in one run.
    count: u64,
    /// Names of programs that asked, a few of them.
    programs: Vec<String>,
}

impl Asked {
    fn of(need: &Need) -> Self {
        let programs = need.programs.iter().map(|name| screen::one_line(name)).collect();
        Self { call: need.call, count: need.count, programs }
    }
}

/// A capability that was granted.
#[derive(Debug, Serialize)]
struct LearnedView {
    capability: String,
    /// Whether it is on the list; else a run passed without it.
    needed: bool,
    /// Of one on a folder, how many other files it grants now.
    #[serde(skip_serializing_if = "Option::is_none")]
    other_files: Option<usize>,
    asked: Asked,
}

/// Something that was not granted.
#[derive(Debug, Serialize)]
struct LackedView {
    what: String,
    why: String,
    asked: Asked,
}

/// A capability on a folder, to think about.
#[derive(Debug, Serialize)]
struct SuggestionView {
    capability: String,
    because: String,
    other_files: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<Asked>,
}

/// The result.
#[derive(Debug, Serialize)]
pub(super) struct View {
    package: String,
    /// Whether the run passes with the list.
    passed: bool,
    /// Whether it was tried to do without each that was learnt.
    minimised: bool,
    /// The agent's exit status; `null` when its time was over.
    status: Option<i32>,
    runs: u32,
    capabilities: Vec<String>,
    learned: Vec<LearnedView>,
    denied: Vec<LackedView>,
    suggestions: Vec<SuggestionView>,
    /// What no capability gives, or what the plan or this machine refuses.
    refused: Vec<LackedView>,
    /// Uses beyond the bound of a record.
    unrecorded: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<String>,
}

impl View {
    /// The view of a lesson.
    pub(super) fn new(package: &str, lesson: &Lesson, written: Option<&Path>) -> Self {
        let learned = |learned: &Learned| LearnedView {
            capability: learned.capability.to_string(),
            needed: learned.is_needed,
            other_files: learned.files,
            asked: Asked::of(&learned.need),
        };
        let lacked = |what: String, why: &str, need: &Need| LackedView {
            what: screen::one_line(&what),
            why: screen::one_line(why),
            asked: Asked::of(need),
        };
        Self {
            package: package.to_owned(),
            passed: lesson.passed,
            minimised: lesson.is_minimised,
            status: match lesson.ending {
                Some(Ending::Status(status)) => Some(status),
                _ => None,
            },
            runs: lesson.runs,
            capabilities: lesson.capabilities.to_lines(),
            learned: lesson.learned.iter().map(learned).collect(),
            denied: lesson
                .denied
                .iter()
                .map(|denied| lacked(denied.capability.to_string(), &denied.why, &denied.need))
                .collect(),
            suggestions: lesson
                .suggestions
                .iter()
                .map(|suggestion| SuggestionView {
                    capability: suggestion.capability.to_string(),
                    because: suggestion.because.clone(),
                    other_files: suggestion.files,
                    asked: suggestion.need.as_ref().map(Asked::of),
                })
                .collect(),
            refused: lesson
                .refused
                .iter()
                .map(|refused| lacked(refused.what.clone(), &refused.why, &refused.need))
                .collect(),
            unrecorded: lesson.cut,
            written: written.map(|path| path.display().to_string()),
        }
    }

    /// Shows it to a person, beside the list.
    pub(super) fn tell(&self, out: Output) {
        let count = self.capabilities.len();
        out.note(&format!("{}: {count} capabilities, {} runs", self.package, self.runs));
        let width = self.learned.iter().map(|learned| learned.capability.chars().count()).max().unwrap_or(0);
        for learned in self.learned.iter().filter(|learned| learned.needed) {
            let files = learned
                .other_files
                .map_or_else(String::new, |files| format!(", {} other files", many(files)));
            out.note(&format!("  {:width$}   {}{files}", learned.capability, told(&learned.asked)));
        }
        for learned in self.learned.iter().filter(|learned| !learned.needed) {
            out.note(&format!("not needed: {} ({})", learned.capability, told(&learned.asked)));
        }
        for denied in &self.denied {
            out.note(&format!("not granted: {}: {} ({})", denied.what, denied.why, told(&denied.asked)));
        }
        for refused in &self.refused {
            out.note(&format!(
                "cannot be granted: {}: {} ({})",
                refused.what,
                refused.why,
                told(&refused.asked)
            ));
        }
        for suggestion in &self.suggestions {
            let SuggestionView { capability, because, other_files, .. } = suggestion;
            out.note(&format!(
                "to think about: {capability}, since {because}; it would also grant {} other files that are there now",
                many(*other_files)
            ));
        }
        if self.unrecorded > 0 {
            out.warn(&format!(
                "the agent asked for more than {} different things; {} uses are not in the record",
                aos_learn::NEEDS_MAX,
                self.unrecorded
            ));
        }
    }
}

fn many(files: usize) -> String {
    if files >= COUNTED_MAX { format!("{COUNTED_MAX} or more") } else { files.to_string() }
}

fn told(asked: &Asked) -> String {
    let times = if asked.count == 1 { "once".to_owned() } else { format!("{} times", asked.count) };
    format!("{}, {times}, by {}", asked.call, asked.programs.join(", "))
}

/// Which call asked, how often, and by whom.
pub(super) fn asked(need: &Need) -> String {
    told(&Asked::of(need))
}

/// How the agent ended.
pub(super) fn ending(lesson: &Lesson) -> String {
    match lesson.ending {
        _ if lesson.is_exhausted => "the rounds were used up before it passed".to_owned(),
        Some(Ending::Status(status)) => format!("it ended with status {status}"),
        Some(Ending::Timeout) => "its time was over".to_owned(),
        None => "it did not start".to_owned(),
    }
}
