//! Unified diffs of text files, bounded: of each file, of all together, and in time.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use rustix::io::Errno;
use similar::TextDiff;

use crate::beneath;
use crate::walk::{Found, shown};

/// Bytes of a file whose text is compared.
const FILE_MAX: u64 = 256 << 10;
/// Bytes of all diffs.
const ALL_MAX: usize = 4 << 20;
/// Longest search for the shortest diff of one file; then a longer one is taken.
const FILE_TIME: Duration = Duration::from_millis(200);

/// The diffs so far.
#[derive(Debug, Default)]
pub(crate) struct Patch {
    text: String,
    is_full: bool,
}

/// One side of a file.
enum Side {
    Absent,
    Text(String),
    Other,
}

impl Patch {
    /// Adds a changed file; says in a line why its text is not shown.
    pub(crate) fn add(&mut self, found: &Found<'_>) -> Result<(), Errno> {
        if self.is_full {
            return Ok(());
        }
        let path = shown(found.path);
        let old = side(found.old_source, found)?;
        let new = side(found.source, found)?;
        let (Some(before), Some(after)) = (old.text(), new.text()) else {
            self.push(&format!("Not shown: {path} (no text, or over {} KiB)\n", FILE_MAX >> 10));
            return Ok(());
        };
        let name = |side: &Side, prefix: &str| match side {
            Side::Absent => "/dev/null".to_owned(),
            _ => format!("{prefix}/{path}"),
        };
        let diff = TextDiff::configure().timeout(FILE_TIME).diff_lines(before, after);
        let text =
            diff.unified_diff().context_radius(3).header(&name(&old, "a"), &name(&new, "b")).to_string();
        self.push(&text);
        Ok(())
    }

    fn push(&mut self, text: &str) {
        if self.text.len() + text.len() > ALL_MAX {
            self.is_full = true;
            self.text.push_str("Not shown: the rest, which is too long\n");
        } else {
            self.text.push_str(text);
        }
    }

    /// All of it.
    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

impl Side {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Absent => Some(""),
            Self::Text(text) => Some(text),
            Self::Other => None,
        }
    }
}

fn side(source: Option<&std::os::fd::OwnedFd>, found: &Found<'_>) -> Result<Side, Errno> {
    let Some(directory) = source else { return Ok(Side::Absent) };
    match beneath::open_file(directory, found.name) {
        Ok(file) => Ok(read(file)?.map_or(Side::Other, Side::Text)),
        Err(Errno::INVAL | Errno::LOOP | Errno::NXIO | Errno::ISDIR) => Ok(Side::Other),
        Err(error) => Err(error),
    }
}

/// The text of a file that has one.
fn read(file: File) -> Result<Option<String>, Errno> {
    let mut bytes = Vec::new();
    let read = file.take(FILE_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    if bytes.len() as u64 > FILE_MAX || bytes.contains(&0) {
        return Ok(None);
    }
    Ok(String::from_utf8(bytes).ok())
}
