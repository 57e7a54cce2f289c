//! Which source revision the directory is at, read from `.git` without running git.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Directories above the context that may hold `.git`.
const ABOVE_MAX: usize = 32;
/// Bytes of `HEAD` and of a reference.
const HEAD_MAX: u64 = 4 << 10;
/// Bytes of `packed-refs`: some ten thousand references.
const PACKED_MAX: u64 = 4 << 20;
/// Hexadecimal digits of a commit in SHA-1 and SHA-256 repositories.
const COMMIT_DIGITS: [usize; 2] = [40, 64];

/// The commit that is checked out, as hexadecimal digits; `None` outside of a repository, before
/// the first commit, and when the repository's files are not as expected. Changes that are not
/// committed do not show in it.
pub(crate) fn revision(directory: &Path) -> Option<String> {
    let whole = std::fs::canonicalize(directory).ok()?;
    let repository = whole.ancestors().take(ABOVE_MAX).map(|above| above.join(".git")).find(is_repository)?;
    let head = read(&repository.join("HEAD"), HEAD_MAX)?;
    match head.trim_end().strip_prefix("ref: ") {
        None => commit(&head),
        Some(name) if is_reference(name) => match read(&repository.join(name), HEAD_MAX) {
            Some(text) => commit(&text),
            None => packed(&read(&repository.join("packed-refs"), PACKED_MAX)?, name),
        },
        Some(_) => None,
    }
}

fn is_repository(path: &PathBuf) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// A reference names a file below the repository: `refs/heads/main`.
fn is_reference(name: &str) -> bool {
    name.starts_with("refs/")
        && name.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && !part.contains('\0'))
}

fn read(path: &Path, max: u64) -> Option<String> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > max {
        return None;
    }
    let mut text = String::new();
    File::open(path).ok()?.take(max).read_to_string(&mut text).ok()?;
    Some(text)
}

fn commit(text: &str) -> Option<String> {
    let text = text.trim_end();
    let digits = COMMIT_DIGITS.contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    digits.then(|| text.to_owned())
}

/// The line `COMMIT NAME` of `packed-refs`.
fn packed(text: &str, name: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(_, found)| *found == name)
        .and_then(|(id, _)| commit(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn commits_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("a/b");
        fs::create_dir_all(&below).unwrap();
        let git = dir.path().join(".git");
        fs::create_dir_all(git.join("refs/heads")).unwrap();
        assert_eq!(revision(&below), None);
        fs::write(git.join("HEAD"), format!("{ID}\n")).unwrap();
        assert_eq!(revision(&below).as_deref(), Some(ID));
        fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        assert_eq!(revision(&below), None, "no commit yet");
        fs::write(git.join("packed-refs"), format!("# pack-refs\n{ID} refs/heads/main\n")).unwrap();
        assert_eq!(revision(dir.path()).as_deref(), Some(ID));
        fs::write(git.join("refs/heads/main"), format!("{}\n", ID.replace('0', "1"))).unwrap();
        assert_eq!(revision(dir.path()), Some(ID.replace('0', "1")));
        for bad in ["ref: ../../etc/passwd", "ref: refs/../../x", "ref: /etc/passwd", "no commit", ""] {
            fs::write(git.join("HEAD"), bad).unwrap();
            assert_eq!(revision(dir.path()), None, "{bad}");
        }
    }
}
