//! What a run turned out to need and did not have: proposals, counted and bounded.

use std::collections::{BTreeMap, BTreeSet};

use aos_core::capability::{Capability, PathPattern, Right};
use aos_core::path::AbsolutePath;
use aos_sandbox::record::Want;

/// Different needs of one run. An agent that looks at everything makes no record of everything.
pub const NEEDS_MAX: usize = 1000;
/// Programs that are named for a need.
const PROGRAMS_MAX: usize = 4;

/// What could be done about a need.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proposal {
    /// Exactly what was asked for is a capability.
    Exact(Capability),
    /// Only a capability on the whole directory would do.
    Directory {
        /// It.
        capability: Capability,
        /// Why an exact one does not do.
        because: &'static str,
    },
    /// No capability does.
    Nothing {
        /// What was asked for, in the form of a capability.
        what: String,
        /// Why not.
        why: String,
    },
}

impl Proposal {
    /// The capability, or what is in its place.
    pub fn subject(&self) -> String {
        match self {
            Self::Exact(capability) | Self::Directory { capability, .. } => capability.to_string(),
            Self::Nothing { what, .. } => what.clone(),
        }
    }
}

/// One need of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// What could be done about it.
    pub proposal: Proposal,
    /// The greatest use that was asked for.
    pub want: Want,
    /// The system call that asked first.
    pub call: &'static str,
    /// Its place in the order in which needs came up.
    pub order: usize,
    /// How often it was asked for.
    pub count: u64,
    /// The names of programs that asked, a few of them: text that the agent chose.
    pub programs: BTreeSet<String>,
    /// The capability on what the path is by its links, where that is another one.
    pub real: Option<Capability>,
}

impl Need {
    /// Whether it was only looked at: many programs look at what they can do without.
    pub fn is_weak(&self) -> bool {
        self.want == Want::Look
    }
}

/// One use, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) proposal: Proposal,
    pub(crate) want: Want,
    /// As [`Need::real`].
    pub(crate) real: Option<Capability>,
}

/// The needs of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    needs: BTreeMap<String, Need>,
    /// Needs beyond [`NEEDS_MAX`], each time that one was asked for.
    pub cut: u64,
    /// Calls that were recorded.
    pub calls: u64,
    /// Calls whose arguments could not be read.
    pub unreadable: u64,
}

impl Record {
    /// Adds one use.
    pub(crate) fn add(&mut self, found: Found, call: &'static str, program: &str) {
        let order = self.needs.len();
        let key = found.proposal.subject();
        if order >= NEEDS_MAX && !self.needs.contains_key(&key) {
            self.cut = self.cut.saturating_add(1);
            return;
        }
        let Found { proposal, want, real } = found;
        let is_exact = matches!(proposal, Proposal::Exact(_));
        let need = self.needs.entry(key.clone()).or_insert_with(|| Need {
            proposal,
            want,
            call,
            order,
            count: 0,
            programs: BTreeSet::new(),
            real: real.clone(),
        });
        if is_exact && need.real != real {
            let why = "where it leads changed while the agent ran".to_owned();
            need.proposal = Proposal::Nothing { what: key, why };
        }
        need.want = need.want.max(want);
        need.count = need.count.saturating_add(1);
        if need.programs.len() < PROGRAMS_MAX {
            need.programs.insert(program.to_owned());
        }
    }

    /// The needs in the order in which they came up, without reading what is executed, which comes with
    /// that. Reading what is written comes after the writing: that may not be granted, or be all.
    pub fn needs(&self) -> Vec<Need> {
        let has = |capability: Capability| {
            self.needs
                .get(&capability.to_string())
                .is_some_and(|need| matches!(need.proposal, Proposal::Exact(_)))
        };
        let is_covered = |need: &&Need| match &need.proposal {
            Proposal::Exact(capability) => match capability.right() {
                Right::FileRead(pattern) => has(Right::Exec(pattern.clone()).into()),
                _ => false,
            },
            _ => false,
        };
        let mut needs: Vec<Need> = self.needs.values().filter(|need| !is_covered(need)).cloned().collect();
        needs.sort_by_key(|need| {
            let written = match &need.proposal {
                Proposal::Exact(capability) => match capability.right() {
                    Right::FileRead(pattern) => Some(Capability::from(Right::FileWrite(pattern.clone()))),
                    _ => None,
                },
                _ => None,
            };
            let written = written.and_then(|written| self.needs.get(&written.to_string()));
            written.map_or((need.order, 0), |written| (written.order.max(need.order), 1))
        });
        needs
    }
}

/// The capability for exactly this path, or why there is none.
pub(crate) fn exact(want: Want, path: &AbsolutePath) -> Proposal {
    match PathPattern::exact(path) {
        Some(pattern) => Proposal::Exact(of_pattern(want, pattern)),
        None => unnameable(want, path.as_str()),
    }
}

/// The capability for everything below a directory.
pub(crate) fn below(want: Want, directory: &AbsolutePath, because: &'static str) -> Proposal {
    let text = format!("{}/**", directory.as_str().trim_end_matches('/'));
    match (PathPattern::exact(directory), text.parse()) {
        (Some(_), Ok(pattern)) => Proposal::Directory { capability: of_pattern(want, pattern), because },
        _ => unnameable(want, &text),
    }
}

/// A path that no capability can name.
pub(crate) fn unnameable(want: Want, path: &str) -> Proposal {
    let why = "the name has characters that no capability can have".to_owned();
    Proposal::Nothing { what: format!("{}: {path}", name_of(want)), why }
}

/// The name of the capability that gives a use.
pub(crate) const fn name_of(want: Want) -> &'static str {
    match want {
        Want::Look | Want::Read => "file_read",
        Want::Write | Want::Entry => "file_write",
        Want::Execute => "exec",
    }
}

fn of_pattern(want: Want, pattern: PathPattern) -> Capability {
    let right = match want {
        Want::Look | Want::Read => Right::FileRead(pattern),
        Want::Write | Want::Entry => Right::FileWrite(pattern),
        Want::Execute => Right::Exec(pattern),
    };
    right.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str, want: Want) -> Found {
        Found { proposal: Proposal::Exact(line.parse().unwrap()), want, real: None }
    }

    #[test]
    fn what_leads_elsewhere_each_time_is_not_proposed() {
        let leads =
            |to: &str| Found { real: Some(to.parse().unwrap()), ..found("exec: /app/l", Want::Execute) };
        let mut record = Record::default();
        record.add(leads("exec: /usr/bin/a"), "execve", "sh");
        record.add(leads("exec: /usr/bin/a"), "execve", "sh");
        assert!(matches!(record.needs()[0].proposal, Proposal::Exact(_)));
        record.add(leads("exec: /usr/bin/b"), "execve", "sh");
        assert!(matches!(record.needs()[0].proposal, Proposal::Nothing { .. }));
        assert_eq!(record.needs()[0].proposal.subject(), "exec: /app/l");
    }

    #[test]
    fn needs_are_counted_once_and_reading_comes_with_executing() {
        let mut record = Record::default();
        record.add(found("file_read: /a", Want::Look), "stat", "sh");
        record.add(found("file_read: /b", Want::Read), "openat", "sh");
        record.add(found("file_read: /a", Want::Read), "openat", "cat");
        record.add(found("file_read: /c", Want::Read), "openat", "sh");
        record.add(found("file_write: /b", Want::Write), "openat", "sh");
        record.add(found("exec: /c", Want::Execute), "execve", "sh");
        let needs = record.needs();
        assert_eq!(
            needs.iter().map(|need| need.proposal.subject()).collect::<Vec<_>>(),
            ["file_read: /a", "file_write: /b", "file_read: /b", "exec: /c"]
        );
        assert_eq!((needs[0].count, needs[0].call, needs[0].want), (2, "stat", Want::Read));
        assert_eq!(needs[0].programs.iter().collect::<Vec<_>>(), ["cat", "sh"]);
    }

    #[test]
    fn a_flood_is_cut() {
        let mut record = Record::default();
        for number in 0..NEEDS_MAX + 500 {
            record.add(found(&format!("file_read: /srv/{number}"), Want::Read), "openat", "sh");
        }
        record.add(found("file_read: /srv/0", Want::Read), "openat", "sh");
        assert_eq!((record.needs().len(), record.cut), (NEEDS_MAX, 500));
        assert_eq!(record.needs()[0].count, 2);
    }

    #[test]
    fn names_outside_the_grammar_are_told() {
        let odd = "/srv/a[1]".parse().unwrap();
        assert!(matches!(exact(Want::Read, &odd), Proposal::Nothing { .. }));
        assert!(matches!(below(Want::Read, &odd, ""), Proposal::Nothing { .. }));
        let star = "/srv/*".parse().unwrap();
        assert!(matches!(exact(Want::Read, &star), Proposal::Nothing { .. }));
    }
}
