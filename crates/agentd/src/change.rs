//! Changes of what an agent may do, and what enforces each capability: the algebra, without an agent.
//!
//! A change gives a new set or says why not; it never widens but by [`Change::Grant`]. Which part of a change can be
//! in force without a new start follows from who enforces it: the kernel's rules are made when a run begins, the
//! broker asks at each use.

use aos_client::{CapabilityView, ChangedView};
use aos_core::capability::{Capability, CapabilitySet, Right, SetError};

use crate::agent::change::Changed;
use crate::db::{AgentRecord, Origin, Provenance};

/// What somebody wants to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// These too.
    Grant(CapabilitySet),
    /// Exactly these, each part of what there is.
    Narrow(CapabilitySet),
    /// None of these any more.
    Revoke(CapabilitySet),
}

/// What happens to a run that has what the change takes away, or lacks what it gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Apply {
    /// It goes on as it is.
    #[default]
    NextStart,
    /// It is stopped and started again.
    Restart,
    /// It is stopped.
    Stop,
}

/// How a change took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is in force.
    Now,
    /// A new run began with it.
    Restart,
    /// The next run has it; what runs goes on with what it had.
    NextStart,
    /// The run that had something else was stopped.
    Stopped,
}

impl Effect {
    /// The word of the answer.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Restart => "restart",
            Self::NextStart => "next-start",
            Self::Stopped => "stopped",
        }
    }
}

/// Why a change cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The set would not be one.
    #[error(transparent)]
    Set(SetError),
    /// It would have more than before.
    #[error("`{0}` is not part of anything that the agent may do; more is given by `aos capability grant`")]
    Wider(String),
    /// It does not have it, nor a part of it.
    #[error("the agent does not have `{0}`; `aos capability list` shows what it has")]
    NotHeld(String),
    /// It has more than that, and a set has no holes.
    #[error("`{part}` is a part of `{whole}`: revoke that and grant what shall stay, or narrow to it")]
    PartOf {
        /// What was to be revoked.
        part: String,
        /// What the agent has.
        whole: String,
    },
    /// Another capability permits the same.
    #[error("`{by}` permits `{revoked}` as well: revoke both")]
    StillPermitted {
        /// What was to be revoked.
        revoked: String,
        /// What the agent would keep.
        by: String,
    },
}

impl Change {
    /// Whether the agent gets more by it.
    #[must_use]
    pub const fn is_grant(&self) -> bool {
        matches!(self, Self::Grant(_))
    }

    /// What a revocation leaves in part: reading, where a capability that stays permits writing.
    pub(crate) fn still_permitted(&self, new: &CapabilitySet) -> Option<String> {
        let Self::Revoke(revoked) = self else { return None };
        let by_write = |one: &&Capability| {
            let Right::FileWrite(pattern) = one.right() else { return false };
            let read = Right::FileRead(pattern.clone());
            revoked.iter().any(|gone| gone.right().covers(&read))
        };
        let by: Vec<String> = new.iter().filter(by_write).map(|one| format!("`{one}`")).collect();
        (!by.is_empty())
            .then(|| format!("what {} names can still be read: writing includes reading", by.join(", ")))
    }

    /// The set after the change. One that changes nothing is no error.
    pub fn apply(&self, current: &CapabilitySet) -> Result<CapabilitySet, ChangeError> {
        match self {
            Self::Grant(more) => {
                let mut new = current.clone();
                // A right that it has with stricter qualifiers gets those that are granted.
                let is_more =
                    |one: &&Capability| current.get(one.right()).is_none_or(|mine| !mine.covers(one));
                more.iter()
                    .filter(is_more)
                    .try_for_each(|one| new.replace(one.clone()))
                    .map_err(ChangeError::Set)?;
                Ok(new)
            }
            Self::Narrow(to) => current.narrow(to.clone()).map_err(|error| match error {
                SetError::Wider(capability) => ChangeError::Wider(capability),
                error => ChangeError::Set(error),
            }),
            Self::Revoke(revoked) => revoke(current, revoked),
        }
    }
}

fn revoke(current: &CapabilitySet, revoked: &CapabilitySet) -> Result<CapabilitySet, ChangeError> {
    for one in revoked {
        if current.iter().any(|mine| one.covers(mine)) {
            continue;
        }
        return Err(match current.iter().find(|mine| mine.covers(one)) {
            Some(whole) => ChangeError::PartOf { part: one.to_string(), whole: whole.to_string() },
            None => ChangeError::NotHeld(one.to_string()),
        });
    }
    let kept = current.iter().filter(|mine| !revoked.covers(mine)).cloned();
    let kept = CapabilitySet::try_from_iter(kept).map_err(ChangeError::Set)?;
    for one in revoked {
        if let Some(by) = kept.iter().find(|mine| mine.right().covers(one.right())) {
            return Err(ChangeError::StillPermitted { revoked: one.to_string(), by: by.to_string() });
        }
    }
    Ok(kept)
}

/// Who holds an agent to `capability`: the kernel, or the broker, which is asked at each use.
#[must_use]
pub fn enforced_by(capability: &Capability) -> &'static str {
    match (capability.right().is_of_kernel(), capability.pattern()) {
        (true, Some(_)) => "kernel: mount tree, Landlock",
        (true, None) => "kernel: Landlock, network namespace",
        (false, _) => "broker",
    }
}

/// Whether a run that was given `given` is held to `declared` without a new start.
#[must_use]
pub fn is_in_force(given: &CapabilitySet, declared: &CapabilitySet) -> bool {
    let of_kernel = |capability: &&Capability| capability.right().is_of_kernel();
    given.iter().filter(of_kernel).eq(declared.iter().filter(of_kernel))
}

/// The capabilities of a record as they are shown; `runs` when a run goes on.
pub(crate) fn views(record: &AgentRecord, runs: bool) -> Vec<CapabilityView> {
    let declared = &record.spec.capabilities;
    let given = record.in_force.as_ref().filter(|_| runs);
    let of_package = Provenance { origin: Origin::Package, since_us: record.created_at_us };
    let view = |one: &Capability| {
        let is_declared = declared.contains(one);
        let line = one.to_string();
        let provenance = record.origins.get(&line).copied().unwrap_or(of_package);
        CapabilityView {
            enforced_by: enforced_by(one).to_owned(),
            declared: is_declared,
            in_force: runs.then(|| given.map_or(is_declared, |given| given.contains(one))),
            origin: is_declared.then(|| provenance.origin.as_str().to_owned()),
            since_us: is_declared.then_some(provenance.since_us),
            capability: line,
        }
    };
    let gone = given.into_iter().flatten().filter(|one| !declared.contains(one));
    let mut all: Vec<&Capability> = declared.iter().chain(gone).collect();
    all.sort();
    all.into_iter().map(view).collect()
}

/// A change as it is shown.
pub(crate) fn view(changed: Changed) -> ChangedView {
    ChangedView {
        effect: changed.effect.as_str().to_owned(),
        capabilities: changed.capabilities.to_lines(),
        in_force: changed.in_force.as_ref().map(CapabilitySet::to_lines),
        note: changed.note,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(lines: &[&str]) -> CapabilitySet {
        CapabilitySet::parse(lines.iter().copied()).unwrap()
    }

    const HAS: [&str; 4] =
        ["file_read: /srv/**", "file_write: /srv/out/**", "exec: /usr/bin/git", "listen: 80"];

    #[test]
    fn each_change_and_its_refusals() {
        let has = set(&HAS);
        let revoke = |lines: &[&str]| Change::Revoke(set(lines)).apply(&has);
        assert_eq!(revoke(&["listen: 80"]).unwrap().len(), 3);
        assert_eq!(revoke(&["exec: /usr/**"]).unwrap(), set(&[HAS[0], HAS[1], HAS[3]]), "all below it");
        assert_eq!(revoke(&[]).unwrap(), has);
        for (lines, says) in [
            (&["listen: 81"][..], "does not have `listen: 81`"),
            (&["file_read: /srv/a"], "a part of `file_read: /srv/**`"),
            (&["listen: 80", "exec: /bin/**"], "does not have `exec: /bin/**`"),
        ] {
            let error = revoke(lines).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let both = set(&["file_read: /srv/**", "file_write: /srv/**"]);
        let error = Change::Revoke(set(&["file_read: /srv/**"])).apply(&both).unwrap_err().to_string();
        assert!(error.contains("`file_write: /srv/**` permits `file_read: /srv/**` as well"), "{error}");
        let partly = Change::Revoke(set(&["file_read: /srv/**"]));
        let note = partly.still_permitted(&partly.apply(&has).unwrap()).unwrap();
        assert_eq!(note, "what `file_write: /srv/out/**` names can still be read: writing includes reading");
        assert_eq!(Change::Revoke(set(&["listen: 80"])).still_permitted(&has), None);
        let all = Change::Revoke(set(&["file_read: /srv/**", "file_write: /srv/**"])).apply(&both);
        assert_eq!(all, Ok(CapabilitySet::new()));

        let narrowed = Change::Narrow(set(&["file_read: /srv/a", "listen: 80"]));
        assert_eq!(narrowed.apply(&has).unwrap().to_lines(), ["file_read: /srv/a", "listen: 80"]);
        let error = Change::Narrow(set(&["file_read: /etc"])).apply(&has).unwrap_err().to_string();
        assert!(error.contains("`file_read: /etc` is not part of anything"), "{error}");
        assert_eq!(Change::Narrow(set(&[])).apply(&has), Ok(CapabilitySet::new()));

        let granted = Change::Grant(set(&["listen: 80", "listen: 81"])).apply(&has).unwrap();
        assert_eq!(granted.len(), 5);
        let limited = set(&["listen: 80 [max_calls=1]"]);
        assert_eq!(Change::Grant(limited.clone()).apply(&has), Ok(has.clone()), "it has more than that");
        assert_eq!(Change::Grant(set(&["listen: 80"])).apply(&limited), Ok(set(&["listen: 80"])));
        assert_eq!(Change::Revoke(set(&["listen: 80"])).apply(&limited), Ok(CapabilitySet::new()));
        let error = Change::Narrow(set(&["listen: 80"])).apply(&limited).unwrap_err();
        assert!(matches!(error, ChangeError::Set(SetError::Laxer { .. })), "{error}");
        assert_eq!(Change::Grant(granted.clone()).apply(&granted), Ok(granted));
    }

    #[test]
    fn what_the_kernel_enforces_needs_a_start() {
        let has = set(&HAS);
        assert!(is_in_force(&has, &has));
        assert!(!is_in_force(&has, &set(&HAS[1..])) && !is_in_force(&set(&HAS[1..]), &has));
        let more = Change::Grant(set(&["net: a.org:443"])).apply(&has).unwrap();
        assert!(is_in_force(&has, &more) && is_in_force(&more, &has));
        let words: Vec<_> = more.iter().map(enforced_by).collect();
        assert_eq!(words.iter().filter(|words| words.starts_with("kernel")).count(), 4);
    }

    fn sets() -> impl Strategy<Value = CapabilitySet> {
        let path = "(/(a|b)){1,2}(/\\*\\*)?";
        let one = prop_oneof![
            path.prop_map(|path| format!("file_read: {path}").parse::<Capability>().unwrap()),
            path.prop_map(|path| format!("file_write: {path}").parse().unwrap()),
            (1..4_u16).prop_map(|port| Capability::from(aos_core::capability::Right::Listen(port))),
        ];
        prop::collection::btree_set(one, 0..5).prop_map(|set| CapabilitySet::try_from_iter(set).unwrap())
    }

    proptest! {
        #[test]
        fn what_is_revoked_is_gone_and_only_a_grant_widens(current in sets(), other in sets()) {
            if let Ok(after) = Change::Revoke(other.clone()).apply(&current) {
                prop_assert!(after.is_subset(&current));
                prop_assert!(!other.iter().any(|revoked| after.covers(revoked)));
            }
            if let Ok(after) = Change::Narrow(other.clone()).apply(&current) {
                prop_assert!(after.is_subset(&current) && after == other);
            }
            let after = Change::Grant(other.clone()).apply(&current).unwrap();
            prop_assert!(current.is_subset(&after) && other.is_subset(&after));
        }
    }
}
