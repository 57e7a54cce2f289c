//! This machine as a [`System`]: its services over D-Bus, its tools, its files.
//!
//! The calls are made one at a time from a program that does nothing else meanwhile, so an asynchronous
//! runtime of one thread is kept here and blocked on. Every call has a deadline.

use std::cell::OnceCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Deserialize;
use zbus::proxy::MethodFlags;

use super::access::{Password, PublicKey, RootAccess};
use super::files::Files;
use super::hostname::Hostname;
use super::network::{Link, NetworkState, StaticNetwork};
use super::provider::{ProviderChange, ProviderName, ProviderState};
use super::secret::Secret;
use super::system::System;
use super::timezone::TimeZone;
use crate::process;

/// How long a system service may take to answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the network is looked at while an address is awaited.
const NETWORK_POLL: Duration = Duration::from_millis(500);

/// Where the examples are installed.
const EXAMPLES: [&str; 2] = ["/usr/share/aos/examples/sitewatch", "/usr/share/doc/aos/examples/sitewatch"];

const CHPASSWD: &str = "/usr/sbin/chpasswd";
const SYSTEMD_CREDS: &str = "/usr/bin/systemd-creds";

/// One object of a system service.
struct Service {
    name: &'static str,
    path: &'static str,
    interface: &'static str,
}

const HOSTNAME: Service = Service {
    name: "org.freedesktop.hostname1",
    path: "/org/freedesktop/hostname1",
    interface: "org.freedesktop.hostname1",
};
const TIMEDATE: Service = Service {
    name: "org.freedesktop.timedate1",
    path: "/org/freedesktop/timedate1",
    interface: "org.freedesktop.timedate1",
};
const NETWORK: Service = Service {
    name: "org.freedesktop.network1",
    path: "/org/freedesktop/network1",
    interface: "org.freedesktop.network1.Manager",
};
const MANAGER: Service = Service {
    name: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};

/// This machine.
pub(crate) struct Host {
    files: Files,
    runtime: tokio::runtime::Runtime,
    bus: OnceCell<zbus::Connection>,
}

impl Host {
    /// Prepares to configure this machine; nothing is contacted yet.
    pub(crate) fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the asynchronous runtime")?;
        Ok(Self { files: Files::below("/"), runtime, bus: OnceCell::new() })
    }

    fn bus(&self) -> Result<&zbus::Connection> {
        if let Some(bus) = self.bus.get() {
            return Ok(bus);
        }
        let connecting =
            async { zbus::connection::Builder::system().method_timeout(CALL_TIMEOUT).build().await };
        let bus = self.runtime.block_on(connecting).context("cannot reach the system bus")?;
        Ok(self.bus.get_or_init(|| bus))
    }

    fn proxy(&self, service: &Service) -> Result<zbus::Proxy<'static>> {
        let bus = self.bus()?;
        let building = async {
            zbus::proxy::Builder::<zbus::Proxy<'static>>::new(bus)
                .destination(service.name)
                .path(service.path)
                .interface(service.interface)
                .cache_properties(zbus::proxy::CacheProperties::No)
                .build()
                .await
        };
        self.runtime.block_on(building).with_context(|| format!("cannot address {}", service.name))
    }

    fn property(&self, service: &Service, name: &str) -> Result<String> {
        let proxy = self.proxy(service)?;
        self.runtime
            .block_on(proxy.get_property(name))
            .with_context(|| format!("{} does not tell {name}", service.name))
    }

    fn call<B, R>(&self, service: &Service, method: &str, body: &B) -> Result<R>
    where
        B: serde::Serialize + zbus::Type,
        R: for<'d> serde::Deserialize<'d> + zbus::Type,
    {
        let proxy = self.proxy(service)?;
        self.runtime
            .block_on(proxy.call(method, body))
            .with_context(|| format!("{} failed at {method}", service.name))
    }

    /// Holds back systemd's own messages on the console, or lets them through again.
    pub(crate) fn show_boot_status(&self, mode: &str) -> Result<()> {
        self.call(&MANAGER, "SetShowStatus", &(mode,))
    }

    /// Runs a tool and returns its output.
    pub(crate) fn tool(&self, program: &str, args: &[&str], input: &[u8]) -> Result<Vec<u8>> {
        self.runtime.block_on(process::run_tool(program, args, input))
    }

    fn seal(&self, name: &ProviderName, key: &Secret) -> Result<Vec<u8>> {
        let label = format!("--name={}", name.credential());
        self.tool(SYSTEMD_CREDS, &["encrypt", &label, "-", "-"], key.reveal().as_bytes())
    }
}

impl System for Host {
    fn hostname(&self) -> Result<String> {
        self.property(&HOSTNAME, "Hostname")
    }

    fn set_hostname(&mut self, name: &Hostname) -> Result<()> {
        self.call(&HOSTNAME, "SetStaticHostname", &(name.as_str(), false))
    }

    fn time_zone(&self) -> Result<String> {
        self.property(&TIMEDATE, "Timezone")
    }

    fn time_zones(&self) -> Result<Vec<String>> {
        self.call(&TIMEDATE, "ListTimezones", &())
    }

    fn set_time_zone(&mut self, zone: &TimeZone) -> Result<()> {
        self.call(&TIMEDATE, "SetTimezone", &(zone.as_str(), false))
    }

    fn root_access(&self) -> Result<RootAccess> {
        self.files.root_access()
    }

    fn set_root_password(&mut self, password: &Password) -> Result<()> {
        let (args, secret): (&[&str], &Secret) = match password {
            Password::Plain(secret) => (&[], secret),
            Password::Hashed(secret) => (&["--encrypted"], secret),
        };
        let line = zeroize::Zeroizing::new(format!("root:{}\n", secret.reveal()));
        self.tool(CHPASSWD, args, line.as_bytes()).map(drop)
    }

    fn add_root_key(&mut self, key: &PublicKey) -> Result<bool> {
        self.files.add_root_key(key)
    }

    fn network(&self) -> Result<NetworkState> {
        let proxy = self.proxy(&NETWORK)?;
        let asked = proxy.call_with_flags("Describe", MethodFlags::NO_AUTO_START, &());
        let answer: zbus::Result<Option<String>> = self.runtime.block_on(asked);
        match answer {
            Ok(Some(json)) => parse_network(&json),
            // Nobody answers by this name: networkd does not run.
            Ok(None) | Err(zbus::Error::MethodError(..) | zbus::Error::FDO(_)) => {
                Ok(NetworkState::ManagedElsewhere)
            }
            Err(error) => Err(error).context("networkd does not tell the state of the network"),
        }
    }

    fn network_settled(&self, seconds: u64) -> Result<NetworkState> {
        let end = Instant::now() + Duration::from_secs(seconds);
        loop {
            let state = self.network()?;
            if state.is_settled() || Instant::now() >= end {
                return Ok(state);
            }
            std::thread::sleep(NETWORK_POLL);
        }
    }

    fn set_network(&mut self, network: &StaticNetwork) -> Result<()> {
        self.files.write_network(network)?;
        self.call::<_, ()>(&NETWORK, "Reload", &())?;
        self.call(&NETWORK, "ReconfigureLink", &(network.index,))
    }

    fn addresses(&self) -> Vec<IpAddr> {
        own_addresses()
    }

    fn provider(&self, name: &ProviderName) -> Result<ProviderState> {
        self.files.provider(name)
    }

    fn set_provider(&mut self, change: &ProviderChange) -> Result<bool> {
        // The key first: a provider whose file is there and whose key is not looks configured.
        let sealed = change.key.as_ref().map(|key| self.seal(&change.name, key)).transpose()?;
        if let Some(sealed) = &sealed {
            self.files.write_sealed_key(&change.name, sealed)?;
        }
        Ok(self.files.write_provider(change)? || sealed.is_some())
    }

    fn example(&self) -> String {
        let found = EXAMPLES.into_iter().find(|path| std::path::Path::new(path).is_dir());
        found.unwrap_or("DIR").to_owned()
    }

    fn finish(&mut self) -> Result<()> {
        self.files.write_stamp()
    }
}

/// The addresses that the machine uses towards others. Connecting a datagram socket chooses the source address
/// and sends nothing; the targets are documentation addresses (RFC 5737, RFC 3849).
fn own_addresses() -> Vec<IpAddr> {
    let v4: (SocketAddr, SocketAddr) =
        ((Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::new(192, 0, 2, 1), 9).into());
    let v6: (SocketAddr, SocketAddr) =
        ((Ipv6Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into());
    let source = |(from, to): (SocketAddr, SocketAddr)| -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        Ok(socket.local_addr()?.ip())
    };
    // A machine without a route of that family has no address to show: that is an answer, not a failure.
    [v4, v6].into_iter().flat_map(source).filter(|ip| !ip.is_unspecified() && !ip.is_loopback()).collect()
}

/// networkd's description of the network: the parts that are used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Description {
    #[serde(default)]
    interfaces: Vec<Interface>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Interface {
    index: i32,
    name: String,
    #[serde(rename = "Type")]
    kind: String,
    /// The kind of a virtual card; a container's is `veth`.
    #[serde(default, rename = "Kind")]
    virtual_kind: Option<String>,
    #[serde(default)]
    carrier_state: String,
    #[serde(default)]
    addresses: Vec<Address>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Address {
    address: Vec<u8>,
    #[serde(default)]
    scope_string: String,
    #[serde(default)]
    config_source: String,
}

impl Address {
    fn ip(&self) -> Option<IpAddr> {
        let bytes = self.address.as_slice();
        let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
    }
}

/// Reads what `Describe()` of networkd returns (systemd 257), the cards only.
fn parse_network(json: &str) -> Result<NetworkState> {
    let description: Description =
        serde_json::from_str(json).context("cannot read networkd's description")?;
    let cards = description.interfaces.into_iter().filter(|interface| {
        matches!(interface.kind.as_str(), "ether" | "wlan" | "wwan")
            && matches!(interface.virtual_kind.as_deref(), None | Some("veth"))
    });
    let links = cards.map(|card| {
        let global: Vec<&Address> =
            card.addresses.iter().filter(|address| address.scope_string == "global").collect();
        Link {
            name: card.name.clone(),
            index: card.index,
            carrier: matches!(card.carrier_state.as_str(), "carrier" | "degraded-carrier"),
            addresses: global.iter().filter_map(|address| address.ip()).collect(),
            automatic: global.iter().any(|address| {
                matches!(address.config_source.as_str(), "DHCPv4" | "DHCPv6" | "NDisc" | "DHCP-PD")
            }),
        }
    });
    Ok(NetworkState::Networkd(links.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_of_networkd_is_read() {
        let json = r#"{"Interfaces":[
          {"Index":1,"Name":"lo","Type":"loopback","CarrierState":"carrier",
           "Addresses":[{"Family":2,"Address":[127,0,0,1],"ScopeString":"host","ConfigSource":"foreign"}]},
          {"Index":2,"Name":"enp1s0","Type":"ether","CarrierState":"carrier","Addresses":[
           {"Family":2,"Address":[10,0,2,15],"PrefixLength":24,"ScopeString":"global","ConfigSource":"DHCPv4"},
           {"Family":10,"Address":[254,128,0,0,0,0,0,0,0,0,0,0,0,0,0,1],"ScopeString":"link","ConfigSource":"foreign"}]},
          {"Index":3,"Name":"enp2s0","Type":"ether","CarrierState":"no-carrier"}]}"#;
        let NetworkState::Networkd(links) = parse_network(json).unwrap() else { panic!() };
        assert_eq!(links.len(), 2);
        assert_eq!(links[0].addresses, [IpAddr::from([10, 0, 2, 15])]);
        assert!(links[0].automatic && links[0].carrier && !links[1].carrier);
    }
}
