//! The answer to "what has changed?": bounded in entries and in bytes, however much an agent made.

use std::path::Path;

use aos_core::workspace::{Change, ChangeKind, Changes, ENTRIES_MAX, NodeKind};
use rustix::io::Errno;

use crate::beneath;
use crate::patch::Patch;
use crate::view::Stack;
use crate::walk::{Found, Next, Visitor, shown, walk};

/// Changes that are counted; a walk over more is cut.
const COUNTED_MAX: u64 = 5_000_000;
/// Bytes of all names in an answer.
const NAMES_MAX_BYTES: usize = 4 << 20;

/// Whether the answer has the text of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// As unified diffs.
    Patch,
    /// Names and sizes only.
    None,
}

struct Lister {
    changes: Changes,
    names_bytes: usize,
    patch: Option<Patch>,
}

/// What the layers of the transaction change.
pub(crate) fn diff(stack: &Stack, text: Text) -> Changes {
    let patch = (text == Text::Patch).then(Patch::default);
    let mut lister = Lister { changes: Changes::default(), names_bytes: 0, patch };
    walk(stack, &[], &mut lister);
    let Lister { mut changes, patch, .. } = lister;
    changes.entries.sort_by(|a, b| a.path.cmp(&b.path));
    changes.patch = patch.map(Patch::into_text);
    changes
}

impl Visitor for Lister {
    fn enters(&self, _: &Path) -> bool {
        true
    }

    fn change(&mut self, found: &Found<'_>) -> Next {
        let change = described(found);
        self.changes.count += 1;
        self.changes.bytes = self.changes.bytes.saturating_add(change.size);
        if let Some(patch) = &mut self.patch
            && is_of_files(found)
            && let Err(error) = patch.add(found)
        {
            self.changes.skipped.add(&shown(found.path), &error.to_string());
        }
        if self.changes.entries.len() < ENTRIES_MAX && self.names_bytes + change.path.len() <= NAMES_MAX_BYTES
        {
            self.names_bytes += change.path.len();
            self.changes.entries.push(change);
        }
        self.changes.is_cut = self.changes.count >= COUNTED_MAX;
        if self.changes.is_cut { Next::Stop } else { Next::Continue }
    }

    fn skip(&mut self, path: &Path, why: Errno) {
        self.changes.skipped.add(&shown(path), &beneath::reason(why));
    }
}

fn is_of_files(found: &Found<'_>) -> bool {
    let is_file = |kind: Option<NodeKind>| kind == Some(NodeKind::File);
    found.kind != ChangeKind::Mode && (is_file(found.now.kind()) || is_file(found.before.kind()))
}

fn described(found: &Found<'_>) -> Change {
    let (now, before) = (found.now.stat(), found.before.stat());
    let was = before.map(beneath::kind);
    Change {
        path: shown(found.path),
        kind: found.kind,
        node: now.or(before).map_or(NodeKind::Device, beneath::kind),
        was: was.filter(|_| found.kind == ChangeKind::Replaced),
        size: now.map_or(0, beneath::size),
        old_size: before.map_or(0, beneath::size),
        mode: now.map_or(0, beneath::permissions),
        old_mode: before.map_or(0, beneath::permissions),
    }
}
