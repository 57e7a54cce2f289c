//! Settings: where things are and how much is allowed. `/etc/aos/agentd.toml` may change the limits; the paths
//! are fixed by the packaging and changed by tests only.

use std::path::PathBuf;

use serde::Deserialize;

use crate::files::{self, FileError};

/// Bytes of the settings file.
const FILE_MAX: usize = 64 * 1024;

/// Everything that is decided before the daemon starts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where things are.
    pub places: Places,
    /// How much is allowed.
    pub limits: Limits,
    /// The id of this boot: what was recorded under another one has ended.
    pub boot_id: String,
}

/// Where things are.
#[derive(Debug, Clone)]
pub struct Places {
    /// `/var/lib/aos`.
    pub state: PathBuf,
    /// `/var/lib/aos-agents`, the workspaces.
    pub workspaces: PathBuf,
    /// `/var/lib/aos-changes`, what agents changed in transactional workspaces.
    pub changes: PathBuf,
    /// `/run/aos-agents`, the launchers' reports.
    pub reports: PathBuf,
    /// `/etc/aos/enabled`.
    pub enabled: PathBuf,
    /// `/etc/aos/trust.d`, the trust policy; only root writes it.
    pub trust: PathBuf,
    /// `/etc/userdb`, to show an agent's uid.
    pub userdb: PathBuf,
    /// `/sys/fs/cgroup`.
    pub cgroups: PathBuf,
    /// `/proc`.
    pub proc: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            state: "/var/lib/aos".into(),
            workspaces: "/var/lib/aos-agents".into(),
            changes: "/var/lib/aos-changes".into(),
            reports: "/run/aos-agents".into(),
            enabled: "/etc/aos/enabled".into(),
            trust: "/etc/aos/trust.d".into(),
            userdb: "/etc/userdb".into(),
            cgroups: "/sys/fs/cgroup".into(),
            proc: "/proc".into(),
        }
    }
}

/// How much is allowed; the keys of `agentd.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Most agents.
    pub max_agents: usize,
    /// Most checkpoints of one agent.
    pub max_checkpoints: usize,
    /// Largest archive that `Install` reads, bytes.
    pub max_archive_bytes: u64,
    /// Installs at a time of each user.
    pub max_installs_per_user: usize,
    /// Calls at a time of each user but root.
    pub max_calls_per_user: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // 1,000 fully hardened units take about 1 GB in systemd and the kernel; 4 GiB holds a package with a
        // model runtime; the calls bound what waits for polkit or systemd; a checkpoint is a copy of
        // a workspace.
        Self {
            max_agents: 1000,
            max_checkpoints: 20,
            max_archive_bytes: 4 << 30,
            max_installs_per_user: 2,
            max_calls_per_user: 64,
        }
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not valid; the message names line and key.
    #[error("{}: {error}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: toml::de::Error,
    },
    /// The file is not UTF-8.
    #[error("{} is not UTF-8", .0.display())]
    Encoding(PathBuf),
    /// A limit of 0 would stop everything.
    #[error("{}: {key} must be at least 1", path.display())]
    Zero {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
    },
}

impl Limits {
    /// Reads the limits from `path`; a missing file gives the defaults.
    pub fn read(path: &std::path::Path) -> Result<Self, SettingsError> {
        let bytes = match files::read_bounded(path, FILE_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.is_missing() => return Ok(Self::default()),
            Err(error) => return Err(error.into()),
        };
        let text = String::from_utf8(bytes).map_err(|_| SettingsError::Encoding(path.to_owned()))?;
        let limits: Self =
            toml::from_str(&text).map_err(|error| SettingsError::Toml { path: path.to_owned(), error })?;
        for (key, is_zero) in [
            ("max_agents", limits.max_agents == 0),
            ("max_checkpoints", limits.max_checkpoints == 0),
            ("max_archive_bytes", limits.max_archive_bytes == 0),
            ("max_installs_per_user", limits.max_installs_per_user == 0),
            ("max_calls_per_user", limits.max_calls_per_user == 0),
        ] {
            if is_zero {
                return Err(SettingsError::Zero { path: path.to_owned(), key });
            }
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The supervisor's own memory is bounded, with room for the installs of several users.
    #[test]
    fn the_unit_has_memory_for_what_the_limits_allow() {
        let unit = include_str!("../../../systemd/system/agentd.service");
        let bound = unit.lines().find_map(|line| line.strip_prefix("MemoryMax=")?.strip_suffix('M')).unwrap();
        // The window of zstd in `aos_package`.
        let install_mib = 32;
        let users = 5;
        let installs = users * Limits::default().max_installs_per_user;
        assert!((installs * install_mib..=1024).contains(&bound.parse().unwrap()));
    }

    #[test]
    fn reads_and_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agentd.toml");
        assert_eq!(Limits::read(&path).unwrap().max_agents, 1000);
        std::fs::write(&path, "max_agents = 5\n").unwrap();
        let limits = Limits::read(&path).unwrap();
        assert_eq!((limits.max_agents, limits.max_installs_per_user), (5, 2));
        for (text, says) in
            [("max_agent = 5", "max_agent"), ("max_calls_per_user = 0", "at least 1"), ("x", "line 1")]
        {
            std::fs::write(&path, text).unwrap();
            let error = Limits::read(&path).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("agentd.toml"), "{error}");
        }
    }
}
