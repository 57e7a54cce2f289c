//! Sets of versions that are exact on the versions that exist.
//!
//! A requirement of semantic versions is no interval: `^1` leaves out the pre-releases between its ends. So a set is
//! kept as the versions in it, or as the versions not in it: finite or cofinite, each set in one representation,
//! which is what `PubGrub` asks of a set.

use std::collections::BTreeSet;
use std::fmt;

use aos_core::id::Version;
use pubgrub::VersionSet;

/// A finite set of versions, or all versions but those of a finite set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// These and no others.
    Among(BTreeSet<Version>),
    /// Every version that is not one of these.
    AllBut(BTreeSet<Version>),
}

impl VersionSet for Choice {
    type V = Version;

    fn empty() -> Self {
        Self::Among(BTreeSet::new())
    }

    fn singleton(version: Version) -> Self {
        Self::Among(BTreeSet::from([version]))
    }

    fn complement(&self) -> Self {
        match self {
            Self::Among(versions) => Self::AllBut(versions.clone()),
            Self::AllBut(versions) => Self::Among(versions.clone()),
        }
    }

    fn intersection(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Among(left), Self::Among(right)) => {
                Self::Among(left.intersection(right).cloned().collect())
            }
            (Self::Among(some), Self::AllBut(without)) | (Self::AllBut(without), Self::Among(some)) => {
                Self::Among(some.difference(without).cloned().collect())
            }
            (Self::AllBut(left), Self::AllBut(right)) => Self::AllBut(left.union(right).cloned().collect()),
        }
    }

    fn contains(&self, version: &Version) -> bool {
        match self {
            Self::Among(versions) => versions.contains(version),
            Self::AllBut(versions) => !versions.contains(version),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, versions) = match self {
            Self::Among(versions) => ("", versions),
            Self::AllBut(versions) => ("not ", versions),
        };
        f.write_str(prefix)?;
        f.debug_set().entries(versions.iter().map(Version::to_string)).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version() -> impl Strategy<Value = Version> {
        (0_u64..3, 0_u64..2).prop_map(|(major, minor)| Version::new(major, minor, 0))
    }

    fn choice() -> impl Strategy<Value = Choice> {
        (any::<bool>(), proptest::collection::btree_set(version(), 0..5)).prop_map(|(among, versions)| {
            if among { Choice::Among(versions) } else { Choice::AllBut(versions) }
        })
    }

    proptest! {
        #[test]
        fn it_is_an_algebra_of_sets(a in choice(), b in choice(), v in version()) {
            prop_assert_eq!(a.intersection(&b).contains(&v), a.contains(&v) && b.contains(&v));
            prop_assert_eq!(a.union(&b).contains(&v), a.contains(&v) || b.contains(&v));
            prop_assert_eq!(a.complement().contains(&v), !a.contains(&v));
            prop_assert_eq!(a.complement().complement(), a.clone());
            prop_assert_eq!(a.intersection(&b), b.intersection(&a));
            prop_assert_eq!(a.is_disjoint(&b), a.intersection(&b) == Choice::empty());
            prop_assert_eq!(a.subset_of(&b), a.union(&b) == b);
        }
    }
}
