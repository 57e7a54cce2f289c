//! What an agent asks to do, and under which circumstances: what capabilities are asked about.

use super::host::HostName;
use super::name::{DeviceName, MemoryUse, ModelAlias, ToolName};
use super::qualifier::Approval;
use crate::id::{AgentId, PackageName};
use crate::path::AbsolutePath;
use crate::text::SecretName;
use crate::time::UtcTime;
use std::net::IpAddr;

/// One concrete thing that an agent asks to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Read this file.
    FileRead(AbsolutePath),
    /// Write this file.
    FileWrite(AbsolutePath),
    /// Execute this file.
    Exec(AbsolutePath),
    /// Connect to this host, by its name, and port.
    Net(HostName, u16),
    /// Connect to this address, named as such, and port.
    NetAddress(IpAddr, u16),
    /// Listen on this port.
    Listen(u16),
    /// Ask a model by this alias.
    Inference(ModelAlias),
    /// Call this tool.
    Tool(ToolName),
    /// Use the memory in this way.
    Memory(MemoryUse),
    /// Send a message to this agent.
    Message(AgentId),
    /// Start an agent of this package.
    Spawn(PackageName),
    /// Read this skill.
    Skill(PackageName),
    /// Have this secret sent to this host.
    Secret(SecretName, HostName),
    /// Use this device.
    Device(DeviceName),
}

/// What the keeper of a capability knows when it is used: its qualifiers are asked about this.
///
/// Calls and bytes are those that count against the capability. Whoever hands a capability on shares what
/// is left of it: a use counts for the user and for each of its ancestors, so that two children with
/// `max_calls=10` of a parent with as many have ten between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Circumstances<'a> {
    /// The approvals that persons have given and that speak of this use.
    pub approvals: &'a [Approval],
    /// Uses before this one.
    pub calls_before: u64,
    /// Bytes when this use is done.
    pub bytes_after: u64,
    /// The time of the use.
    pub now: UtcTime,
}
