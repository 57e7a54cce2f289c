//! Ports that a package names, and hosts with a port that a build step may reach.

use crate::capability::{CapabilityError, HostError, HostPattern, Right};
use crate::macros::serde_as_text;
use crate::quoted::Quoted;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// The protocol of a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP, when none is written.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// The word after the slash.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port and its protocol, written `8080`, `8080/tcp` or `53/udp`; printed with the protocol, as
/// image configs have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// The number, 1 to 65535.
    pub number: std::num::NonZeroU16,
    /// The protocol.
    pub protocol: Protocol,
}

/// A text that is not a port.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("port {} is not valid, expected 1 to 65535, or with a protocol such as 53/udp", Quoted(.0))]
pub struct BadPort(String);

impl FromStr for Port {
    type Err = BadPort;

    fn from_str(text: &str) -> Result<Self, BadPort> {
        let bad = || BadPort(text.to_owned());
        let (number, protocol) = match text.split_once('/') {
            Some((number, word)) => {
                let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.as_str() == word);
                (number, protocol.ok_or_else(bad)?)
            }
            None => (text, Protocol::default()),
        };
        let plain = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
        let number = number.parse().ok().filter(|_| plain).ok_or_else(bad)?;
        Ok(Self { number, protocol })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol.as_str())
    }
}

serde_as_text!(Port);

/// A host, or every host of one label more, and a TCP port: `pypi.org:443`, `*.example.org:443`.
/// The grammar is that of the capability `net`, without addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetTarget {
    /// The host or hosts.
    pub host: HostPattern,
    /// The port, 1 to 65535.
    pub port: u16,
}

impl FromStr for NetTarget {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        match Right::from_parts("net", text)? {
            Right::Net(host, port) => Ok(Self { host, port }),
            // The name `net` has no third kind of value.
            _ => Err(CapabilityError::Host(HostError::Address(text.to_owned()))),
        }
    }
}

impl fmt::Display for NetTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

serde_as_text!(NetTarget);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        for (text, printed) in
            [("8080", "8080/tcp"), ("53/udp", "53/udp"), ("1/tcp", "1/tcp"), ("65535", "65535/tcp")]
        {
            assert_eq!(text.parse::<Port>().unwrap().to_string(), printed);
            assert_eq!(printed.parse::<Port>().unwrap().to_string(), printed);
        }
        for bad in ["", "0", "65536", "080", "+80", "80/", "80/sctp", "80/TCP", "80 ", "80/tcp/udp", "80-90"]
        {
            assert!(bad.parse::<Port>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn net_targets() {
        for good in ["pypi.org:443", "*.example.org:80"] {
            assert_eq!(good.parse::<NetTarget>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "pypi.org",
            "pypi.org:0",
            "https://pypi.org:443",
            "10.0.0.1:443",
            "[::1]:443",
            "a.org:443\nb.org:443",
        ] {
            assert!(bad.parse::<NetTarget>().is_err(), "{bad:?}");
        }
    }
}
