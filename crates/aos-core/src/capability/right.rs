//! What a capability is for, without its qualifiers: the kinds of the grammar, each with its value.

use super::access::Access;
use super::address;
use super::error::CapabilityError;
use super::host::{HostError, HostName, HostPattern};
use super::name::{AnyOr, DeviceName, MemoryUse, ModelAlias, NameError, ToolPattern};
use super::pattern::PathPattern;
use crate::id::{AgentId, PackageName};
use crate::text::SecretName;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The capability names, and the form of each value. Parser, messages and schema are derived from it.
pub const KNOWN: [(&str, &str); 13] = [
    ("file_read", "an absolute path pattern, such as `file_read: /data/**`"),
    ("file_write", "an absolute path pattern, such as `file_write: /data/out/**`"),
    ("exec", "an absolute path pattern, such as `exec: /usr/bin/git`"),
    ("net", "HOST:PORT or ADDRESS:PORT, such as `net: api.github.com:443`"),
    ("listen", "a port, such as `listen: 8080`"),
    ("inference", "the alias of a model, such as `inference: fast`"),
    ("tool", "a tool's name, such as `tool: web_fetch` or `tool: mcp.github.*`"),
    ("memory", "read or write, such as `memory: read`"),
    ("message", "an agent, or * for all, such as `message: reviewer`"),
    ("spawn", "a package, or * for all, such as `spawn: researcher`"),
    ("skill", "a skill, or * for all, such as `skill: pdf`"),
    ("secret", "NAME@HOST, such as `secret: github-token@api.github.com`"),
    ("device", "a device's name, such as `device: gpu`"),
];

/// The names of a table, for messages.
pub(super) fn known_names(table: &[(&str, &str)]) -> String {
    table.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// What a capability is for.
///
/// The order is that in which capabilities are printed and kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Right {
    /// Read files and list directories. Gives no right to execute.
    FileRead(PathPattern),
    /// Create, change, remove and also read files. Gives no right to execute.
    FileWrite(PathPattern),
    /// Execute programs.
    Exec(PathPattern),
    /// Connect to a host by name and port.
    Net(HostPattern, u16),
    /// Connect to an address, named as such, and port.
    NetAddress(IpAddr, u16),
    /// Listen on a TCP port of the agent's own loopback.
    Listen(u16),
    /// Ask a model by its alias.
    Inference(ModelAlias),
    /// Call tools.
    Tool(ToolPattern),
    /// Use the memory; writing is also reading.
    Memory(MemoryUse),
    /// Send messages to an agent.
    Message(AnyOr<AgentId>),
    /// Start agents of a package, with a subset of one's own capabilities.
    Spawn(AnyOr<PackageName>),
    /// Read a skill.
    Skill(AnyOr<PackageName>),
    /// Have a secret sent to one host, without holding it.
    Secret(SecretName, HostName),
    /// Use a device.
    Device(DeviceName),
}

/// Parses a port: plain digits, no leading zero, 1 to 65535.
fn parse_port(name: &'static str, text: &str) -> Result<u16, CapabilityError> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    let port = if plain { text.parse().ok() } else { None };
    port.ok_or_else(|| CapabilityError::Port { name, text: text.to_owned() })
}

fn parse_pattern(name: &'static str, value: &str) -> Result<PathPattern, CapabilityError> {
    value.parse().map_err(|source| CapabilityError::Pattern { name, source })
}

/// Parses a value that is a name.
fn parse_name<T: FromStr<Err: Into<NameError>>>(
    name: &'static str,
    value: &str,
) -> Result<T, CapabilityError> {
    value.parse().map_err(|error: T::Err| CapabilityError::Name { name, source: error.into() })
}

/// `HOST:PORT`, with a name, a pattern of names, or an address.
fn parse_net(value: &str) -> Result<Right, CapabilityError> {
    let no_port = || CapabilityError::Host(HostError::NoPort(value.to_owned()));
    let (host, port) = value.rsplit_once(':').ok_or_else(no_port)?;
    match address::parse(host) {
        Some(address) => Ok(Right::NetAddress(address?, parse_port("net", port)?)),
        None => Ok(Right::Net(host.parse()?, parse_port("net", port)?)),
    }
}

/// `NAME@HOST`, with one host: what a secret is sent to is never a pattern.
fn parse_secret(value: &str) -> Result<Right, CapabilityError> {
    let form = || CapabilityError::Name { name: "secret", source: NameError::SecretForm(value.to_owned()) };
    let (secret, host) = value.split_once('@').ok_or_else(form)?;
    let host = host.parse().map_err(CapabilityError::SecretHost)?;
    Ok(Right::Secret(parse_name("secret", secret)?, host))
}

impl Right {
    /// The name in the grammar.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::FileRead(_) => "file_read",
            Self::FileWrite(_) => "file_write",
            Self::Exec(_) => "exec",
            Self::Net(..) | Self::NetAddress(..) => "net",
            Self::Listen(_) => "listen",
            Self::Inference(_) => "inference",
            Self::Tool(_) => "tool",
            Self::Memory(_) => "memory",
            Self::Message(_) => "message",
            Self::Spawn(_) => "spawn",
            Self::Skill(_) => "skill",
            Self::Secret(..) => "secret",
            Self::Device(_) => "device",
        }
    }

    /// True when the kernel holds an agent to it from its start; what is left is asked of the broker at each
    /// use.
    pub const fn is_of_kernel(&self) -> bool {
        match self {
            Self::FileRead(_) | Self::FileWrite(_) | Self::Exec(_) | Self::Listen(_) | Self::Device(_) => {
                true
            }
            Self::Net(..)
            | Self::NetAddress(..)
            | Self::Inference(_)
            | Self::Tool(_)
            | Self::Memory(_)
            | Self::Message(_)
            | Self::Spawn(_)
            | Self::Skill(_)
            | Self::Secret(..) => false,
        }
    }

    /// Parses from the two halves of a line without qualifiers.
    pub fn from_parts(name: &str, value: &str) -> Result<Self, CapabilityError> {
        match name {
            "file_read" => Ok(Self::FileRead(parse_pattern("file_read", value)?)),
            "file_write" => Ok(Self::FileWrite(parse_pattern("file_write", value)?)),
            "exec" => Ok(Self::Exec(parse_pattern("exec", value)?)),
            "net" => parse_net(value),
            "listen" => Ok(Self::Listen(parse_port("listen", value)?)),
            "inference" => Ok(Self::Inference(parse_name("inference", value)?)),
            "tool" => Ok(Self::Tool(parse_name("tool", value)?)),
            "memory" => Ok(Self::Memory(parse_name("memory", value)?)),
            "message" => Ok(Self::Message(parse_name("message", value)?)),
            "spawn" => Ok(Self::Spawn(parse_name("spawn", value)?)),
            "skill" => Ok(Self::Skill(parse_name("skill", value)?)),
            "secret" => parse_secret(value),
            "device" => Ok(Self::Device(parse_name("device", value)?)),
            _ => Err(CapabilityError::Unknown(name.to_owned())),
        }
    }

    /// True when this names `access`.
    pub fn permits(&self, access: &Access) -> bool {
        match (self, access) {
            (Self::FileRead(pattern) | Self::FileWrite(pattern), Access::FileRead(path))
            | (Self::FileWrite(pattern), Access::FileWrite(path))
            | (Self::Exec(pattern), Access::Exec(path)) => pattern.matches(path),
            (Self::Net(host, port), Access::Net(name, to)) => port == to && host.matches(name),
            (Self::NetAddress(mine, port), Access::NetAddress(address, to)) => port == to && mine == address,
            (Self::Listen(port), Access::Listen(on)) => port == on,
            (Self::Inference(mine), Access::Inference(alias)) => mine == alias,
            (Self::Tool(pattern), Access::Tool(tool)) => pattern.matches(tool),
            (Self::Memory(mine), Access::Memory(wanted)) => mine >= wanted,
            (Self::Message(agents), Access::Message(agent)) => agents.matches(agent),
            (Self::Spawn(packages), Access::Spawn(package)) => packages.matches(package),
            (Self::Skill(skills), Access::Skill(skill)) => skills.matches(skill),
            (Self::Secret(mine, host), Access::Secret(secret, to)) => mine == secret && host == to,
            (Self::Device(mine), Access::Device(device)) => mine == device,
            _ => false,
        }
    }

    /// True when everything that `other` permits, this permits too. Writing covers reading.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::FileRead(a) | Self::FileWrite(a), Self::FileRead(b))
            | (Self::FileWrite(a), Self::FileWrite(b))
            | (Self::Exec(a), Self::Exec(b)) => b.is_subset(a),
            (Self::Net(a, port), Self::Net(b, to)) => port == to && b.is_subset(a),
            (Self::Tool(a), Self::Tool(b)) => b.is_subset(a),
            (Self::Memory(a), Self::Memory(b)) => a >= b,
            (Self::Message(a), Self::Message(b)) => b.is_subset(a),
            (Self::Spawn(a), Self::Spawn(b)) | (Self::Skill(a), Self::Skill(b)) => b.is_subset(a),
            // What names one thing covers that thing.
            _ => self == other,
        }
    }

    /// The path pattern, for the rights that have one.
    pub const fn pattern(&self) -> Option<&PathPattern> {
        match self {
            Self::FileRead(pattern) | Self::FileWrite(pattern) | Self::Exec(pattern) => Some(pattern),
            _ => None,
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name())?;
        match self {
            Self::FileRead(pattern) | Self::FileWrite(pattern) | Self::Exec(pattern) => pattern.fmt(f),
            Self::Net(host, port) => write!(f, "{host}:{port}"),
            Self::NetAddress(IpAddr::V4(address), port) => write!(f, "{address}:{port}"),
            Self::NetAddress(IpAddr::V6(address), port) => write!(f, "[{address}]:{port}"),
            Self::Listen(port) => port.fmt(f),
            Self::Inference(alias) => alias.fmt(f),
            Self::Tool(pattern) => pattern.fmt(f),
            Self::Memory(word) => word.fmt(f),
            Self::Message(agents) => agents.fmt(f),
            Self::Spawn(names) | Self::Skill(names) => names.fmt(f),
            Self::Secret(secret, host) => write!(f, "{secret}@{host}"),
            Self::Device(device) => device.fmt(f),
        }
    }
}
