//! A scripted person and a machine that does not exist, for tests.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;

use anyhow::{Result, bail};

use super::access::{Password, PublicKey, RootAccess};
use super::hostname::Hostname;
use super::network::{NetworkState, StaticNetwork};
use super::provider::{ProviderChange, ProviderName, ProviderState};
use super::secret::Secret;
use super::system::System;
use super::terminal::Terminal;
use super::timezone::TimeZone;

/// A person who gives prepared answers and then leaves.
pub(crate) struct Script {
    answers: VecDeque<String>,
    shown: String,
}

impl Script {
    pub(crate) fn new<'a>(answers: impl IntoIterator<Item = &'a str>) -> Self {
        Self { answers: answers.into_iter().map(str::to_owned).collect(), shown: String::new() }
    }

    /// All that the person saw: what was written, and the echo of what was typed; secrets are not echoed.
    pub(crate) fn shown(&self) -> String {
        self.shown.clone()
    }

    /// The number of answers that nobody asked for.
    pub(crate) fn left_over(&self) -> usize {
        self.answers.len()
    }
}

impl Terminal for Script {
    fn write(&mut self, text: &str) -> io::Result<()> {
        self.shown.push_str(text);
        Ok(())
    }

    fn read_line(&mut self) -> io::Result<Option<String>> {
        let answer = self.answers.pop_front();
        if let Some(answer) = &answer {
            self.shown.push_str(&format!("{answer}\n"));
        }
        Ok(answer)
    }

    fn read_secret(&mut self, prompt: &str) -> io::Result<Option<Secret>> {
        self.shown.push_str(&format!("{prompt}\n"));
        Ok(self.answers.pop_front().map(Secret::new))
    }
}

/// A machine in memory. `changes` lists what was done to it, in order.
#[derive(Debug)]
pub(crate) struct FakeSystem {
    pub(crate) hostname: String,
    pub(crate) time_zone: String,
    pub(crate) access: RootAccess,
    pub(crate) network: NetworkState,
    pub(crate) provider: ProviderState,
    pub(crate) changes: Vec<String>,
    /// The name of a change that fails.
    pub(crate) broken: Option<&'static str>,
}

impl Default for FakeSystem {
    fn default() -> Self {
        Self {
            hostname: "aos".into(),
            time_zone: "Etc/UTC".into(),
            access: RootAccess::default(),
            network: NetworkState::ManagedElsewhere,
            provider: ProviderState::default(),
            changes: Vec::new(),
            broken: None,
        }
    }
}

impl FakeSystem {
    fn record(&mut self, kind: &'static str, detail: &str) -> Result<()> {
        if self.broken == Some(kind) {
            bail!("{kind} is broken");
        }
        self.changes.push(format!("{kind} {detail}").trim_end().to_owned());
        Ok(())
    }
}

impl System for FakeSystem {
    fn hostname(&self) -> Result<String> {
        Ok(self.hostname.clone())
    }

    fn set_hostname(&mut self, name: &Hostname) -> Result<()> {
        self.record("hostname", name.as_str())
    }

    fn time_zone(&self) -> Result<String> {
        Ok(self.time_zone.clone())
    }

    fn time_zones(&self) -> Result<Vec<String>> {
        let zones = ["America/New_York", "America/Sao_Paulo", "Etc/UTC", "Europe/Berlin", "Europe/Paris"];
        Ok(zones.map(str::to_owned).to_vec())
    }

    fn set_time_zone(&mut self, zone: &TimeZone) -> Result<()> {
        self.record("timezone", zone.as_str())
    }

    fn root_access(&self) -> Result<RootAccess> {
        Ok(self.access)
    }

    fn set_root_password(&mut self, password: &Password) -> Result<()> {
        let kind = match password {
            Password::Plain(_) => "plain",
            Password::Hashed(_) => "hashed",
        };
        self.record("password", kind)
    }

    fn add_root_key(&mut self, key: &PublicKey) -> Result<bool> {
        self.record("key", &key.line())?;
        Ok(true)
    }

    fn network(&self) -> Result<NetworkState> {
        Ok(self.network.clone())
    }

    fn network_settled(&self, _: u64) -> Result<NetworkState> {
        Ok(self.network.clone())
    }

    fn set_network(&mut self, network: &StaticNetwork) -> Result<()> {
        self.record("network", &network.summary())
    }

    fn addresses(&self) -> Vec<IpAddr> {
        vec![IpAddr::from([192, 0, 2, 9])]
    }

    fn provider(&self, _: &ProviderName) -> Result<ProviderState> {
        Ok(self.provider.clone())
    }

    fn set_provider(&mut self, change: &ProviderChange) -> Result<bool> {
        let key = if change.key.is_some() { "with key" } else { "" };
        self.record("provider", &format!("{} {key}", change.name.as_str()))?;
        Ok(true)
    }

    fn example(&self) -> String {
        "DIR".into()
    }

    fn finish(&mut self) -> Result<()> {
        self.record("stamp", "")
    }
}
