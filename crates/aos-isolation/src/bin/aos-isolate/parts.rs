//! For gVisor, whose kernel has no Landlock: of a mount of which the plan's rules open parts only (the host's
//! `/usr`, a folder of programs), just these parts are mounted, programs one by one with their interpreters
//! and loaders. What is not mounted is not there.
//!
//! A part of a mount that can be read can also be executed, as it can be outside gVisor by handing it to the
//! loader; what an agent can write is never executable.

use std::collections::BTreeMap;
use std::fs::{self, File, FileType};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use aos_isolation::layout::{Layout, Mount, MountKind, What};
use aos_sandbox::plan::{Access, Missing, Part, PathRule, Reach, SandboxPlan};

use crate::error::{Context, LaunchError, Layer, fail};
use crate::staging::{is_executable, make_place};

/// Links on the way to one program: the kernel's own limit.
const LINKS_MAX: usize = 40;
/// Interpreters of interpreters, as in `aos-launch`.
const DEPTH_MAX: usize = 6;
/// The kernel reads this much for a `#!` line.
const LINE_BYTES: u64 = 256;
/// The greatest table of program headers, and path of a loader, that the kernel takes.
const HEADERS_BYTES_MAX: usize = 65_536;
const PATH_BYTES_MAX: usize = 4096;
/// Bytes of a 64-bit ELF program header, and the type of the one that names the loader (elf(5)).
const HEADER_BYTES: usize = 56;
const PT_INTERP: u32 = 3;

/// Replaces the mounts of which only parts are open by these parts.
pub(crate) fn narrow(
    layout: &mut Layout,
    plan: &SandboxPlan,
    sources: &Path,
    root: &Path,
) -> Result<(), LaunchError> {
    let narrowed: Vec<usize> =
        layout.mounts.iter().filter(|mount| is_narrowed(mount, plan)).map(|mount| mount.index).collect();
    let mut parts = Parts { mounts: layout.mounts.clone(), sources, root, found: BTreeMap::new() };
    let rules: Vec<&PathRule> =
        plan.landlock.iter().filter(|rule| parts.lies_in(rule.path.as_path(), &narrowed)).collect();
    for rule in rules {
        parts.add_rule(rule)?;
    }
    for rule in &plan.programs {
        match rule.reach {
            Reach::Subtree => parts.find(rule.path.as_path(), 0).map(drop)?,
            Reach::File => parts.add_program(rule.path.as_path(), plan, 0)?,
        }
    }
    let found = parts.found;
    let mut mounts = Vec::new();
    for mount in layout.mounts.drain(..) {
        if !narrowed.contains(&mount.index) {
            mounts.push(mount);
            continue;
        }
        let mut last: Option<&str> = None;
        for (part, what) in
            found.iter().filter(|((index, _), _)| *index == mount.index).map(|((_, part), what)| (part, what))
        {
            // The parts are in order: one that lies in the last mounted is there already.
            if last.is_some_and(|last| Path::new(part).starts_with(last)) {
                continue;
            }
            let path = if part.is_empty() { mount.path.clone() } else { format!("{}/{part}", mount.path) };
            make_place(root, &path, what)
                .layer(Layer::Namespace, format!("cannot make the place /{path}"))?;
            if !matches!(what, What::Link(_)) {
                last = Some(part);
                mounts.push(Mount { path, part: part.clone(), ..mount.clone() });
            }
        }
    }
    layout.mounts = mounts;
    Ok(())
}

/// Whether the plan's rules open less than all of a mount of programs.
fn is_narrowed(mount: &Mount, plan: &SandboxPlan) -> bool {
    let path = Path::new("/").join(&mount.path);
    let is_open = |rule: &PathRule| {
        rule.access != Access::List && rule.part == Part::All && path.starts_with(rule.path.as_path())
    };
    let is_program = plan.programs.iter().any(|rule| path.starts_with(rule.path.as_path()));
    is_executable(mount.what) && !plan.landlock.iter().any(is_open) && !is_program
}

/// What was found in the mounts.
struct Parts<'a> {
    mounts: Vec<Mount>,
    sources: &'a Path,
    root: &'a Path,
    /// By mount and path in it, in order.
    found: BTreeMap<(usize, String), What>,
}

impl Parts<'_> {
    /// Whether a path lies in one of these mounts.
    fn lies_in(&self, path: &Path, mounts: &[usize]) -> bool {
        let key = self.place(path).and_then(|place| place.key);
        key.is_some_and(|(index, _)| mounts.contains(&index))
    }

    /// Adds what a rule opens.
    fn add_rule(&mut self, rule: &PathRule) -> Result<(), LaunchError> {
        if rule.access == Access::List {
            return Ok(());
        }
        let Some(target) = self.find(rule.path.as_path(), 0)? else {
            return match rule.missing {
                Missing::Skip => Ok(()),
                Missing::Error => {
                    fail(Layer::Namespace, format!("{}: {} is not there", rule.cause, rule.path))
                }
            };
        };
        if let Part::Prefixed(prefix) = &rule.part {
            // The directory itself is not open.
            self.found.remove(&target.key);
            let entries = fs::read_dir(&target.file).layer(Layer::Namespace, &rule.path)?;
            for entry in entries {
                let name = entry.layer(Layer::Namespace, &rule.path)?.file_name();
                if name.to_string_lossy().starts_with(prefix.as_str()) {
                    self.find(&rule.path.as_path().join(name), 0)?;
                }
            }
        }
        Ok(())
    }

    /// Adds a program with its interpreters and loaders.
    fn add_program(&mut self, path: &Path, plan: &SandboxPlan, depth: usize) -> Result<(), LaunchError> {
        if depth > DEPTH_MAX {
            return fail(Layer::Exec, format!("{} has too many interpreters", path.display()));
        }
        let Some(target) = self.find(path, 0)? else {
            return fail(Layer::Exec, format!("cannot execute {}: it is not there", path.display()));
        };
        let needed = needed(&target.file).layer(Layer::Exec, path.display())?;
        if let [interpreter, name] = needed.as_slice() {
            let is_env = Path::new(interpreter).file_name().is_some_and(|own| own == "env");
            if is_env && let Some(path) = self.in_path(name, plan)? {
                self.add_program(&path, plan, depth + 1)?;
            }
        }
        match needed.first() {
            Some(interpreter) => self.add_program(Path::new(interpreter), plan, depth + 1),
            None => Ok(()),
        }
    }

    /// The program that `env NAME` means.
    fn in_path(&mut self, name: &str, plan: &SandboxPlan) -> Result<Option<PathBuf>, LaunchError> {
        let path = plan.program.env.get("PATH").cloned().unwrap_or_default();
        for directory in path.split(':').filter(|directory| directory.starts_with('/')) {
            let candidate = Path::new(directory).join(name.split_whitespace().next().unwrap_or_default());
            if self.find(&candidate, 0)?.is_some() {
                return Ok(Some(candidate));
            }
        }
        Ok(None)
    }

    /// Finds what a path means inside, and notes it and every link on the way. `None` if it is not there.
    fn find(&mut self, path: &Path, links: usize) -> Result<Option<Target>, LaunchError> {
        if links > LINKS_MAX {
            return fail(Layer::Namespace, format!("{} has too many links", path.display()));
        }
        let mut walked = PathBuf::from("/");
        let mut rest = path.components().filter(|part| matches!(part, Component::Normal(_))).peekable();
        while let Some(part) = rest.next() {
            walked.push(part);
            let Some(place) = self.place(&walked) else { return Ok(None) };
            let Ok(metadata) = fs::symlink_metadata(&place.file) else { return Ok(None) };
            if metadata.is_symlink() {
                let to = fs::read_link(&place.file).layer(Layer::Namespace, walked.display())?;
                if let Some(key) = place.key {
                    self.found.insert(key, What::Link(to.clone()));
                }
                let base = walked.parent().unwrap_or(Path::new("/")).join(to);
                return self.find(&normal(&base.join(rest.collect::<PathBuf>())), links + 1);
            }
            if rest.peek().is_none() {
                let Some(key) = place.key else { return Ok(None) };
                self.found.insert(key.clone(), what(metadata.file_type()));
                return Ok(Some(Target { key, file: place.file }));
            }
        }
        Ok(None)
    }

    /// Where a path inside lies: in a mount, or in the root.
    fn place(&self, path: &Path) -> Option<Place> {
        let path = path.strip_prefix("/").ok()?;
        let around = self.mounts.iter().filter(|mount| path.starts_with(&mount.path));
        match around.max_by_key(|mount| mount.path.len()) {
            Some(mount) if matches!(mount.what, MountKind::Host(_)) => {
                let part = path.strip_prefix(&mount.path).ok()?;
                let whole = self.sources.join(mount.index.to_string());
                // A file's own path has no part, and joining one would add a `/`.
                let file = if part.as_os_str().is_empty() { whole } else { whole.join(part) };
                Some(Place { key: Some((mount.index, part.to_str()?.to_owned())), file })
            }
            Some(_) => None,
            None => Some(Place { key: None, file: self.root.join(path) }),
        }
    }
}

/// A file or directory of a mount.
struct Target {
    key: (usize, String),
    file: PathBuf,
}

/// Where a path lies; in the root it has no key.
struct Place {
    key: Option<(usize, String)>,
    file: PathBuf,
}

fn what(kind: FileType) -> What {
    if kind.is_dir() { What::Directory } else { What::File(Vec::new()) }
}

/// The path without `.` and `..`; at the root, `..` is the root.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::Normal(name) => normal.push(name),
            _ => {}
        }
    }
    normal
}

/// The interpreter of a script with its argument, or the loader of an ELF file.
pub(crate) fn needed(path: &Path) -> std::io::Result<Vec<String>> {
    let file = File::open(path)?;
    let mut header = Vec::new();
    (&file).take(LINE_BYTES).read_to_end(&mut header)?;
    if let Some(line) = header.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line).trim().to_owned();
        let words =
            line.split_once([' ', '\t']).map(|(first, rest)| vec![first.to_owned(), rest.trim().to_owned()]);
        return Ok(words.unwrap_or_else(|| vec![line]));
    }
    Ok(loader(&header, &file)?.into_iter().collect())
}

/// The text of the `PT_INTERP` header of a 64-bit little-endian ELF file.
fn loader(header: &[u8], file: &File) -> std::io::Result<Option<String>> {
    let number = |bytes: &[u8], at: usize, length: usize| -> Option<usize> {
        let bytes = bytes.get(at..at + length)?;
        let value = bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).ok()
    };
    let facts = (number(header, 32, 8), number(header, 54, 2), number(header, 56, 2));
    let (true, (Some(offset), Some(size), Some(count))) = (header.starts_with(b"\x7fELF\x02\x01"), facts)
    else {
        return Ok(None);
    };
    if size < HEADER_BYTES || size * count > HEADERS_BYTES_MAX {
        return Ok(None);
    }
    let mut table = vec![0; size * count];
    file.read_exact_at(&mut table, offset as u64)?;
    let interpreter = table.chunks_exact(size).find_map(|entry| {
        let is_interpreter = number(entry, 0, 4)? == PT_INTERP as usize;
        let (offset, length) = (number(entry, 8, 8)?, number(entry, 32, 8)?);
        (is_interpreter && length <= PATH_BYTES_MAX).then_some((offset, length))
    });
    let Some((offset, length)) = interpreter else { return Ok(None) };
    let mut text = vec![0; length];
    file.read_exact_at(&mut text, offset as u64)?;
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8(text.to_vec()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_normal() {
        assert_eq!(normal(Path::new("/usr/lib64/../lib/./x")), Path::new("/usr/lib/x"));
        assert_eq!(normal(Path::new("/../../etc")), Path::new("/etc"));
    }

    #[test]
    fn what_a_program_needs() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("script");
        fs::write(&script, "#!/usr/bin/env python3\n").unwrap();
        assert_eq!(needed(&script).unwrap(), ["/usr/bin/env", "python3"]);
        fs::write(&script, "no program").unwrap();
        assert_eq!(needed(&script).unwrap(), [""; 0]);
        let shell = needed(Path::new("/bin/sh")).unwrap();
        assert!(shell.len() == 1 && shell[0].starts_with("/lib"), "{shell:?}");
    }
}
