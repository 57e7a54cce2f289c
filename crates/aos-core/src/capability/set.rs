//! Sets of capabilities: ordered, without duplicates, bounded.

use super::{Access, Capability, CapabilityError};
use crate::quoted::Quoted;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeSet, btree_set};
use std::fmt;
use thiserror::Error;

/// Members of a set. Each becomes mounts and kernel rules of every start.
pub const CAPABILITIES_MAX: usize = 256;

/// Why capabilities do not make a set, or why one set is not a narrowing of another.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SetError {
    /// A capability appears twice.
    #[error("capability {} appears twice", Quoted(.0))]
    Duplicate(String),
    /// There are too many.
    #[error("more than {CAPABILITIES_MAX} capabilities")]
    TooMany,
    /// The text of one is wrong.
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    /// The child asks for what the parent has not.
    #[error("capability {} is not covered by any capability of the parent", Quoted(.0))]
    Wider(String),
}

/// What an agent may do, in canonical order. Empty means nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct CapabilitySet(BTreeSet<Capability>);

impl CapabilitySet {
    /// The empty set.
    pub const fn new() -> Self {
        Self(BTreeSet::new())
    }

    /// Adds a capability; one that is there already is an error.
    pub fn insert(&mut self, capability: Capability) -> Result<(), SetError> {
        if self.0.contains(&capability) {
            return Err(SetError::Duplicate(capability.to_string()));
        }
        if self.0.len() >= CAPABILITIES_MAX {
            return Err(SetError::TooMany);
        }
        self.0.insert(capability);
        Ok(())
    }

    /// The set of these capabilities.
    pub fn try_from_iter(items: impl IntoIterator<Item = Capability>) -> Result<Self, SetError> {
        let mut set = Self::new();
        items.into_iter().try_for_each(|capability| set.insert(capability))?;
        Ok(set)
    }

    /// The set of these lines of the grammar.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, SetError> {
        let mut set = Self::new();
        for line in lines {
            set.insert(line.parse()?)?;
        }
        Ok(set)
    }

    /// The members in canonical order.
    pub fn iter(&self) -> btree_set::Iter<'_, Capability> {
        self.0.iter()
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when exactly this capability is a member.
    pub fn contains(&self, capability: &Capability) -> bool {
        self.0.contains(capability)
    }

    /// True when a member allows `access`.
    pub fn permits(&self, access: &Access) -> bool {
        self.0.iter().any(|capability| capability.permits(access))
    }

    /// True when one member covers `capability`.
    pub fn covers(&self, capability: &Capability) -> bool {
        self.0.iter().any(|mine| mine.covers(capability))
    }

    /// True when `other` covers each member.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.0.iter().all(|capability| other.covers(capability))
    }

    /// Accepts `child` as a delegation of this set: the first member that is not covered is an
    /// error that names it.
    pub fn narrow(&self, child: Self) -> Result<Self, SetError> {
        match child.0.iter().find(|capability| !self.covers(capability)) {
            Some(wider) => Err(SetError::Wider(wider.to_string())),
            None => Ok(child),
        }
    }

    /// The members as lines of the grammar, in canonical order.
    pub fn to_lines(&self) -> Vec<String> {
        self.0.iter().map(Capability::to_string).collect()
    }
}

impl<'a> IntoIterator for &'a CapabilitySet {
    type Item = &'a Capability;
    type IntoIter = btree_set::Iter<'a, Capability>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl Serialize for CapabilitySet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

struct SetVisitor;

impl<'de> Visitor<'de> for SetVisitor {
    type Value = CapabilitySet;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of capabilities")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<CapabilitySet, A::Error> {
        let mut set = CapabilitySet::new();
        while let Some(capability) = list.next_element()? {
            set.insert(capability).map_err(A::Error::custom)?;
        }
        Ok(set)
    }
}

impl<'de> Deserialize<'de> for CapabilitySet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(SetVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn duplicates_and_excess_are_errors() {
        let twice = CapabilitySet::parse(["listen: 1", "listen:1"]).unwrap_err();
        assert_eq!(twice.to_string(), "capability `listen: 1` appears twice");
        let many: Vec<String> = (1..=300).map(|port| format!("listen: {port}")).collect();
        assert_eq!(CapabilitySet::parse(many.iter().map(String::as_str)), Err(SetError::TooMany));
        assert!(serde_json::from_str::<CapabilitySet>(r#"["listen: 1","listen: 1"]"#).is_err());
    }

    #[test]
    fn order_is_canonical() {
        let one = CapabilitySet::parse(["listen: 1", "exec: /b", "file_read: /z", "file_read: /a"]).unwrap();
        let other =
            CapabilitySet::parse(["file_read: /a", "file_read: /z", "listen: 1", "exec: /b"]).unwrap();
        assert_eq!(serde_json::to_string(&one).unwrap(), serde_json::to_string(&other).unwrap());
        assert_eq!(one.to_lines(), ["file_read: /a", "file_read: /z", "exec: /b", "listen: 1"]);
    }

    #[test]
    fn the_first_wider_member_is_named() {
        let parent = CapabilitySet::parse(["file_write: /w/**", "net: *.a.org:443"]).unwrap();
        let child = CapabilitySet::parse(["file_read: /w/x", "net: b.a.org:443"]).unwrap();
        assert_eq!(parent.narrow(child.clone()), Ok(child));
        let wide = CapabilitySet::parse(["file_read: /v"]).unwrap();
        assert!(parent.narrow(wide).unwrap_err().to_string().contains("`file_read: /v`"));
    }

    fn capabilities() -> impl Strategy<Value = Capability> {
        let path = "(/(a|b|\\*|a\\*)){1,3}(/\\*\\*)?";
        let host = "(\\*\\.)?(a\\.)?(a|b)\\.org";
        prop_oneof![
            path.prop_map(|p| format!("file_read: {p}").parse().unwrap()),
            path.prop_map(|p| format!("file_write: {p}").parse().unwrap()),
            path.prop_map(|p| format!("exec: {p}").parse().unwrap()),
            (host, 1..4_u16).prop_map(|(h, p)| format!("net: {h}:{p}").parse().unwrap()),
            (1..4_u16).prop_map(Capability::Listen),
        ]
    }

    fn sets() -> impl Strategy<Value = CapabilitySet> {
        prop::collection::btree_set(capabilities(), 0..5).prop_map(CapabilitySet)
    }

    fn accesses() -> impl Strategy<Value = Access> {
        let path = "(/(a|b|ab)){1,4}".prop_map(|p| p.parse().unwrap());
        let host = "(a\\.|b\\.)?(a\\.)?(a|b)\\.org".prop_map(|h| h.parse().unwrap());
        prop_oneof![
            path.clone().prop_map(Access::FileRead),
            path.clone().prop_map(Access::FileWrite),
            path.prop_map(Access::Exec),
            (host, 1..4_u16).prop_map(|(h, p)| Access::Net(h, p)),
            (1..4_u16).prop_map(Access::Listen),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn narrowing_only_narrows(parent in sets(), child in sets(), access in accesses()) {
            if let Ok(narrowed) = parent.narrow(child) {
                prop_assert!(!narrowed.permits(&access) || parent.permits(&access));
            }
        }

        #[test]
        fn coverage_is_a_partial_order(a in capabilities(), b in capabilities(), c in capabilities()) {
            prop_assert!(a.covers(&a));
            prop_assert!(!(a.covers(&b) && b.covers(&a)) || a == b);
            prop_assert!(!(a.covers(&b) && b.covers(&c)) || a.covers(&c));
        }

        #[test]
        fn text_and_json_round_trip(set in sets()) {
            let lines = set.to_lines();
            prop_assert_eq!(CapabilitySet::parse(lines.iter().map(String::as_str)).unwrap(), set.clone());
            let json = serde_json::to_string(&set).unwrap();
            prop_assert_eq!(serde_json::from_str::<CapabilitySet>(&json).unwrap(), set);
        }
    }
}
