//! A static address, for machines that no DHCP server answers.

use std::net::IpAddr;

use super::terminal::Questions;
use super::wizard::StepError;

/// The file that holds the static configuration; networkd reads files in order of their names.
pub(crate) const NETWORK_FILE: &str = "/etc/systemd/network/10-aos.network";
/// The most name servers taken; the C library uses three (resolv.conf(5)).
const MAX_DNS: usize = 3;

/// A network card as networkd sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// Interface name, such as `enp1s0`.
    pub(crate) name: String,
    /// Kernel interface index.
    pub(crate) index: i32,
    /// Whether a cable or a radio is connected.
    pub(crate) carrier: bool,
    /// Addresses of global scope.
    pub(crate) addresses: Vec<IpAddr>,
    /// At least one of them came from DHCP or router advertisements.
    pub(crate) automatic: bool,
}

/// The state of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NetworkState {
    /// networkd does not run: another program looks after the network.
    ManagedElsewhere,
    /// The cards that networkd knows, without loopback.
    Networkd(Vec<Link>),
}

impl NetworkState {
    /// True when no question is needed: an address is there, or the network is not ours.
    pub(crate) fn is_settled(&self) -> bool {
        match self {
            Self::ManagedElsewhere => true,
            Self::Networkd(links) => links.iter().any(|link| !link.addresses.is_empty()),
        }
    }

    /// True while a card with a carrier might still get an address.
    pub(crate) fn may_settle(&self) -> bool {
        match self {
            Self::ManagedElsewhere => false,
            Self::Networkd(links) => links.is_empty() || links.iter().any(|link| link.carrier),
        }
    }
}

/// An address with the length of its network prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Parses `192.0.2.7/24` or `2001:db8::7/64`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let expected = || "an address looks like 192.0.2.7/24".to_owned();
        let (address, prefix) = text.split_once('/').ok_or_else(expected)?;
        let address: IpAddr = address.trim().parse().map_err(|_| expected())?;
        let prefix: u8 = prefix.trim().parse().map_err(|_| expected())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if prefix == 0 || prefix > bits {
            return Err(format!("the number after the slash is from 1 to {bits}"));
        }
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            return Err("this address cannot be given to a machine".to_owned());
        }
        Ok(Self { address, prefix })
    }

    /// True when `other` is in the same network and is another address.
    fn is_neighbour(self, other: IpAddr) -> bool {
        let masked = |address: IpAddr| match address {
            IpAddr::V4(v4) => {
                (32, u128::from(u32::from(v4)).checked_shr(u32::from(32_u8.saturating_sub(self.prefix))))
            }
            IpAddr::V6(v6) => {
                (128, u128::from(v6).checked_shr(u32::from(128_u8.saturating_sub(self.prefix))))
            }
        };
        other != self.address && masked(other) == masked(self.address)
    }
}

/// What the static configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StaticNetwork {
    /// The card.
    pub(crate) link: String,
    /// Its index, to apply the change at once.
    pub(crate) index: i32,
    /// Its address.
    pub(crate) address: Cidr,
    /// The router, when there is one.
    pub(crate) gateway: Option<IpAddr>,
    /// Name servers.
    pub(crate) dns: Vec<IpAddr>,
}

impl StaticNetwork {
    /// The file for networkd (systemd.network(5)).
    pub(crate) fn file(&self) -> String {
        let mut lines = vec![
            "# Written by `aos configure`.".to_owned(),
            "[Match]".to_owned(),
            format!("Name={}", self.link),
            String::new(),
            "[Network]".to_owned(),
            format!("Address={}/{}", self.address.address, self.address.prefix),
        ];
        lines.extend(self.gateway.map(|gateway| format!("Gateway={gateway}")));
        lines.extend(self.dns.iter().map(|server| format!("DNS={server}")));
        lines.push(String::new());
        lines.join("\n")
    }

    /// One line for people.
    pub(crate) fn summary(&self) -> String {
        format!("{}/{} on {}", self.address.address, self.address.prefix, self.link)
    }
}

/// Asks for a static address; `None` when the network stays as it is.
pub(crate) fn ask(ask: &mut Questions<'_>, state: &NetworkState) -> Result<Option<StaticNetwork>, StepError> {
    let NetworkState::Networkd(links) = state else {
        ask.say("The network is managed by another program than systemd-networkd: left as it is.")?;
        return Ok(None);
    };
    if links.is_empty() {
        ask.say("This machine has no network card.")?;
        return Ok(None);
    }
    for link in links {
        ask.say(&format!("  {}: {}", link.name, describe(link)))?;
    }
    let wanted = ask.confirm("Give the machine a fixed address", !state.is_settled())?;
    if wanted { details(ask, links).map(Some) } else { Ok(None) }
}

fn describe(link: &Link) -> String {
    let addresses: Vec<String> = link.addresses.iter().map(ToString::to_string).collect();
    match (link.carrier, addresses.is_empty(), link.automatic) {
        (false, true, _) => "no cable".to_owned(),
        (true, true, _) => "connected, but no DHCP server answered".to_owned(),
        (_, false, true) => format!("{} (automatic)", addresses.join(", ")),
        (_, false, false) => addresses.join(", "),
    }
}

fn details(ask: &mut Questions<'_>, links: &[Link]) -> Result<StaticNetwork, StepError> {
    let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
    let chosen = match links.len() {
        1 => 0,
        _ => ask.choose("Which card", &names, links.iter().position(|link| link.carrier).or(Some(0)))?,
    };
    let link = links.get(chosen).ok_or_else(|| anyhow::anyhow!("no such network card"))?;
    ask.say("The address of this machine with the length of the network prefix.")?;
    let address = ask.text("Address, such as 192.0.2.7/24", None, Cidr::parse)?;
    let gateway = ask.text("Gateway (router), or `none`", None, |text| parse_gateway(text, address))?;
    let default = gateway.map_or_else(|| "none".to_owned(), |gateway| gateway.to_string());
    let dns = ask.text("DNS servers, or `none`", Some(&default), parse_dns)?;
    Ok(StaticNetwork { link: link.name.clone(), index: link.index, address, gateway, dns })
}

fn parse_gateway(text: &str, address: Cidr) -> Result<Option<IpAddr>, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    let gateway: IpAddr = text.parse().map_err(|_| "an address looks like 192.0.2.1".to_owned())?;
    let on_link = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if gateway.is_ipv4() != address.address.is_ipv4() || !(on_link || address.is_neighbour(gateway)) {
        return Err(format!("{gateway} is not in the network of {}/{}", address.address, address.prefix));
    }
    Ok(Some(gateway))
}

fn parse_dns(text: &str) -> Result<Vec<IpAddr>, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Vec::new());
    }
    let words = text.split([',', ' ']).filter(|word| !word.is_empty());
    let servers: Vec<IpAddr> = words
        .map(|word| word.parse().map_err(|_| format!("`{word}` is not an IP address")))
        .collect::<Result<_, String>>()?;
    if servers.len() > MAX_DNS { Err(format!("at most {MAX_DNS} servers are used")) } else { Ok(servers) }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Script;
    use super::*;

    fn cards() -> NetworkState {
        let card = Link { name: "enp1s0".into(), index: 2, carrier: true, ..Link::default() };
        NetworkState::Networkd(vec![card])
    }

    #[test]
    fn a_static_address_becomes_a_file() {
        let answers = ["", "192.0.2.7", "192.0.2.7/24", "10.0.0.1", "192.0.2.1", "192.0.2.1, 2001:db8::53"];
        let mut script = Script::new(answers);
        let network = ask(&mut Questions::new(&mut script), &cards()).unwrap().unwrap();
        insta::assert_snapshot!(network.file(), @r"
        # Written by `aos configure`.
        [Match]
        Name=enp1s0

        [Network]
        Address=192.0.2.7/24
        Gateway=192.0.2.1
        DNS=192.0.2.1
        DNS=2001:db8::53
        ");
        assert!(script.shown().contains("10.0.0.1 is not in the network of 192.0.2.7/24"));
    }

    #[test]
    fn addresses() {
        for good in ["10.0.0.2/8", "192.168.1.20/24", "2001:db8::2/64", "fd00::1/128"] {
            assert!(Cidr::parse(good).is_ok(), "{good}");
        }
        for bad in ["10.0.0.2", "10.0.0.2/0", "10.0.0.2/33", "127.0.0.1/8", "::/64", "a/24", "10.0.0.2/24\nx"]
        {
            assert!(Cidr::parse(bad).is_err(), "{bad}");
        }
        let v6 = Cidr::parse("2001:db8::2/64").unwrap();
        assert!(parse_gateway("fe80::1", v6).is_ok());
        assert!(parse_gateway("2001:db8:0:1::1", v6).is_err());
        assert!(parse_gateway("192.0.2.1", v6).is_err());
        assert!(parse_dns("1.1.1.1 8.8.8.8 9.9.9.9 4.4.4.4").is_err());
    }

    #[test]
    fn a_lease_settles_it() {
        let NetworkState::Networkd(mut links) = cards() else { unreachable!() };
        assert!(!cards().is_settled() && cards().may_settle());
        links[0].addresses = vec!["192.0.2.9".parse().unwrap()];
        assert!(NetworkState::Networkd(links).is_settled());
        assert!(NetworkState::ManagedElsewhere.is_settled());
    }
}
