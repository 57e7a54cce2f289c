//! What is asked of `aos-workspace`, and what it answers: the supervisor writes requests, the command line reads
//! answers, and neither reads the other's.
//!
//! Both are one JSON object, at most [`REQUEST_MAX_BYTES`] and [`ANSWER_MAX_BYTES`]. Names in an answer were chosen by
//! an agent: every byte outside of printable UTF-8, and the backslash, is written as `\xNN`, so that they are one
//! line of text and two different names are never the same.

use serde::{Deserialize, Serialize};

use crate::path::AbsolutePath;

/// The version of both formats.
pub const VERSION: u32 = 1;
/// Bytes of a request: [`PATHS_MAX`] paths, escaped.
pub const REQUEST_MAX_BYTES: usize = 16 << 20;
/// Bytes of an answer. [`ENTRIES_MAX`] long names and a long patch stay below.
pub const ANSWER_MAX_BYTES: usize = 16 << 20;
/// Paths that one request may name.
pub const PATHS_MAX: usize = 1000;
/// Changed entries that an answer lists; the rest is counted.
pub const ENTRIES_MAX: usize = 10_000;
/// Bytes of a snapshot's name.
pub const NAME_MAX_BYTES: usize = 64;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// The answer's file is `answer-TOKEN.json`: letters and digits.
    pub token: String,
    /// The user who may read the answer, beside the agent's own.
    pub reader_uid: u32,
    /// The folder of changes.
    pub changes: AbsolutePath,
    /// What is below the changes, the topmost first.
    pub lower: Vec<AbsolutePath>,
    /// Whose the layers below are.
    pub below: Below,
    /// What to do.
    pub operation: Operation,
}

/// Whose the layers below the changes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Below {
    /// One directory, the agent's own.
    Own,
    /// They are frozen, and others use them.
    Shared,
}

/// An operation on a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// Say what the changes and snapshots change.
    Diff {
        /// Text too, as a patch.
        patch: bool,
    },
    /// Apply changes to what is below, and end the transaction when nothing is left.
    Commit {
        /// Only these, relative to the workspace, each with what is beneath it; all when there are none.
        paths: Vec<String>,
    },
    /// Throw changes away.
    Discard {
        /// The snapshot to go back to; without one, all changes go.
        to: Option<u32>,
    },
    /// Freeze the changes, and begin with none above them.
    Snapshot {
        /// A name for people.
        name: Option<String>,
        /// When, microseconds since the epoch.
        at_us: u64,
    },
    /// Say which snapshots there are.
    Snapshots,
    /// A step of keeping a checkpoint, or of bringing one back: of any workspace, and never a caller's own request.
    Checkpoint(CheckpointStep),
}

/// A step of the supervisor's with checkpoints, which are numbered from 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CheckpointStep {
    /// Delete what is none of `keep`, and copy all files into a new checkpoint. The agent is stopped or frozen.
    Save {
        /// The new one.
        number: u32,
        /// Those that stay.
        keep: Vec<u32>,
    },
    /// Copy a checkpoint to where it can be moved into place; any other operation than [`Self::Swap`] gives that up.
    Stage {
        /// Which.
        number: u32,
    },
    /// Put what was staged in the place of what is there. When nothing is staged, it was done before.
    Swap,
    /// Delete all checkpoints but these.
    Prune {
        /// Those that stay.
        keep: Vec<u32>,
    },
}

impl Operation {
    /// Whether it changes nothing that the agent sees, so that it may run meanwhile.
    pub const fn only_reads(&self) -> bool {
        use CheckpointStep::{Prune, Save};
        matches!(self, Self::Diff { .. } | Self::Snapshots | Self::Checkpoint(Save { .. } | Prune { .. }))
    }

    /// The word for it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Diff { .. } => "diff",
            Self::Commit { .. } => "commit",
            Self::Discard { .. } => "discard",
            Self::Snapshot { .. } => "snapshot",
            Self::Snapshots => "list of snapshots",
            Self::Checkpoint(CheckpointStep::Save { .. }) => "checkpoint",
            Self::Checkpoint(CheckpointStep::Stage { .. } | CheckpointStep::Swap) => "restore",
            Self::Checkpoint(CheckpointStep::Prune { .. }) => "removal of checkpoints",
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Operation::Diff`].
    Changes(Changes),
    /// To [`Operation::Commit`].
    Committed(Committed),
    /// To [`Operation::Discard`]: the newest snapshot that is left, 0 when there is none.
    Discarded {
        /// Its number.
        newest: u32,
        /// Whether a commit that was cut short was given up for it: what that had applied stays.
        #[serde(default)]
        gave_up_commit: bool,
    },
    /// To [`Operation::Snapshot`].
    Snapshot {
        /// The newest snapshot, 0 when there is none.
        newest: u32,
        /// Whether it is new; it is not when nothing has changed since the last one.
        made: bool,
    },
    /// To [`Operation::Snapshots`]: oldest first.
    Snapshots(Vec<Snapshot>),
    /// To [`CheckpointStep::Save`].
    Saved {
        /// Files, directories, links and so on.
        entries: u64,
        /// Bytes that they take on the disk.
        bytes: u64,
    },
    /// To any other [`CheckpointStep`].
    Done,
    /// It was not done.
    Failed {
        /// Why, in one line.
        message: String,
    },
}

/// The changes of a workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Sorted by path, at most [`ENTRIES_MAX`].
    pub entries: Vec<Change>,
    /// How many there are.
    pub count: u64,
    /// Whether counting stopped before the end.
    pub is_cut: bool,
    /// Bytes of the new and modified files.
    pub bytes: u64,
    /// What could not be looked at.
    pub skipped: Skipped,
    /// Unified diffs of text files, when they were asked for.
    pub patch: Option<String>,
}

/// One changed path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Below the workspace, escaped.
    pub path: String,
    /// What happened to it.
    pub kind: ChangeKind,
    /// What is there now; what was there, for [`ChangeKind::Deleted`].
    pub node: NodeKind,
    /// What was there, for [`ChangeKind::Replaced`].
    pub was: Option<NodeKind>,
    /// Bytes of the file that is there now.
    pub size: u64,
    /// Bytes of the file that was there.
    pub old_size: u64,
    /// Permissions now.
    pub mode: u32,
    /// Permissions before.
    pub old_mode: u32,
}

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// Other content, or a link to elsewhere.
    Modified,
    /// It is gone, with all beneath it.
    Deleted,
    /// Something of another type is there.
    Replaced,
    /// Other permissions and nothing else.
    Mode,
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A device.
    Device,
}

/// What could not be looked at, or applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The first ones, each with the reason.
    pub entries: Vec<String>,
    /// How many there are.
    pub count: u64,
}

impl Skipped {
    /// Reasons that are listed.
    const LISTED: usize = 100;

    /// One more.
    pub fn add(&mut self, path: &str, why: &str) {
        self.count += 1;
        if self.entries.len() < Self::LISTED {
            self.entries.push(format!("{path}: {why}"));
        }
    }
}

/// What a commit did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// Changes that were applied.
    pub count: u64,
    /// Bytes of the files among them.
    pub bytes: u64,
    /// Asked for, and not changed.
    pub unchanged: Vec<String>,
    /// What could not be applied, and is still a change.
    pub skipped: Skipped,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// 1 is the oldest.
    pub number: u32,
    /// For people.
    pub name: Option<String>,
    /// When, microseconds since the epoch.
    pub at_us: u64,
}

/// A name as it is in an answer.
pub fn escaped(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' || is_unprintable(c) {
                let mut bytes = [0; 4];
                escape(c.encode_utf8(&mut bytes).as_bytes(), &mut text);
            } else {
                text.push(c);
            }
        }
        escape(chunk.invalid(), &mut text);
    }
    text
}

/// Controls, and what reorders or hides text around it (Unicode's Bidi_Control and zero-width characters).
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn escape(bytes: &[u8], into: &mut String) {
    for byte in bytes {
        for part in ["\\x", hex(byte >> 4), hex(byte & 15)] {
            into.push_str(part);
        }
    }
}

const fn hex(digit: u8) -> &'static str {
    match digit {
        0 => "0",
        1 => "1",
        2 => "2",
        3 => "3",
        4 => "4",
        5 => "5",
        6 => "6",
        7 => "7",
        8 => "8",
        9 => "9",
        10 => "a",
        11 => "b",
        12 => "c",
        13 => "d",
        14 => "e",
        _ => "f",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_line_and_stay_different() {
        assert_eq!(escaped("a b/\u{e9}".as_bytes()), "a b/\u{e9}");
        assert_eq!(escaped(b"a\nb\x1b[2J\\"), "a\\x0ab\\x1b[2J\\x5c");
        assert_eq!(escaped(b"\xff\xc3"), "\\xff\\xc3");
        assert_eq!(escaped("x\u{202e}y".as_bytes()), "x\\xe2\\x80\\xaey");
        assert_ne!(escaped(b"\\xff"), escaped(b"\xff"));
    }

    #[test]
    fn what_is_skipped_is_counted_and_bounded() {
        let mut skipped = Skipped::default();
        for _ in 0..1000 {
            skipped.add("a", "why");
        }
        assert_eq!((skipped.count, skipped.entries.len()), (1000, Skipped::LISTED));
    }
}
