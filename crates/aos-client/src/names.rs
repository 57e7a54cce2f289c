//! Names on the bus: the well-known name, paths, interfaces, and how an agent's id becomes a path.

use std::fmt::Write as _;

/// Well-known bus name of the supervisor.
pub const BUS_NAME: &str = "org.aos.Agentd1";
/// Path of the manager object.
pub const MANAGER_PATH: &str = "/org/aos/Agentd1";
/// Interface of the manager object.
pub const MANAGER_INTERFACE: &str = "org.aos.Agentd1.Manager";
/// Interface of one agent's object.
pub const AGENT_INTERFACE: &str = "org.aos.Agentd1.Agent";
/// Prefix of the error names; one of [`crate::ErrorKind`] follows.
pub const ERROR_PREFIX: &str = "org.aos.Agentd1.Error.";
/// Parent of the agents' paths, with the trailing slash.
pub const AGENT_PATH_PREFIX: &str = "/org/aos/Agentd1/agent/";

/// polkit action: reading.
pub const ACTION_READ: &str = "org.aos.agentd1.read";
/// polkit action: starting, stopping, configuring agents.
pub const ACTION_MANAGE: &str = "org.aos.agentd1.manage";
/// polkit action: giving an agent capabilities that it does not have, also beyond its package's.
pub const ACTION_GRANT: &str = "org.aos.agentd1.grant";
/// polkit action: installing packages that the trust policy trusts, and removing packages.
pub const ACTION_INSTALL: &str = "org.aos.agentd1.install";
/// polkit action: installing packages without a signature, as built on this machine.
pub const ACTION_INSTALL_LOCAL: &str = "org.aos.agentd1.install-local";

/// The object path of agent `id`: every byte outside `[A-Za-z0-9]` becomes `_xx` in lower-case hex, as
/// systemd does for units, so that the mapping is reversible.
#[must_use]
pub fn agent_path(id: &str) -> String {
    let mut path = String::with_capacity(AGENT_PATH_PREFIX.len() + id.len());
    path.push_str(AGENT_PATH_PREFIX);
    if id.is_empty() {
        path.push('_');
    }
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() {
            path.push(char::from(byte));
        } else if write!(path, "_{byte:02x}").is_err() {
            // Writing to a String does not fail; the type asks all the same.
            path.push('_');
        }
    }
    path
}

/// The agent id of an object path made by [`agent_path`]; `None` for anything else.
#[must_use]
pub fn agent_id_of_path(path: &str) -> Option<String> {
    let escaped = path.strip_prefix(AGENT_PATH_PREFIX)?;
    if escaped == "_" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'_' => bytes.push(hex_digit(rest.next()?)? << 4 | hex_digit(rest.next()?)?),
            other if other.is_ascii_alphanumeric() => bytes.push(other),
            _ => return None,
        }
    }
    let id = String::from_utf8(bytes).ok()?;
    (!id.is_empty() && agent_path(&id) == path).then_some(id)
}

/// The systemd unit of agent `id`.
#[must_use]
pub fn agent_unit(id: &str) -> String {
    format!("aos-agent@{id}.service")
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_as_systemd_does() {
        assert_eq!(agent_path("hello"), "/org/aos/Agentd1/agent/hello");
        assert_eq!(agent_path("site-watch"), "/org/aos/Agentd1/agent/site_2dwatch");
        assert_eq!(agent_path(""), "/org/aos/Agentd1/agent/_");
    }

    #[test]
    fn refuses_foreign_paths() {
        for path in [
            "/org/aos/Agentd1",
            "/org/aos/Agentd1/agent/",
            "/org/aos/Agentd1/agent/a_2",
            "/org/aos/Agentd1/agent/a_zz",
            "/org/aos/Agentd1/agent/a_61",
            "/org/aos/Agentd1/agent/a_2D",
            "/org/aos/Agentd1/agent/a-b",
        ] {
            assert_eq!(agent_id_of_path(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn path_is_reversible_and_valid(id in "\\PC{1,40}") {
            let path = agent_path(&id);
            prop_assert!(zbus::ObjectPath::try_from(path.as_str()).is_ok());
            prop_assert_eq!(agent_id_of_path(&path), Some(id));
        }

        #[test]
        fn any_path_is_read_without_panic(path in "/org/aos/Agentd1/agent/[ -~]{0,40}") {
            if let Some(id) = agent_id_of_path(&path) {
                prop_assert_eq!(agent_path(&id), path);
            }
        }
    }
}
