//! The JSON user and group records (systemd.io/USER_RECORD, GROUP_RECORD) and what makes one ours.

use std::ops::RangeInclusive;

use aos_core::id::AgentId;
use serde::{Deserialize, Serialize};

/// The agents' uids: 0x70010000, 65,536 of them. systemd's table of ranges assigns nothing there.
pub(crate) const UIDS: RangeInclusive<u32> = 0x7001_0000..=0x7001_ffff;

/// Where the agents' workspaces are; `StateDirectory=aos-agents/ID`.
const HOMES: &str = "/var/lib/aos-agents";

/// A user record, with the fields that this program writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct UserRecord {
    user_name: String,
    uid: u32,
    gid: u32,
    real_name: String,
    disposition: String,
    home_directory: String,
    shell: String,
    locked: bool,
}

/// A group record, with the fields that this program writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GroupRecord {
    group_name: String,
    gid: u32,
    description: String,
    disposition: String,
}

/// The number in a user or group record, whoever wrote it.
pub(crate) fn number(bytes: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct Numbered {
        uid: Option<u32>,
        gid: Option<u32>,
    }
    let Numbered { uid, gid } = serde_json::from_slice(bytes).ok()?;
    uid.or(gid)
}

impl UserRecord {
    pub(crate) fn new(id: &AgentId, uid: u32) -> Self {
        Self {
            user_name: id.user_name(),
            uid,
            gid: uid,
            real_name: format!("AOS agent {id}"),
            disposition: "system".to_owned(),
            home_directory: format!("{HOMES}/{id}"),
            shell: "/usr/sbin/nologin".to_owned(),
            locked: true,
        }
    }

    /// The uid, when `bytes` is exactly the record that this program writes for `id`.
    pub(crate) fn own_uid(id: &AgentId, bytes: &[u8]) -> Option<u32> {
        let record: Self = serde_json::from_slice(bytes).ok()?;
        (UIDS.contains(&record.uid) && record == Self::new(id, record.uid)).then_some(record.uid)
    }
}

impl GroupRecord {
    pub(crate) fn new(id: &AgentId, gid: u32) -> Self {
        Self {
            group_name: id.user_name(),
            gid,
            description: format!("AOS agent {id}"),
            disposition: "system".to_owned(),
        }
    }

    /// The gid, when `bytes` is exactly the record that this program writes for `id`.
    pub(crate) fn own_gid(id: &AgentId, bytes: &[u8]) -> Option<u32> {
        let record: Self = serde_json::from_slice(bytes).ok()?;
        (UIDS.contains(&record.gid) && record == Self::new(id, record.gid)).then_some(record.gid)
    }
}
