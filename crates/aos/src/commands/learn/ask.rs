//! Asking a person about each capability, on the terminal.

use std::io::{self, Write as _};
use std::time::Duration;

use aos_learn::{Answer, COUNTED_MAX, Cancel, Choices, LearnError, Question};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::show;
use crate::output::Output;

/// How often an interrupt is looked for while nothing is typed.
const TICK: Duration = Duration::from_millis(200);
/// What each letter does.
const HELP: &str = "y grants exactly this; n does not; a grants this and all that follow but writing, secrets and folders; d grants the whole folder";

/// A person at a terminal.
pub(super) struct Person {
    out: Output,
    cancel: Cancel,
    /// Whether all but writing, secrets and folders is granted from here on.
    is_all: bool,
}

/// What was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Typed {
    Yes,
    No,
    All,
    Directory,
}

impl Person {
    /// The person at this terminal.
    pub(super) const fn new(out: Output, cancel: Cancel) -> Self {
        Self { out, cancel, is_all: false }
    }

    fn prompt(&self, text: &str) -> Result<String, LearnError> {
        let asking = |error: io::Error| LearnError::Asking(Box::new(error));
        let mut stderr = io::stderr().lock();
        stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()).map_err(asking)?;
        let stdin = io::stdin();
        let time = Timespec { tv_sec: 0, tv_nsec: i64::from(TICK.subsec_nanos()) };
        loop {
            if self.cancel.is_cancelled() {
                return Err(LearnError::Interrupted);
            }
            let mut waited = [PollFd::new(&stdin, PollFlags::IN)];
            match poll(&mut waited, Some(&time)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => break,
                Err(error) => return Err(asking(error.into())),
            }
        }
        let mut line = String::new();
        match stdin.read_line(&mut line).map_err(asking)? {
            // The line was hung up: nothing is granted by silence.
            0 => Err(LearnError::Interrupted),
            _ => Ok(line.trim().to_lowercase()),
        }
    }

    /// Says plainly what a folder would give, and asks whether that is meant.
    fn widen(&self, question: &Question<'_>) -> Result<Option<Answer>, LearnError> {
        let Some((wider, files)) = question.wider else { return Ok(None) };
        let more = if files >= COUNTED_MAX { " or more" } else { "" };
        self.out.note(&format!(
            "  {wider} also grants {files}{more} other files that are there now, and all that come to be there"
        ));
        let typed = self.prompt("  Grant the whole folder? [y/N] ")?;
        Ok(matches!(typed.as_str(), "y" | "yes").then_some(Answer::Wider))
    }
}

impl Choices for Person {
    fn choose(&mut self, question: &Question<'_>) -> Result<Answer, LearnError> {
        let is_plain = question.is_plain();
        if self.is_all && is_plain {
            return Ok(Answer::Exact);
        }
        let subject = question.need.proposal.subject();
        self.out.note(&format!("{subject}   ({})", show::asked(question.need)));
        if let Some(why) = question.caution {
            self.out.warn(&why.to_string());
        }
        let keys = match (question.exact, question.wider, is_plain) {
            (Some(_), Some(_), true) => "[y/n/a/d/?]",
            (Some(_), None, true) => "[y/n/a/?]",
            (Some(_), Some(_), false) => "[y/n/d/?]",
            (Some(_), None, false) => "[y/n/?]",
            (None, ..) => "[n/d/?]",
        };
        loop {
            let typed = self.prompt(&format!("  Grant it? {keys} "))?;
            match parse(&typed) {
                Some(Typed::Yes) if question.exact.is_some() => return Ok(Answer::Exact),
                Some(Typed::No) => return Ok(Answer::Deny),
                Some(Typed::All) if is_plain => {
                    self.is_all = true;
                    return Ok(Answer::Exact);
                }
                Some(Typed::Directory) if question.wider.is_some() => {
                    if let Some(answer) = self.widen(question)? {
                        return Ok(answer);
                    }
                }
                _ => self.out.note(&format!("  {HELP}")),
            }
        }
    }
}

/// What an answer means; an empty one means nothing.
fn parse(typed: &str) -> Option<Typed> {
    match typed {
        "y" | "yes" => Some(Typed::Yes),
        "n" | "no" => Some(Typed::No),
        "a" | "all" => Some(Typed::All),
        "d" | "dir" | "directory" | "folder" => Some(Typed::Directory),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "All" is no answer for what a person has to look at: that is asked about, here until it is interrupted.
    #[test]
    fn all_is_for_plain_questions() {
        let capability = |line: &str| line.parse::<aos_core::capability::Capability>().unwrap();
        let answer = |line: &str, caution| {
            let exact = capability(line);
            let need = aos_learn::Need {
                proposal: aos_learn::Proposal::Exact(exact.clone()),
                want: aos_sandbox::record::Want::Write,
                call: "openat",
                order: 0,
                count: 1,
                programs: std::collections::BTreeSet::new(),
                real: None,
            };
            let cancel = Cancel::default();
            cancel.cancel();
            let mut person = Person { is_all: true, ..Person::new(Output::detect(), cancel) };
            person.choose(&Question { need: &need, exact: Some(&exact), wider: None, caution })
        };
        assert!(matches!(answer("file_read: /srv/a", None), Ok(Answer::Exact)));
        let asked = answer("file_write: /home/u/.bashrc", Some(aos_learn::Caution::Write));
        assert!(matches!(asked, Err(LearnError::Interrupted)));
    }

    #[test]
    fn answers_are_words_or_letters() {
        for (typed, means) in [
            ("y", Some(Typed::Yes)),
            ("no", Some(Typed::No)),
            ("all", Some(Typed::All)),
            ("d", Some(Typed::Directory)),
            ("", None),
            ("ya", None),
        ] {
            assert_eq!(parse(typed), means, "{typed:?}");
        }
    }
}
