//! One directory of the host under two names: a bind mount can show what a grant lets the agent write at a
//! place from which it may execute. Plans compare paths; here the host's mounts are known. The same rule as
//! in `aos-launch`.
//!
//! A place is a file system and a path within it, from proc_pid_mountinfo(5). A subtree is its own place and
//! the places of all mounts below it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use aos_sandbox::plan::{BindAccess, Node, TreeEntry};
use rustix::fs::{AtFlags, StatxFlags, statx};

use crate::error::{Context, Failure, Stage, fail};
use crate::sources::Source;

/// One line of the mount table: its number, the device, what of it is mounted, and where.
struct Mount {
    id: u64,
    device: String,
    root: PathBuf,
    point: PathBuf,
}

/// A part of the host's files by all the names that it has.
struct Region<'a> {
    name: &'a Path,
    cause: &'a str,
    places: Vec<(String, PathBuf)>,
}

/// Refuses a plan by which something of the host would be writable and executable.
pub(crate) fn refuse(tree: &[TreeEntry], sources: &[Source]) -> Result<(), Failure> {
    let what = "/proc/self/mountinfo";
    let text = std::fs::read(what).stage(Stage::Namespace, what)?;
    // A name that is not UTF-8 stays different from others, or becomes the same: never less refused.
    let table = parse(&String::from_utf8_lossy(&text));
    let (mut written, mut executed) = (Vec::new(), Vec::new());
    for (entry, source) in tree.iter().zip(sources) {
        match &entry.node {
            Node::Bind(bind) if bind.access != BindAccess::Read => {
                let into = if bind.access == BindAccess::Write { &mut written } else { &mut executed };
                for file in &source.files {
                    into.push(region(&table, entry, bind.source.as_path(), file)?);
                }
            }
            Node::Overlay { lower, .. } => {
                for (path, file) in lower.iter().zip(&source.files) {
                    executed.push(region(&table, entry, path.as_path(), file)?);
                }
            }
            _ => {}
        }
    }
    for write in &written {
        if let Some(exec) = executed.iter().find(|exec| exec.overlaps(write)) {
            return fail(
                Stage::Grant,
                format!(
                    "{}: {} is, by a mount of this machine, also in {} ({}), which is executable; grant separate directories",
                    write.cause,
                    write.name.display(),
                    exec.name.display(),
                    exec.cause
                ),
            );
        }
    }
    Ok(())
}

fn region<'a>(
    table: &[Mount],
    entry: &'a TreeEntry,
    name: &'a Path,
    file: &OwnedFd,
) -> Result<Region<'a>, Failure> {
    let mount =
        statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).stage(Stage::Namespace, name.display())?;
    match places(table, mount.stx_mnt_id, name) {
        Some(places) => Ok(Region { name, cause: &entry.cause, places }),
        None => fail(Stage::Namespace, format!("{} is in no mount of the mount table", name.display())),
    }
}

/// The place of a path that lies in this mount, and the places of all that is mounted below it.
fn places(table: &[Mount], mount: u64, path: &Path) -> Option<Vec<(String, PathBuf)>> {
    let mount = table.iter().find(|one| one.id == mount)?;
    let within = path.strip_prefix(&mount.point).ok()?;
    let below = table.iter().filter(|one| one.point != path && one.point.starts_with(path));
    let below = below.map(|one| (one.device.clone(), one.root.clone()));
    Some([(mount.device.clone(), mount.root.join(within))].into_iter().chain(below).collect())
}

impl Region<'_> {
    fn overlaps(&self, other: &Self) -> bool {
        self.places.iter().any(|(device, path)| {
            other.places.iter().any(|(other_device, other)| {
                device == other_device && (path.starts_with(other) || other.starts_with(path))
            })
        })
    }
}

/// The table's lines; those of another form are left out, and what lies in such a mount is refused.
fn parse(mountinfo: &str) -> Vec<Mount> {
    let parse_line = |line: &str| {
        let mut fields = line.split(' ');
        let id = fields.next()?.parse().ok()?;
        let device = fields.nth(1)?.to_owned();
        let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
        Some(Mount { id, device, root, point })
    };
    mountinfo.lines().filter_map(parse_line).collect()
}

/// Space, tab, newline, `#` and backslash are written as `\` and three octal digits.
pub(crate) fn unescape(text: &str) -> PathBuf {
    let mut path = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        path.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (code, after.get(3..)) {
            (Some(code), Some(behind)) => {
                path.push(char::from(code));
                rest = behind;
            }
            _ => {
                path.push('\\');
                rest = after;
            }
        }
    }
    path.push_str(rest);
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 8:2 / /home rw - ext4 /dev/sda2 rw
22 20 8:2 /work\\040shop /srv/shop rw - ext4 /dev/sda2 rw
";

    fn at(mount: u64, path: &str) -> Region<'_> {
        let places = places(&parse(TABLE), mount, Path::new(path)).unwrap();
        Region { name: Path::new(path), cause: "", places }
    }

    #[test]
    fn two_names_of_one_directory_overlap_and_others_do_not() {
        assert!(at(21, "/home/work shop/x").overlaps(&at(22, "/srv/shop")));
        assert!(at(20, "/srv").overlaps(&at(21, "/home/work shop")));
        assert!(!at(21, "/home/work").overlaps(&at(22, "/srv/shop")));
        assert!(!at(20, "/usr").overlaps(&at(22, "/srv/shop")));
        assert!(places(&parse(TABLE), 99, Path::new("/x")).is_none());
    }
}
