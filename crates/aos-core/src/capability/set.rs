//! Sets of capabilities: ordered, without duplicates, bounded.

use super::{Access, Capability, CapabilityError, Circumstances, Right};
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
    #[error(
        "more than {CAPABILITIES_MAX} capabilities: name a directory with `/**` instead of its files, or a host with `*.` instead of its parts"
    )]
    TooMany,
    /// The text of one is wrong.
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    /// The child asks for what the parent has not.
    #[error("capability {} is not covered by any capability of the parent", Quoted(.0))]
    Wider(String),
    /// The child asks for what the parent has with stricter qualifiers.
    #[error("capability {} is wider than the parent's {}: it has the parent's qualifiers or stricter ones", Quoted(.child), Quoted(.parent))]
    Laxer {
        /// What the child asks for.
        child: String,
        /// What the parent has.
        parent: String,
    },
}

/// What an agent may do, in canonical order. Empty means nothing. Each right is there once: with two sets
/// of qualifiers for one right nobody could say which of them holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct CapabilitySet(BTreeSet<Capability>);

impl CapabilitySet {
    /// The empty set.
    pub const fn new() -> Self {
        Self(BTreeSet::new())
    }

    /// Adds a capability; one that is there already, with whatever qualifiers, is an error.
    pub fn insert(&mut self, capability: Capability) -> Result<(), SetError> {
        if self.get(capability.right()).is_some() {
            return Err(SetError::Duplicate(capability.right().to_string()));
        }
        if self.0.len() >= CAPABILITIES_MAX {
            return Err(SetError::TooMany);
        }
        self.0.insert(capability);
        Ok(())
    }

    /// Adds a capability in the place of the one with the same right.
    pub fn replace(&mut self, capability: Capability) -> Result<(), SetError> {
        if let Some(old) = self.get(capability.right()).cloned() {
            self.0.remove(&old);
        }
        self.insert(capability)
    }

    /// The member with this right.
    pub fn get(&self, right: &Right) -> Option<&Capability> {
        // No qualifiers come first in the order.
        let least = Capability::from(right.clone());
        self.0.range(least..).next().filter(|found| found.right() == right)
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

    /// True when a member names `access`; its qualifiers may still refuse a use.
    pub fn permits(&self, access: &Access) -> bool {
        self.0.iter().any(|capability| capability.permits(access))
    }

    /// True when a member allows `access` as things are.
    pub fn permits_under(&self, access: &Access, circumstances: &Circumstances<'_>) -> bool {
        self.0.iter().any(|capability| capability.permits_under(access, circumstances))
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
            Some(wider) => Err(self.refusal(wider)),
            None => Ok(child),
        }
    }

    /// Why a capability is not covered: its right, or its qualifiers.
    fn refusal(&self, wider: &Capability) -> SetError {
        match self.0.iter().find(|mine| mine.right().covers(wider.right())) {
            Some(mine) => SetError::Laxer { child: wider.to_string(), parent: mine.to_string() },
            None => SetError::Wider(wider.to_string()),
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

    #[test]
    fn duplicates_and_excess_are_errors() {
        let twice = CapabilitySet::parse(["listen: 1", "listen:1"]).unwrap_err();
        assert_eq!(twice.to_string(), "capability `listen: 1` appears twice");
        let many: Vec<String> = (1..=300).map(|port| format!("listen: {port}")).collect();
        assert_eq!(CapabilitySet::parse(many.iter().map(String::as_str)), Err(SetError::TooMany));
        assert!(serde_json::from_str::<CapabilitySet>(r#"["listen: 1","listen: 1"]"#).is_err());
    }

    #[test]
    fn one_right_is_there_once() {
        let mut set = CapabilitySet::parse(["listen: 1", "listen: 2 [max_calls=1]"]).unwrap();
        let other: Capability = "listen: 2 [max_calls=5]".parse().unwrap();
        let error = set.insert(other.clone()).unwrap_err().to_string();
        assert_eq!(error, "capability `listen: 2` appears twice");
        set.replace(other.clone()).unwrap();
        assert_eq!(set.to_lines(), ["listen: 1", "listen: 2 [max_calls=5]"]);
        assert_eq!(set.get(&Right::Listen(2)), Some(&other));
        assert_eq!(set.get(&Right::Listen(3)), None);
        let full: Vec<String> = (1..=CAPABILITIES_MAX).map(|port| format!("listen: {port}")).collect();
        let mut full = CapabilitySet::parse(full.iter().map(String::as_str)).unwrap();
        full.replace(other).unwrap();
        assert_eq!(full.replace(Capability::from(Right::Listen(9999))), Err(SetError::TooMany));
    }

    /// Ten thousand entries are refused after the first too many: no more are read.
    #[test]
    fn a_long_list_is_left_early() {
        let read = std::cell::Cell::new(0);
        let lines: Vec<String> = (1..=10_000).map(|port| format!("listen: {port}")).collect();
        let counted = lines.iter().map(|line| {
            read.set(read.get() + 1);
            line.as_str()
        });
        let error = CapabilitySet::parse(counted).unwrap_err();
        assert!(error.to_string().starts_with("more than 256 capabilities: name a directory"), "{error}");
        assert_eq!(read.get(), CAPABILITIES_MAX + 1);
        let json = serde_json::to_string(&lines).unwrap();
        let error = serde_json::from_str::<CapabilitySet>(&json).unwrap_err().to_string();
        assert!(error.contains("more than 256 capabilities"), "{error}");
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
        let strict = CapabilitySet::parse(["tool: mcp.* [max_calls=3]"]).unwrap();
        let lax = CapabilitySet::parse(["tool: mcp.x [max_calls=4]"]).unwrap();
        assert_eq!(
            strict.narrow(lax).unwrap_err().to_string(),
            "capability `tool: mcp.x [max_calls=4]` is wider than the parent's `tool: mcp.* [max_calls=3]`: it has the parent's qualifiers or stricter ones"
        );
    }
}
