//! The limit on the disk: what was asked, and what the file system says.

use std::path::Path;

use aos_client::explanation::{LayerRow, Source};
use aos_sandbox::disk::{self, Measured};
use aos_sandbox::plan::DiskLimit;

/// A row, when something was asked or something is in force. A limit stays when nothing runs.
pub(super) fn row(directory: &Path, asked: Option<DiskLimit>) -> Option<LayerRow> {
    let measured = disk::measure(directory);
    if asked.is_none() && !measured.as_ref().is_ok_and(|measured| measured.is_limited) {
        return None;
    }
    let (in_force, ok) = match measured {
        Ok(measured) => (words(&measured), Some(asked.is_some_and(|asked| holds(&measured, asked)))),
        // Before the first start.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (String::new(), None),
        Err(error) => (crate::failure::chain(&error), Some(false)),
    };
    let asked = asked.map_or_else(
        || "no limit".to_owned(),
        |asked| format!("at most {} bytes, {} files", asked.bytes, asked.inodes),
    );
    let cause = "limits.disk".to_owned();
    Some(LayerRow { layer: "disk".to_owned(), asked, in_force, ok, cause, source: Source::Filesystem })
}

/// A file system that is smaller than the limit holds too.
const fn holds(measured: &Measured, asked: DiskLimit) -> bool {
    measured.limit_bytes <= asked.bytes && measured.limit_inodes <= asked.inodes
}

fn words(measured: &Measured) -> String {
    if !measured.is_limited {
        let Measured { limit_bytes, limit_inodes, .. } = measured;
        return format!("the whole file system: {limit_bytes} bytes, {limit_inodes} files");
    }
    let used = |used: Option<u64>| used.map_or_else(|| "unknown".to_owned(), |used| used.to_string());
    format!(
        "at most {} bytes, {} files; used: {} bytes, {} files",
        measured.limit_bytes,
        measured.limit_inodes,
        used(measured.used_bytes),
        used(measured.used_inodes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_asked_for_and_nothing_limits_has_no_row() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(row(dir.path(), None), None);
        let asked = DiskLimit { bytes: 1 << 20, inodes: 4096 };
        let found = row(dir.path(), Some(asked)).unwrap();
        assert_eq!((found.asked.as_str(), found.ok), ("at most 1048576 bytes, 4096 files", Some(false)));
        assert!(found.in_force.starts_with("the whole file system: "), "{}", found.in_force);
        let small = row(dir.path(), Some(DiskLimit { bytes: u64::MAX, inodes: u64::MAX })).unwrap();
        assert_eq!(small.ok, Some(true));
        let before = row(&dir.path().join("web"), Some(asked)).unwrap();
        assert_eq!((before.in_force.as_str(), before.ok), ("", None));
        let used = Measured {
            is_limited: true,
            limit_bytes: 10,
            limit_inodes: 5,
            used_bytes: Some(3),
            used_inodes: None,
        };
        assert_eq!(words(&used), "at most 10 bytes, 5 files; used: 3 bytes, unknown files");
    }
}
