//! The files of `/etc` that are made for each agent. They hold nothing of the host.

use aos_core::id::AgentId;
use serde::{Deserialize, Serialize};

/// Who the agent is inside: known at the start only, since the user may be made with the unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The agent.
    pub agent: AgentId,
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
}

/// A generated file, named for its place in `/etc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GeneratedFile {
    /// The agent's user, and `nobody` for what belongs to others.
    Passwd,
    /// The agent's group, and `nogroup`.
    Group,
    /// The loopback's names and the agent's own.
    Hosts,
    /// The agent's id.
    Hostname,
    /// Names come from these files and from nowhere else.
    Nsswitch,
}

impl GeneratedFile {
    /// Every file with its name in `/etc`.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Passwd, "passwd"),
        (Self::Group, "group"),
        (Self::Hosts, "hosts"),
        (Self::Hostname, "hostname"),
        (Self::Nsswitch, "nsswitch.conf"),
    ];

    /// The file's text.
    pub fn content(self, identity: &Identity) -> String {
        let Identity { agent, uid, gid } = identity;
        let user = agent.user_name();
        match self {
            Self::Passwd => format!(
                "{user}:x:{uid}:{gid}::/workspace:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
            ),
            Self::Group => format!("{user}:x:{gid}:\nnogroup:x:65534:\n"),
            Self::Hosts => format!("127.0.0.1 localhost {agent}\n::1 localhost ip6-localhost ip6-loopback\n"),
            Self::Hostname => format!("{agent}\n"),
            Self::Nsswitch => "passwd: files\ngroup: files\nshadow: files\nhosts: files\nservices: files\nprotocols: files\n".to_owned(),
        }
    }
}
