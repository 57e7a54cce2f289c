//! What `aos configure` reads from the machine and changes on it, as a trait: the wizard's logic is tested
//! against a machine that does not exist.

use std::net::IpAddr;

use anyhow::Result;

use super::access::{Password, PublicKey, RootAccess};
use super::hostname::Hostname;
use super::network::{NetworkState, StaticNetwork};
use super::provider::{ProviderChange, ProviderName, ProviderState};
use super::timezone::TimeZone;

/// A machine that can be configured. Methods that change it do one thing, at once, and leave the rest alone.
pub(crate) trait System {
    /// The static host name.
    fn hostname(&self) -> Result<String>;
    /// Sets the static host name.
    fn set_hostname(&mut self, name: &Hostname) -> Result<()>;

    /// The time zone's name.
    fn time_zone(&self) -> Result<String>;
    /// All time zones.
    fn time_zones(&self) -> Result<Vec<String>>;
    /// Sets the time zone.
    fn set_time_zone(&mut self, zone: &TimeZone) -> Result<()>;

    /// What lets root log in.
    fn root_access(&self) -> Result<RootAccess>;
    /// Sets root's password.
    fn set_root_password(&mut self, password: &Password) -> Result<()>;
    /// Adds a key to root's `authorized_keys`; false when it was there already.
    fn add_root_key(&mut self, key: &PublicKey) -> Result<bool>;

    /// The network, now.
    fn network(&self) -> Result<NetworkState>;
    /// The network once an address has arrived, or after `seconds`.
    fn network_settled(&self, seconds: u64) -> Result<NetworkState>;
    /// Writes the static configuration and applies it.
    fn set_network(&mut self, network: &StaticNetwork) -> Result<()>;
    /// The addresses by which the machine is reached.
    fn addresses(&self) -> Vec<IpAddr>;

    /// What is known of a provider.
    fn provider(&self, name: &ProviderName) -> Result<ProviderState>;
    /// Changes a provider's file and key; false when there was nothing to change.
    fn set_provider(&mut self, change: &ProviderChange) -> Result<bool>;

    /// An agent to try first, as an argument of `aos run`.
    fn example(&self) -> String;

    /// Records that the machine is configured, so that the next boot does not ask.
    fn finish(&mut self) -> Result<()>;
}
