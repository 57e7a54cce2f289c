//! `/etc/aos/enabled/ID`: an agent that starts at boot, with its limits. The supervisor writes it, the generator
//! reads it as root and trusts nothing in it; see `aos-agent-generator`.

use std::collections::BTreeSet;
use std::path::Path;

use aos_core::id::AgentId;
use aos_sandbox::plan::UnitLimits;

use crate::files::{self, FileError};

/// Others may see what starts at boot.
const MODE: u32 = 0o644;

/// Whether the agent starts at boot. The file is the truth; an administrator may have removed it.
#[must_use]
pub fn is_enabled(folder: &Path, id: &AgentId) -> bool {
    folder.join(id.as_str()).symlink_metadata().is_ok_and(|metadata| metadata.is_file())
}

/// All agents that start at boot. Files with other names are not agents'.
pub fn all(folder: &Path) -> Result<BTreeSet<AgentId>, FileError> {
    let failed = |error| FileError::new("list", folder, error);
    let mut agents = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(id) = id.filter(|id| is_enabled(folder, id)) {
            agents.insert(id);
        }
    }
    Ok(agents)
}

/// Makes the agent start at boot with these limits.
pub fn enable(folder: &Path, id: &AgentId, limits: &UnitLimits) -> Result<(), FileError> {
    files::write_atomic(&folder.join(id.as_str()), text(limits).as_bytes(), MODE)
}

/// The agent does not start at boot any more.
pub fn disable(folder: &Path, id: &AgentId) -> Result<(), FileError> {
    files::remove_durably(&folder.join(id.as_str()))
}

fn text(limits: &UnitLimits) -> String {
    let seconds = limits.runtime_max_usec.map(|usec| usec.div_ceil(1_000_000));
    [
        ("MemoryMax", limits.memory_max_bytes),
        ("CPUQuotaPerSecUSec", limits.cpu_quota_per_sec_usec),
        ("TasksMax", limits.tasks_max),
        ("RuntimeMaxSec", seconds),
        ("IOWeight", limits.io_weight),
    ]
    .into_iter()
    .filter_map(|(key, limit)| limit.map(|number| format!("{key}={number}\n")))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_the_truth() {
        let dir = tempfile::tempdir().unwrap();
        let id: AgentId = "web".parse().unwrap();
        assert!(!is_enabled(dir.path(), &id));
        let limits = UnitLimits {
            tasks_max: Some(8),
            runtime_max_usec: Some(1_500_000),
            io_weight: Some(50),
            ..UnitLimits::default()
        };
        enable(dir.path(), &id, &limits).unwrap();
        assert!(is_enabled(dir.path(), &id));
        std::fs::write(dir.path().join(".web.new"), "").unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        assert_eq!(all(dir.path()).unwrap(), BTreeSet::from([id.clone()]));
        assert_eq!(
            std::fs::read_to_string(dir.path().join("web")).unwrap(),
            "TasksMax=8\nRuntimeMaxSec=2\nIOWeight=50\n"
        );
        disable(dir.path(), &id).unwrap();
        disable(dir.path(), &id).unwrap();
        assert!(!is_enabled(dir.path(), &id));
    }
}
