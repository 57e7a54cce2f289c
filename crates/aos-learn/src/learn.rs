//! From runs to a list: run, see what was missing, ask, run again; then leave out what turns out not
//! to be needed.
//!
//! Pure but for what [`Trials`] and [`Choices`] do, so that every path of it is tested without a
//! sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aos_core::capability::{Capability, CapabilitySet};
use aos_core::path::AbsolutePath;

use crate::caution::{self, Caution};
use crate::deny::Deny;
use crate::error::LearnError;
use crate::host::COUNTED_MAX;
use crate::launch::{Ending, Ran};
use crate::lesson::{Denied, Learned, Lesson, Refused, Suggestion};
use crate::need::{Need, Proposal};

/// Directories whose files are counted.
const COUNTS_MAX: usize = 200;
/// How long files are counted, in all directories together.
const COUNTING_TIME: Duration = Duration::from_secs(10);
/// Why something is not granted that a run that passed did without.
const UNNEEDED: &str = "the run passes without";

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To see what is missing: the run of this number, from 1.
    Round(u32),
    /// To see whether it passes without a capability: the how manieth, of how many.
    Without {
        /// Its number, from 1.
        number: usize,
        /// How many are tried.
        of: usize,
    },
}

/// What a run gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// The agent ran.
    Ran(Ran),
    /// The launcher does not start it with these capabilities, and says why.
    Refused(String),
}

/// Makes runs.
pub trait Trials {
    /// Whether a plan can be made with these capabilities; else why not.
    fn check(&self, capabilities: &CapabilitySet) -> Result<(), String>;
    /// Runs the agent with exactly these capabilities. `without` is the one that is left out.
    fn run(
        &mut self,
        capabilities: &CapabilitySet,
        purpose: Purpose,
        without: Option<&Capability>,
    ) -> Result<Trial, LearnError>;
    /// How many files are below a directory now.
    fn count(&self, directory: &AbsolutePath) -> usize;
}

/// A capability that could be granted.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What it is for.
    pub need: &'a Need,
    /// It; `None` when only the wider one would do.
    pub exact: Option<&'a Capability>,
    /// One on the whole directory, with the number of other files there now.
    pub wider: Option<(&'a Capability, usize)>,
    /// Why to look at it.
    pub caution: Option<Caution>,
}

impl Question<'_> {
    /// Whether an answer for many questions may be one for this: it is exact, and nothing says that
    /// a person has to look at it.
    pub const fn is_plain(&self) -> bool {
        self.caution.is_none() && self.exact.is_some()
    }
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Grant exactly what was asked for.
    Exact,
    /// Grant the whole directory.
    Wider,
    /// Do not grant it.
    Deny,
}

/// Decides.
pub trait Choices {
    /// Answers one question. Each is asked once.
    fn choose(&mut self, question: &Question<'_>) -> Result<Answer, LearnError>;
}

/// What counts as a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Goal {
    /// The agent ends with status 0.
    #[default]
    Status,
    /// It does, and its standard output is the same as with all that was granted. Rounds then go on
    /// until nothing new appears, even when one passes.
    SameOutput,
}

/// How to learn.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Runs that look for what is missing, at most.
    pub rounds: u32,
    /// Whether to try to do without each capability afterwards.
    pub minimise: bool,
    /// What counts as a pass.
    pub goal: Goal,
    /// Whether an agent that still runs when its time is over has passed: a server.
    pub serves: bool,
    /// What is never granted.
    pub deny: Vec<Deny>,
    /// Files and directories that nothing is granted to write in, nor above: what is built from, and
    /// what the list is written into. Without links on the way.
    pub keep: Vec<PathBuf>,
}

/// Learns. `start` is granted from the beginning, and stays.
pub fn learn(
    start: &CapabilitySet,
    settings: &Settings,
    trials: &mut dyn Trials,
    choices: &mut dyn Choices,
) -> Result<Lesson, LearnError> {
    let (usable, later): (Vec<Capability>, Vec<Capability>) = start.iter().cloned().partition(is_of_runs);
    let mut session = Session {
        settings,
        trials,
        choices,
        fixed: CapabilitySet::try_from_iter(usable)?,
        decided: BTreeSet::new(),
        counts: BTreeMap::new(),
        counting: Duration::ZERO,
        lesson: Lesson::new(),
    };
    let reference = session.look()?;
    if settings.minimise
        && let Some(reference) = &reference
    {
        session.minimise(reference)?;
    }
    session.finish(&later)
}

/// Whether the sandbox holds an agent to a capability; else it is kept for the list, and in no run.
pub(crate) fn is_of_runs(capability: &Capability) -> bool {
    capability.right().is_of_kernel() && capability.qualifiers().is_empty()
}

struct Session<'a> {
    settings: &'a Settings,
    trials: &'a mut dyn Trials,
    choices: &'a mut dyn Choices,
    fixed: CapabilitySet,
    /// Subjects that were asked about or told.
    decided: BTreeSet<String>,
    /// Files below directories that were counted.
    counts: BTreeMap<AbsolutePath, usize>,
    /// How long that took.
    counting: Duration,
    lesson: Lesson,
}

impl Session<'_> {
    /// Runs until it passes or nothing new appears; the run that passed.
    fn look(&mut self) -> Result<Option<Ran>, LearnError> {
        for round in 1..=self.settings.rounds {
            self.lesson.runs += 1;
            let ran = match self.trials.run(&self.granted()?, Purpose::Round(round), None)? {
                Trial::Ran(ran) => ran,
                Trial::Refused(why) => {
                    self.take_back(why)?;
                    continue;
                }
            };
            self.lesson.ending = Some(ran.ending);
            self.lesson.cut = self.lesson.cut.max(ran.record.cut);
            self.lesson.unreadable = self.lesson.unreadable.max(ran.record.unreadable);
            let passed = self.has_passed(&ran, None);
            let needs = ran.record.needs();
            if passed && self.settings.goal == Goal::Status {
                self.lesson.passed = true;
                self.leave(&needs);
                return Ok(Some(ran));
            }
            if !self.decide_all(&needs)? {
                self.lesson.passed = passed;
                return Ok(passed.then_some(ran));
            }
        }
        self.lesson.is_exhausted = true;
        Ok(None)
    }

    fn has_passed(&self, ran: &Ran, reference: Option<&Ran>) -> bool {
        let ended_well = match ran.ending {
            Ending::Status(status) => status == 0,
            Ending::Timeout => self.settings.serves,
        };
        let is_same = match (self.settings.goal, reference) {
            (Goal::SameOutput, Some(reference)) => ran.output == reference.output,
            _ => true,
        };
        ended_well && is_same
    }

    /// Decides on all that is new, and says whether something was granted. What was only looked at
    /// comes when nothing else does.
    fn decide_all(&mut self, needs: &[Need]) -> Result<bool, LearnError> {
        for weak in [false, true] {
            let mut has_granted = false;
            for need in needs.iter().filter(|need| need.is_weak() == weak) {
                has_granted |= self.decide(need)?;
            }
            if has_granted {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Decides on one need, once, and says whether it was granted.
    fn decide(&mut self, need: &Need) -> Result<bool, LearnError> {
        if let Proposal::Exact(capability) = &need.proposal
            && self.granted()?.covers(capability)
        {
            // What was granted since it was asked for gives it.
            return Ok(false);
        }
        if !self.decided.insert(need.proposal.subject()) {
            return Ok(false);
        }
        let (exact, wider) = match &need.proposal {
            Proposal::Nothing { what, why } => {
                self.refuse(what.clone(), why.clone(), need);
                return Ok(false);
            }
            Proposal::Exact(capability) => (Some(capability), directory_of(capability)),
            Proposal::Directory { capability, .. } => (None, Some(capability.clone())),
        };
        let Some(capability) = exact.or(wider.as_ref()) else { return Ok(false) };
        if let Err(why) = self.check(capability)? {
            self.refuse(capability.to_string(), why, need);
            return Ok(false);
        }
        if let Some(why) =
            [Some(capability), need.real.as_ref()].into_iter().flatten().find_map(|one| self.denied(one))
        {
            self.deny(capability, why, need);
            return Ok(false);
        }
        self.ask(need, exact, wider.as_ref())
    }

    /// Asks about one need, and says whether it was granted.
    fn ask(
        &mut self,
        need: &Need,
        exact: Option<&Capability>,
        wider: Option<&Capability>,
    ) -> Result<bool, LearnError> {
        let is_possible = |wider: &&Capability| {
            self.check(wider).is_ok_and(|check| check.is_ok()) && self.denied(wider).is_none()
        };
        let wider = wider.filter(is_possible);
        let wider = wider.map(|wider| (wider, self.count(wider, usize::from(exact.is_some()))));
        let narrowest = exact.or(wider.map(|(capability, _)| capability));
        let caution = narrowest.and_then(|narrowest| cautions(narrowest, need));
        match (self.choices.choose(&Question { need, exact, wider, caution })?, exact, wider) {
            (Answer::Exact, Some(exact), _) => self.grant(exact.clone(), need, None),
            (Answer::Wider, _, Some((wider, files))) => self.grant(wider.clone(), need, Some(files)),
            (_, Some(exact), _) => {
                let why = caution.map_or_else(|| "not granted".to_owned(), |caution| caution.to_string());
                self.deny(exact, why, need);
                return Ok(false);
            }
            (_, None, Some((capability, files))) => {
                self.suggest(capability, files, need);
                return Ok(false);
            }
            (_, None, None) => return Ok(false),
        }
        Ok(true)
    }

    /// How many files a capability on a directory gives beside so many of them. Each directory is
    /// counted once.
    fn count(&mut self, capability: &Capability, known: usize) -> usize {
        let Some(path) = path_of(capability) else { return 0 };
        let files = match self.counts.get(&path) {
            Some(files) => *files,
            // The agent names directories as it likes: they are not counted for ever.
            None if self.counts.len() >= COUNTS_MAX || self.counting >= COUNTING_TIME => COUNTED_MAX,
            None => {
                let started = Instant::now();
                let files = self.trials.count(&path);
                self.counting = self.counting.saturating_add(started.elapsed());
                self.counts.insert(path, files);
                files
            }
        };
        files.saturating_sub(known)
    }

    /// Why a capability is never granted.
    fn denied(&self, capability: &Capability) -> Option<String> {
        let deny = self.settings.deny.iter().find(|deny| deny.is_about(capability));
        deny.map(|deny| format!("--deny {deny}")).or_else(|| {
            let kept = self.settings.keep.iter().find(|kept| writes_in(capability, kept))?;
            Some(format!("{} is kept from being written while it is learnt from", kept.display()))
        })
    }

    fn suggest(&mut self, capability: &Capability, files: usize, need: &Need) {
        let because = match &need.proposal {
            Proposal::Directory { because, .. } => (*because).to_owned(),
            _ => String::new(),
        };
        let (capability, need) = (capability.clone(), Some(need.clone()));
        self.lesson.suggestions.push(Suggestion { capability, files, because, need });
    }

    /// Whether a plan can be made with one more.
    fn check(&self, capability: &Capability) -> Result<Result<(), String>, LearnError> {
        let mut set = self.granted()?;
        if set.contains(capability) {
            return Ok(Ok(()));
        }
        Ok(match set.insert(capability.clone()) {
            Ok(()) => self.trials.check(&set),
            Err(error) => Err(error.to_string()),
        })
    }

    fn grant(&mut self, capability: Capability, need: &Need, files: Option<usize>) {
        // What the wider one covers is said by it.
        self.lesson.learned.retain(|learned| !capability.covers(&learned.capability));
        self.lesson.learned.push(Learned { capability, need: need.clone(), files, is_needed: true });
    }

    fn deny(&mut self, capability: &Capability, why: String, need: &Need) {
        self.lesson.denied.push(Denied { capability: capability.clone(), why, need: need.clone() });
    }

    fn refuse(&mut self, what: String, why: String, need: &Need) {
        // Messages that stand alone name the capability; here it stands before them.
        let named = format!("capability `{what}`: ");
        let why = why.split_once(&named).map_or(why.as_str(), |(_, why)| why).to_owned();
        self.lesson.refused.push(Refused { what, why, need: need.clone() });
    }

    /// What a run that passed did without.
    fn leave(&mut self, needs: &[Need]) {
        for need in needs.iter().filter(|need| !need.is_weak()) {
            if !self.decided.insert(need.proposal.subject()) {
                continue;
            }
            match &need.proposal {
                Proposal::Exact(capability) | Proposal::Directory { capability, .. } => {
                    let caution = |caution| format!("{caution}; {UNNEEDED}");
                    let why = cautions(capability, need).map_or_else(|| UNNEEDED.to_owned(), caution);
                    self.deny(capability, why, need);
                }
                Proposal::Nothing { what, why } => self.refuse(what.clone(), why.clone(), need),
            }
        }
    }

    /// Takes back the capability that the launcher's message names: the plan was possible, and this
    /// machine's files are not as it says.
    fn take_back(&mut self, why: String) -> Result<(), LearnError> {
        let named = |learned: &Learned| why.contains(&learned.capability.to_string());
        let longest =
            |index: &usize| self.lesson.learned.get(*index).map(|one| one.capability.to_string().len());
        let indices = 0..self.lesson.learned.len();
        let index =
            indices.filter(|index| self.lesson.learned.get(*index).is_some_and(named)).max_by_key(longest);
        let Some(index) = index else { return Err(LearnError::Confinement(why)) };
        let learned = self.lesson.learned.remove(index);
        self.refuse(learned.capability.to_string(), why, &learned.need);
        Ok(())
    }

    /// Tries to do without each, those that were only looked at first.
    fn minimise(&mut self, reference: &Ran) -> Result<(), LearnError> {
        let mut order: Vec<Capability> =
            self.lesson.learned.iter().map(|learned| learned.capability.clone()).collect();
        let strength = |capability: &Capability| {
            self.lesson.learned.iter().any(|one| one.capability == *capability && !one.need.is_weak())
        };
        order.sort_by_key(strength);
        let of = order.len();
        for (index, capability) in order.into_iter().enumerate() {
            let others =
                self.granted()?.iter().filter(|other| **other != capability).cloned().collect::<Vec<_>>();
            let set = CapabilitySet::try_from_iter(others)?;
            if self.trials.check(&set).is_err() {
                continue;
            }
            self.lesson.runs += 1;
            let purpose = Purpose::Without { number: index + 1, of };
            if let Trial::Ran(ran) = self.trials.run(&set, purpose, Some(&capability))?
                && self.has_passed(&ran, Some(reference))
            {
                for learned in &mut self.lesson.learned {
                    learned.is_needed &= learned.capability != capability;
                }
            }
        }
        self.lesson.is_minimised = true;
        Ok(())
    }

    /// What is granted now.
    fn granted(&self) -> Result<CapabilitySet, LearnError> {
        let learned = self.lesson.learned.iter().filter(|learned| learned.is_needed);
        let all: BTreeSet<&Capability> =
            self.fixed.iter().chain(learned.map(|learned| &learned.capability)).collect();
        Ok(CapabilitySet::try_from_iter(all.into_iter().cloned())?)
    }

    fn finish(mut self, later: &[Capability]) -> Result<Lesson, LearnError> {
        // What is there with qualifiers stays so: a right is in a list once.
        let is_there = |one: &&Capability| later.iter().any(|other| other.right() == one.right());
        let learnt = self.granted()?;
        let all: BTreeSet<&Capability> = learnt.iter().filter(|one| !is_there(one)).chain(later).collect();
        let all = all.into_iter().cloned();
        self.lesson.capabilities = CapabilitySet::try_from_iter(all)?;
        self.lesson.leave_out_ways();
        let crowded = crate::lesson::crowded(&self.lesson.capabilities);
        for (capability, count) in crowded {
            if self.check(&capability)?.is_ok() {
                let files = self.count(&capability, count);
                let because = format!("{count} of its files are on the list");
                self.lesson.suggestions.push(Suggestion { capability, files, because, need: None });
            }
        }
        Ok(self.lesson)
    }
}

/// What to think of before a capability is granted for a need: of its name, and of what that leads to.
fn cautions(capability: &Capability, need: &Need) -> Option<Caution> {
    caution::of(capability).or_else(|| need.real.as_ref().and_then(caution::of))
}

/// Whether a capability lets write a path, something in it, or what it is in.
fn writes_in(capability: &Capability, kept: &Path) -> bool {
    use aos_core::capability::{KernelPrefix, Right};
    let Right::FileWrite(pattern) = capability.right() else { return false };
    match pattern.kernel_prefix() {
        KernelPrefix::Exact(path) | KernelPrefix::Subtree(path) | KernelPrefix::Glob { below: path } => {
            path.as_path().starts_with(kept) || kept.starts_with(path.as_path())
        }
    }
}

/// The path of a capability on files, without `/**`.
fn path_of(capability: &Capability) -> Option<AbsolutePath> {
    use aos_core::capability::KernelPrefix;
    match capability.pattern()?.kernel_prefix() {
        KernelPrefix::Exact(path) | KernelPrefix::Subtree(path) => Some(path),
        KernelPrefix::Glob { .. } => None,
    }
}

/// The capability on the whole directory of an exact one's file.
pub(crate) fn directory_of(capability: &Capability) -> Option<Capability> {
    let directory = path_of(capability)?.parent()?;
    let line = format!("{}: {}/**", capability.name(), directory.as_str().trim_end_matches('/'));
    line.parse().ok()
}

#[cfg(test)]
mod tests;
