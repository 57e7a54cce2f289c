//! What a step may reach: one host and one port.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use aos_core::capability::{HostError, HostName};
use thiserror::Error;

/// A host and a TCP port. Text form: `host:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// The host.
    pub host: Host,
    /// The port, never 0.
    pub port: u16,
}

/// A name, or an address that was written as one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A name: what it resolves to is vetted.
    Name(HostName),
    /// An address: it means itself.
    Address(IpAddr),
}

/// Why a text is not an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EndpointError {
    /// There is no port, or not one from 1 to 65535 in plain digits.
    #[error("the port is missing or not one from 1 to 65535: expected HOST:PORT")]
    Port,
    /// The host is neither a canonical name nor a canonical address.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Brackets are around something else than an IPv6 address.
    #[error("brackets hold an IPv6 address, such as [2001:db8::1]:443")]
    Brackets,
}

impl Host {
    /// Reads a host in its one canonical form; a name may be in any case.
    pub(super) fn parse(text: &str) -> Result<Self, EndpointError> {
        if let Some(inside) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address: Ipv6Addr = inside.parse().map_err(|_| EndpointError::Brackets)?;
            return Ok(Self::Address(address.into()));
        }
        // std reads four decimal numbers without leading zeros, and nothing else.
        match text.parse::<std::net::Ipv4Addr>() {
            Ok(address) => Ok(Self::Address(address.into())),
            Err(_) => Ok(Self::Name(text.to_ascii_lowercase().parse()?)),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let (host, port) = text.rsplit_once(':').ok_or(EndpointError::Port)?;
        Ok(Self { host: Host::parse(host)?, port: parse_port(port)? })
    }
}

/// Plain digits without a leading zero: a sign or a blank is refused.
fn parse_port(text: &str) -> Result<u16, EndpointError> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| is_plain).ok_or(EndpointError::Port)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_for_each() {
        for (text, shown) in [
            ("pypi.org:443", "pypi.org:443"),
            ("PyPI.org:443", "pypi.org:443"),
            ("10.0.0.1:3142", "10.0.0.1:3142"),
            ("[2001:DB8:0::1]:80", "[2001:db8::1]:80"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        for bad in [
            "",
            ":443",
            "pypi.org",
            "pypi.org:",
            "pypi.org:0",
            "pypi.org:+443",
            "pypi.org:0443",
            "pypi.org:65536",
            "pypi.org.:443",
            "user@pypi.org:443",
            "*.pypi.org:443",
            "2130706433:80",
            "0x7f.1:80",
            "127.1:80",
            "010.0.0.1:80",
            "::1:80",
            "[::1%lo]:80",
            "[10.0.0.1]:80",
            "a b:80",
            "a\0:80",
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad:?}");
        }
    }
}
