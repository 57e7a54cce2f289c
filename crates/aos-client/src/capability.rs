//! What travels over the bus about an agent's capabilities, as `a{sv}`.
//!
//! A key that has no value is absent. Unknown keys are ignored by readers, and refused in options.

use serde::{Deserialize, Serialize};
use zbus::Type;
use zbus::as_variant::{self, optional};

/// One capability of an agent, or one that it had and that a run which goes on was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
#[zbus(signature = "dict")]
pub struct CapabilityView {
    /// In canonical form.
    #[serde(with = "as_variant")]
    pub capability: String,
    /// Who holds the agent to it: `kernel: ...`, or `broker`.
    #[serde(with = "as_variant")]
    pub enforced_by: String,
    /// Whether the next start gives it.
    #[serde(with = "as_variant")]
    pub declared: bool,
    /// Whether the run that goes on has it; absent when none does.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub in_force: Option<bool>,
    /// `package`, `granted` or `narrowed`; absent for one that the agent does not have any more.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub origin: Option<String>,
    /// Since when, microseconds since the epoch; absent like `origin`.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub since_us: Option<u64>,
}

/// Options of `GrantCapabilities`, `NarrowCapabilities` and `RevokeCapabilities`. Unknown keys are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
#[zbus(signature = "dict")]
#[serde(deny_unknown_fields)]
pub struct ChangeOptions {
    /// What happens to a run for which the change is not in force by itself: `restart`, `stop`, or absent for
    /// nothing.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub apply: Option<String>,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
#[zbus(signature = "dict")]
pub struct ChangedView {
    /// `now`: it is in force. `restart`: a new run began with it. `stopped`: the run was stopped. `next-start`: the
    /// next run has it, and what runs goes on with what it had.
    #[serde(with = "as_variant")]
    pub effect: String,
    /// What the agent may do from the next start on.
    #[serde(with = "as_variant")]
    pub capabilities: Vec<String>,
    /// What the run that goes on was given, when that is something else.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub in_force: Option<Vec<String>>,
    /// Something to know, such as that the agent cannot start without what was taken away.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use zbus::OwnedVariant;
    use zbus::wire::{LE, serialized::Context, to_bytes};

    #[test]
    fn what_is_absent_stays_absent() {
        let view = CapabilityView {
            capability: "listen: 80".into(),
            enforced_by: "kernel".into(),
            declared: false,
            in_force: Some(true),
            origin: None,
            since_us: None,
        };
        let bytes = to_bytes(Context::new(LE, 0), &view).unwrap();
        let map: BTreeMap<String, OwnedVariant> = bytes.deserialize().unwrap().0;
        assert!(map.contains_key("in_force") && !map.contains_key("origin"));
        assert_eq!(bytes.deserialize::<CapabilityView>().unwrap().0, view);
    }

    #[test]
    fn unknown_options_are_refused() {
        let context = Context::new(LE, 0);
        let mut map: BTreeMap<String, OwnedVariant> = BTreeMap::new();
        let bytes = to_bytes(context, &map).unwrap();
        assert_eq!(bytes.deserialize::<ChangeOptions>().unwrap().0, ChangeOptions::default());
        map.insert("aply".into(), OwnedVariant::try_from(zbus::Variant::from("stop")).unwrap());
        assert!(to_bytes(context, &map).unwrap().deserialize::<ChangeOptions>().is_err());
    }
}
