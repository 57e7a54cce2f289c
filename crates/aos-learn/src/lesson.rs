//! What was learnt.

use std::collections::BTreeMap;

use aos_core::capability::{Capability, CapabilitySet};

use crate::launch::Ending;
use crate::learn::directory_of;
use crate::need::Need;

/// Files of one directory on a list from which on the directory is suggested.
const CROWD: usize = 5;

/// A capability that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// It.
    pub capability: Capability,
    /// What it is for.
    pub need: Need,
    /// Of one on a directory, how many other files it grants now.
    pub files: Option<usize>,
    /// Whether it is on the list: the run did not pass without it, or that was not tried.
    pub is_needed: bool,
}

/// A capability that was not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// It.
    pub capability: Capability,
    /// Why not.
    pub why: String,
    /// What it would be for.
    pub need: Need,
}

/// A capability on a directory, to think about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// It.
    pub capability: Capability,
    /// How many other files it would grant now.
    pub files: usize,
    /// Why it is suggested.
    pub because: String,
    /// What asked for it.
    pub need: Option<Need>,
}

/// Something that no capability gives, or that this machine or the plan refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// It, in the form of a capability.
    pub what: String,
    /// Why.
    pub why: String,
    /// What asked for it.
    pub need: Need,
}

/// What was learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lesson {
    /// The whole list.
    pub capabilities: CapabilitySet,
    /// What was granted, in the order in which it was asked for.
    pub learned: Vec<Learned>,
    /// What was not.
    pub denied: Vec<Denied>,
    /// Directories.
    pub suggestions: Vec<Suggestion>,
    /// What nothing gives.
    pub refused: Vec<Refused>,
    /// Runs that were made.
    pub runs: u32,
    /// How the last run ended that looked for what is missing.
    pub ending: Option<Ending>,
    /// Whether the run passes with this list.
    pub passed: bool,
    /// Whether the rounds were used up before that was known.
    pub is_exhausted: bool,
    /// Whether it was tried to do without each.
    pub is_minimised: bool,
    /// Uses that no room was left for in the record of a run.
    pub cut: u64,
    /// Calls of a run whose arguments could not be read.
    pub unreadable: u64,
}

impl Lesson {
    pub(crate) const fn new() -> Self {
        Self {
            capabilities: CapabilitySet::new(),
            learned: Vec::new(),
            denied: Vec::new(),
            suggestions: Vec::new(),
            refused: Vec::new(),
            runs: 0,
            ending: None,
            passed: false,
            is_exhausted: false,
            is_minimised: false,
            cut: 0,
            unreadable: 0,
        }
    }

    /// Leaves out folders that were only looked at on the way to something that is told anyway.
    pub(crate) fn leave_out_ways(&mut self) {
        let told: Vec<Capability> = self
            .suggestions
            .iter()
            .map(|suggestion| &suggestion.capability)
            .chain(self.learned.iter().map(|learned| &learned.capability))
            .cloned()
            .collect();
        let is_way = |suggestion: &Suggestion| {
            let inner =
                |other: &Capability| *other != suggestion.capability && suggestion.capability.covers(other);
            suggestion.need.as_ref().is_some_and(Need::is_weak) && told.iter().any(inner)
        };
        self.suggestions.retain(|suggestion| !is_way(suggestion));
    }
}

/// Directories with many files on a list, each with their number.
pub(crate) fn crowded(capabilities: &CapabilitySet) -> Vec<(Capability, usize)> {
    let mut counts: BTreeMap<Capability, usize> = BTreeMap::new();
    for capability in capabilities {
        let is_exact = capability.pattern().is_some_and(|pattern| !pattern.as_str().ends_with("/**"));
        if let Some(directory) = directory_of(capability).filter(|_| is_exact) {
            *counts.entry(directory).or_default() += 1;
        }
    }
    counts
        .into_iter()
        .filter(|(directory, count)| *count >= CROWD && !capabilities.contains(directory))
        .collect()
}
