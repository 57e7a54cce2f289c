//! Where a request goes: scheme, host and port. Credentials are bound to an origin; the rules of
//! plain HTTP and of redirects are about two of them.

use reqwest::Url;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// A scheme, a lower-case host (IPv6 without brackets) and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Origin {
    pub(crate) https: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Origin {
    /// The origin of a URL; none for other schemes, and for a URL that carries a user name.
    pub(crate) fn of(url: &Url) -> Option<Self> {
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        if !url.username().is_empty() || url.password().is_some() {
            return None;
        }
        let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Self { https, host, port: url.port_or_known_default()? })
    }

    /// The address, when the host is one.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// True for a host that is this machine by its spelling alone: no name is resolved, since an
    /// answer of the network must not decide that TLS is not needed.
    pub(crate) fn is_loopback(&self) -> bool {
        match self.address() {
            Some(IpAddr::V4(address)) => address.is_loopback(),
            Some(IpAddr::V6(address)) => {
                address.is_loopback()
                    || address.to_ipv4_mapped().is_some_and(|inner: Ipv4Addr| inner.is_loopback())
            }
            None => self.host == "localhost",
        }
    }

    /// `host:port`, with brackets around IPv6 and without the scheme's own port: how users,
    /// configuration files and directories of certificates name a registry.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let usual = if self.https { 443 } else { 80 };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Option<Origin> {
        Origin::of(&Url::parse(text).unwrap())
    }

    #[test]
    fn origins_of_urls() {
        assert_eq!(origin("https://Reg.Example/v2/").unwrap().to_string(), "https://reg.example");
        assert_eq!(origin("https://reg.example:443/").unwrap(), origin("https://reg.example/x").unwrap());
        assert_eq!(origin("http://[::1]:5000/").unwrap().to_string(), "http://[::1]:5000");
        for text in
            ["ftp://reg.example/", "https://user@reg.example/", "https://:secret@reg.example/", "data:x"]
        {
            assert_eq!(origin(text), None, "{text}");
        }
    }

    #[test]
    fn loopback_by_spelling() {
        for text in [
            "http://localhost/",
            "http://127.9.9.9:1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://0x7f.1/",
        ] {
            assert!(origin(text).unwrap().is_loopback(), "{text}");
        }
        for text in [
            "http://localhost.example/",
            "http://127.0.0.1.example/",
            "http://10.0.0.1/",
            "http://localhost./",
        ] {
            assert!(!origin(text).unwrap().is_loopback(), "{text}");
        }
    }
}
