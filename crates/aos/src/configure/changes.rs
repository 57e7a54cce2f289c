//! What is to change, wherever the answers came from: the wizard, flags or credentials; and applying it.

use anyhow::Result;

use super::access::{AccessChange, Password};
use super::hostname::Hostname;
use super::network::StaticNetwork;
use super::provider::ProviderChange;
use super::system::System;
use super::timezone::TimeZone;

/// A set of valid changes. What is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) hostname: Option<Hostname>,
    pub(crate) time_zone: Option<TimeZone>,
    pub(crate) access: AccessChange,
    pub(crate) network: Option<StaticNetwork>,
    pub(crate) provider: Option<ProviderChange>,
}

impl Changes {
    /// True when nothing is to change.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// One line for each change; no secret is in them.
    pub(crate) fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(name) = &self.hostname {
            lines.push(hostname_line(name));
        }
        if let Some(zone) = &self.time_zone {
            lines.push(time_zone_line(zone));
        }
        if let Some(password) = &self.access.password {
            lines.push(password_line(password));
        }
        lines.extend(self.access.keys.iter().map(|key| key_line(&key.fingerprint())));
        lines.extend(self.network.iter().map(network_line));
        lines.extend(self.provider.iter().map(provider_line));
        lines
    }
}

fn hostname_line(name: &Hostname) -> String {
    format!("host name: {}", name.as_str())
}

fn time_zone_line(zone: &TimeZone) -> String {
    format!("time zone: {}", zone.as_str())
}

fn password_line(password: &Password) -> String {
    match password {
        Password::Plain(_) => "root's password".to_owned(),
        Password::Hashed(_) => "root's password (by its hash)".to_owned(),
    }
}

fn key_line(fingerprint: &str) -> String {
    format!("SSH key for root: {fingerprint}")
}

fn network_line(network: &StaticNetwork) -> String {
    format!("network: {}", network.summary())
}

fn provider_line(change: &ProviderChange) -> String {
    let key = if change.key.is_some() { " and its key" } else { "" };
    format!("model provider: {}{key}", change.name.as_str())
}

/// How one change went.
#[derive(Debug)]
pub(crate) struct Applied {
    what: String,
    outcome: Result<Outcome>,
}

/// What became of a change that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    WasAlready,
}

impl Applied {
    /// True when it failed.
    pub(crate) fn failed(&self) -> bool {
        self.outcome.is_err()
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        match &self.outcome {
            Ok(Outcome::Done) => format!("changed {}", self.what),
            Ok(Outcome::WasAlready) => format!("unchanged {}", self.what),
            Err(error) => format!("FAILED {}: {error:#}", self.what),
        }
    }
}

/// Applies the changes in a fixed order. One that fails does not keep the others from being applied; the caller
/// looks at each [`Applied`].
pub(crate) fn apply(changes: &Changes, system: &mut dyn System) -> Vec<Applied> {
    let mut applied = Vec::new();
    let mut record = |what: String, outcome: Result<Outcome>| applied.push(Applied { what, outcome });
    let done = |result: Result<()>| result.map(|()| Outcome::Done);
    let told = |result: Result<bool>| {
        result.map(|changed| if changed { Outcome::Done } else { Outcome::WasAlready })
    };
    if let Some(name) = &changes.hostname {
        record(hostname_line(name), done(system.set_hostname(name)));
    }
    if let Some(zone) = &changes.time_zone {
        record(time_zone_line(zone), done(system.set_time_zone(zone)));
    }
    if let Some(password) = &changes.access.password {
        record(password_line(password), done(system.set_root_password(password)));
    }
    for key in &changes.access.keys {
        record(key_line(&key.fingerprint()), told(system.add_root_key(key)));
    }
    if let Some(network) = &changes.network {
        record(network_line(network), done(system.set_network(network)));
    }
    if let Some(provider) = &changes.provider {
        record(provider_line(provider), told(system.set_provider(provider)));
    }
    applied
}

#[cfg(test)]
mod tests {
    use super::super::fake::FakeSystem;
    use super::*;

    #[test]
    fn a_failure_is_told_and_stops_nothing_else() {
        let mut system = FakeSystem { broken: Some("hostname"), ..FakeSystem::default() };
        let changes = Changes {
            hostname: Some(Hostname::parse("lab").unwrap()),
            time_zone: Some(TimeZone::parse("Europe/Paris", &system.time_zones().unwrap()).unwrap()),
            ..Changes::default()
        };
        let applied = apply(&changes, &mut system);
        assert_eq!(applied[0].line(), "FAILED host name: lab: hostname is broken");
        assert!(applied[0].failed() && !applied[1].failed());
        assert_eq!(system.changes, ["timezone Europe/Paris"]);
    }
}
