//! The limit of the workspace on the disk, kept by the file system's project quota, and the note by which the
//! supervisor tells it to `aos-quota@.service`.
//!
//! The note, `/var/lib/aos/quotas/ID`, is one line: `BYTES INODES`, or `none` where there was a limit and is none now.

use aos_core::config::Limits;
use serde::{Deserialize, Serialize};

/// Bytes for each inode: what mke2fs reckons with (`inode_ratio`), so that no agent gets a greater share of a
/// file system's inodes than of its space.
const BYTES_PER_INODE: u64 = 16 << 10;
/// Inodes of the smallest limit: some tools make many small files.
const INODES_MIN: u64 = 4096;
/// The least limit: AOS's own directories in a workspace take some blocks.
const BYTES_MIN: u64 = 256 << 10;
/// Bytes of a note at most: two numbers.
pub const NOTE_MAX_BYTES: usize = 64;
/// The note of an agent that has no limit any more.
const NONE: &str = "none\n";

/// How much of the disk an agent may use, for its workspace and for what it changed in it together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskLimit {
    /// Bytes, in whole blocks.
    pub bytes: u64,
    /// Files, directories and all else that has an inode.
    pub inodes: u64,
}

impl DiskLimit {
    /// The limit of an Agentfile. What is below the least one is the least one.
    pub fn of(limits: &Limits) -> Option<Self> {
        let bytes = limits.disk?.bytes().max(BYTES_MIN);
        Some(Self { bytes, inodes: (bytes / BYTES_PER_INODE).max(INODES_MIN) })
    }

    /// The note about a limit, or about none.
    pub fn note(limit: Option<Self>) -> String {
        limit.map_or_else(|| NONE.to_owned(), |Self { bytes, inodes }| format!("{bytes} {inodes}\n"))
    }

    /// What a note says; `None` if it says nothing that this type writes.
    pub fn parse_note(text: &str) -> Option<Option<Self>> {
        if text == NONE {
            return Some(None);
        }
        let (bytes, inodes) = text.strip_suffix('\n')?.split_once(' ')?;
        let limit = Self { bytes: bytes.parse().ok()?, inodes: inodes.parse().ok()? };
        // Zero is the kernel's word for no limit; and only one text stands for a limit.
        (limit.bytes > 0 && limit.inodes > 0 && Self::note(Some(limit)) == text).then_some(Some(limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(disk: &str) -> Option<DiskLimit> {
        DiskLimit::of(&Limits { disk: Some(disk.parse().unwrap()), ..Limits::default() })
    }

    #[test]
    fn inodes_follow_from_bytes() {
        assert_eq!(DiskLimit::of(&Limits::default()), None);
        for (disk, bytes, inodes) in [
            ("1", 256 << 10, 4096),
            ("64M", 64 << 20, 4096),
            ("1G", 1 << 30, 65_536),
            ("100G", 100 << 30, 6_553_600),
        ] {
            assert_eq!(of(disk), Some(DiskLimit { bytes, inodes }), "{disk}");
        }
    }

    #[test]
    fn a_note_is_read_as_it_was_written_and_nothing_else_is() {
        for limit in [None, of("1G"), of("8T")] {
            assert_eq!(DiskLimit::parse_note(&DiskLimit::note(limit)), Some(limit));
            assert!(DiskLimit::note(limit).len() <= NOTE_MAX_BYTES);
        }
        for bad in [
            "",
            "\n",
            "none",
            "none\nnone\n",
            "1\n",
            "1 2",
            "0 1\n",
            "1 0\n",
            "01 2\n",
            "+1 2\n",
            "1  2\n",
            "1 2 3\n",
            "-1 2\n",
            "99999999999999999999 1\n",
        ] {
            assert_eq!(DiskLimit::parse_note(bad), None, "{bad:?}");
        }
    }
}
