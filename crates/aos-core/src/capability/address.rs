//! Addresses that stand in a capability where a host name else does: IPv4 and IPv6 in the one spelling
//! that names one host. A pattern of names never covers an address, and an address covers no name.

use crate::quoted::Quoted;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use thiserror::Error;

/// Why a text is not an address that can be granted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// The brackets hold no IPv6 address.
    #[error("{} is not an IPv6 address in brackets, such as [2001:db8::1]", Quoted(.0))]
    Form(String),
    /// The address is written in another way than RFC 5952 has it.
    #[error("address {} is written `{canonical}` (RFC 5952)", Quoted(.text))]
    NotCanonical {
        /// The text.
        text: String,
        /// The one spelling.
        canonical: Ipv6Addr,
    },
    /// The address is an IPv4 one in disguise, which would be a second spelling of it.
    #[error("address {} is the IPv4 address `{mapped}`: write that", Quoted(.text))]
    Mapped {
        /// The text.
        text: String,
        /// The IPv4 address.
        mapped: Ipv4Addr,
    },
    /// The address is that of no one host.
    #[error("address `{0}` is unspecified, multicast or broadcast, expected the address of one host")]
    NotOneHost(IpAddr),
}

fn one_host(address: IpAddr) -> Result<IpAddr, AddressError> {
    let is_broadcast = matches!(address, IpAddr::V4(four) if four.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || is_broadcast {
        return Err(AddressError::NotOneHost(address));
    }
    Ok(address)
}

fn six(text: &str, inner: &str) -> Result<IpAddr, AddressError> {
    let address: Ipv6Addr = inner.parse().map_err(|_| AddressError::Form(text.to_owned()))?;
    if let Some(mapped) = address.to_ipv4_mapped() {
        return Err(AddressError::Mapped { text: text.to_owned(), mapped });
    }
    if address.to_string() != inner {
        return Err(AddressError::NotCanonical { text: text.to_owned(), canonical: address });
    }
    one_host(IpAddr::V6(address))
}

/// The address that a host is: IPv4 plain, IPv6 in brackets. `None` for what is a name, or nothing: that
/// the grammar of names says.
pub(super) fn parse(text: &str) -> Option<Result<IpAddr, AddressError>> {
    if let Some(inner) = text.strip_prefix('[') {
        let whole = inner.strip_suffix(']').ok_or_else(|| AddressError::Form(text.to_owned()));
        return Some(whole.and_then(|inner| six(text, inner)));
    }
    // The standard library takes four decimal numbers without leading zeros, and nothing else.
    let four: Ipv4Addr = text.parse().ok()?;
    Some(one_host(IpAddr::V4(four)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_of_one_host() {
        for good in ["192.0.2.1", "127.0.0.1", "10.0.0.1", "[2001:db8::1]", "[::1]", "[fe80::1]"] {
            let address = parse(good).unwrap().unwrap();
            assert_eq!(address.to_string(), good.trim_matches(['[', ']']), "{good}");
        }
        for (bad, says) in [
            ("[2001:DB8::1]", "written `2001:db8::1`"),
            ("[2001:db8:0:0:0:0:0:1]", "written `2001:db8::1`"),
            ("[::ffff:192.0.2.1]", "IPv4 address `192.0.2.1`"),
            ("[::ffff:c000:201]", "IPv4 address `192.0.2.1`"),
            ("[fe80::1%eth0]", "not an IPv6 address in brackets"),
            ("[192.0.2.1]", "not an IPv6 address in brackets"),
            ("[::1", "not an IPv6 address in brackets"),
            ("[]", "not an IPv6 address in brackets"),
            ("0.0.0.0", "one host"),
            ("[::]", "one host"),
            ("224.0.0.1", "one host"),
            ("[ff02::1]", "one host"),
            ("255.255.255.255", "one host"),
        ] {
            let error = parse(bad).unwrap().unwrap_err().to_string();
            assert!(error.contains(says), "{bad}: {error}");
        }
        // Left to the grammar of names, which refuses them all.
        for name in
            ["0177.0.0.1", "127.1", "2130706433", "0x7f.0.0.1", "01.2.3.4", "1.2.3.4.", "::1", "a.org"]
        {
            assert!(parse(name).is_none(), "{name}");
        }
    }
}
