//! Which addresses a name may lead to: those of the public network.
//!
//! A name that leads to the machine itself, to its neighbours or to a cloud's metadata service is
//! refused, whatever the declared name: who controls the name's zone would otherwise control the
//! step's reach. Ranges: the IANA special-purpose registries (RFC 6890 and its successors). The ranges
//! for documentation are no machine's, and let through.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};

use aos_core::capability::HostName;

/// Asks the system's resolver.
pub(super) fn by_system(name: &HostName, port: u16) -> io::Result<Vec<IpAddr>> {
    Ok((name.as_str(), port).to_socket_addrs()?.map(|address| address.ip()).collect())
}

/// Whether a name may lead to this address.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = match a {
        // this network, private, loopback; multicast, reserved, broadcast
        0 | 10 | 127 | 224.. => true,
        // shared address space of providers
        100 => (64..128).contains(&b),
        // link-local, with the metadata services of clouds
        169 => b == 254,
        172 => (16..32).contains(&b),
        // protocol assignments, private
        192 => (b == 0 && c == 0) || b == 168,
        // benchmarks
        198 => b == 18 || b == 19,
        _ => false,
    };
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Only global unicast; of it not the prefixes that carry an IPv4 address to somewhere (6to4 and
    // Teredo). What lies outside 2000::/3 (loopback, unique local, link-local, multicast, the
    // translation prefix 64:ff9b) is never public.
    (0x2000..0x4000).contains(&a) && a != 0x2002 && !(a == 0x2001 && b == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_network() {
        let public = |text: &str| is_public(text.parse().unwrap());
        for good in [
            "1.1.1.1",
            "151.101.2.132",
            "203.0.113.80",
            "100.63.0.1",
            "172.32.0.1",
            "2606:4700::1",
            "2a04:4e42::644",
        ] {
            assert!(public(good), "{good}");
        }
        for bad in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.170",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2002:7f00:1::1",
            "2001:0:4136::1",
        ] {
            assert!(!public(bad), "{bad}");
        }
    }
}
