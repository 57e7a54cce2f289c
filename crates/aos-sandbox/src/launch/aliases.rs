//! One directory of the host under two names: a bind mount can show what a grant lets the agent
//! write at a place from which it may execute. Plans compare paths; here the host's mounts are known.
//!
//! A place is a file system and a path within it, from proc_pid_mountinfo(5): the mount's device and
//! root, and the rest of the path. A subtree is its own place and the places of all mounts below it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxFlags, statx};

use super::contents;
use super::error::{Context, LaunchError, Layer, fail};
use super::sources::Source;
use crate::plan::{BindAccess, Node, TreeEntry};

/// One line of the mount table.
struct Mount {
    id: u64,
    /// Major and minor number as the table writes them.
    device: String,
    /// What of the file system is mounted.
    root: PathBuf,
    point: PathBuf,
}

/// A part of the host's files by all the names that it has.
struct Region<'a> {
    /// The name in the plan.
    name: &'a Path,
    cause: &'a str,
    places: Vec<(String, PathBuf)>,
}

/// Refuses a plan by which something of the host would be writable and executable.
pub fn refuse(tree: &[TreeEntry], sources: &[Source]) -> Result<(), LaunchError> {
    let what = "/proc/self/mountinfo";
    let text = contents::of_kernel(what).layer(Layer::Namespace, what)?;
    // A name that is not UTF-8 stays different from others, or becomes the same: never less refused.
    let table = parse(&String::from_utf8_lossy(&text));
    let (mut written, mut executed) = (Vec::new(), Vec::new());
    for (entry, source) in tree.iter().zip(sources) {
        match (&entry.node, source) {
            (Node::Bind(bind), Source::Mounted { file, .. }) if bind.access != BindAccess::Read => {
                let into = if bind.access == BindAccess::Write { &mut written } else { &mut executed };
                into.push(region(&table, entry, bind.source.as_path(), file)?);
            }
            (Node::Overlay { lower, .. }, Source::Union(files)) => {
                for (path, file) in lower.iter().zip(files) {
                    executed.push(region(&table, entry, path.as_path(), file)?);
                }
            }
            (Node::Transaction { lower, changes }, Source::Layers(layers)) => {
                // The whole folder: what is written now is a snapshot later.
                written.push(region(&table, entry, changes.as_path(), &layers.folder)?);
                for (path, file) in lower.iter().zip(layers.lower.iter().skip(layers.snapshots)) {
                    written.push(region(&table, entry, path.as_path(), file)?);
                }
            }
            _ => {}
        }
    }
    for write in &written {
        if let Some(exec) = executed.iter().find(|exec| exec.overlaps(write)) {
            return fail(
                Layer::Grant,
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
) -> Result<Region<'a>, LaunchError> {
    let mount =
        statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).layer(Layer::Namespace, name.display())?;
    match places(table, mount.stx_mnt_id, name) {
        Some(places) => Ok(Region { name, cause: &entry.cause, places }),
        None => fail(Layer::Namespace, format!("{} is in no mount of the mount table", name.display())),
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
            let is_around = |(other_device, other): &(String, PathBuf)| {
                device == other_device && (path.starts_with(other) || other.starts_with(path))
            };
            other.places.iter().any(is_around)
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

/// A path of the mount table. Space, tab, newline, `#` and backslash are written as `\` and three octal digits.
pub fn unescape(text: &str) -> PathBuf {
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
23 20 8:1 /opt/tools /srv/a/tools rw - ext4 /dev/sda1 rw
24 20 0:30 / /run rw - tmpfs tmpfs rw
";

    fn at(mount: u64, path: &str) -> Region<'_> {
        Region {
            name: Path::new(path),
            cause: "",
            places: places(&parse(TABLE), mount, Path::new(path)).unwrap(),
        }
    }

    #[test]
    fn two_names_of_one_directory_overlap() {
        for (a, b) in [
            (at(21, "/home/work shop/x"), at(22, "/srv/shop")),
            (at(21, "/home/work shop"), at(22, "/srv/shop/deep/er")),
            (at(21, "/home"), at(22, "/srv/shop")),
            // By a mount below a grant.
            (at(20, "/srv/a"), at(20, "/opt/tools/bin")),
            (at(20, "/srv/a"), at(20, "/opt")),
            (at(20, "/srv"), at(21, "/home/work shop")),
        ] {
            assert!(a.overlaps(&b) && b.overlaps(&a), "{} {}", a.name.display(), b.name.display());
        }
    }

    #[test]
    fn names_of_different_directories_do_not() {
        for (a, b) in [
            (at(21, "/home/other"), at(22, "/srv/shop")),
            (at(21, "/home/work"), at(22, "/srv/shop")),
            (at(20, "/srv/a"), at(20, "/opt/other")),
            (at(20, "/usr"), at(20, "/srv/a")),
            (at(20, "/work shop"), at(22, "/srv/shop")),
            (at(24, "/run/x"), at(20, "/x")),
        ] {
            assert!(!a.overlaps(&b) && !b.overlaps(&a), "{} {}", a.name.display(), b.name.display());
        }
        assert!(places(&parse(TABLE), 99, Path::new("/x")).is_none());
    }
}
