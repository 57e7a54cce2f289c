//! The file of the answer, and who may read it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use aos_core::workspace::{ANSWER_MAX_BYTES, Answer};
use rustix::fs::{CWD, Mode, OFlags, XattrFlags, fsetxattr, openat, unlink};

/// How answers' names begin.
const PREFIX: &str = "answer-";
/// Letters and digits of a token.
const TOKEN_MAX: usize = 64;

// Parts of an access list in its attribute (linux/posix_acl_xattr.h).
const ACL_VERSION: u32 = 2;
const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const MASK: u16 = 16;
const OTHER: u16 = 32;
const READ: u16 = 4;
const READ_WRITE: u16 = 6;
const NOBODY_IN_PARTICULAR: u32 = u32::MAX;

/// An answer to be written.
#[derive(Debug)]
pub(crate) struct AnswerFile {
    path: PathBuf,
    file: File,
}

impl AnswerFile {
    /// Makes the file, empty, for `reader` to read; removes earlier answers.
    pub(crate) fn create(folder: &Path, token: &str, reader: u32) -> Result<Self, String> {
        let is_plain = !token.is_empty()
            && token.len() <= TOKEN_MAX
            && token.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_plain {
            return Err("the request's token is not of letters and digits".to_owned());
        }
        let failed = |error: &dyn std::fmt::Display| {
            format!("cannot make the answer in {}: {error}", folder.display())
        };
        for entry in std::fs::read_dir(folder).map_err(|error| failed(&error))? {
            let name = entry.map_err(|error| failed(&error))?.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(PREFIX)) {
                unlink(folder.join(name)).map_err(|error| failed(&error))?;
            }
        }
        let path = folder.join(format!("{PREFIX}{token}.json"));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(CWD, &path, flags, Mode::RUSR | Mode::WUSR).map_err(|error| failed(&error))?;
        fsetxattr(&file, "system.posix_acl_access", &access_list(reader), XattrFlags::empty())
            .map_err(|error| failed(&error))?;
        Ok(Self { path, file: file.into() })
    }

    /// Writes the answer.
    pub(crate) fn write(mut self, answer: &Answer) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("cannot write {}: {error}", self.path.display());
        let mut bytes = serde_json::to_vec(answer).map_err(|error| failed(&error))?;
        if bytes.len() > ANSWER_MAX_BYTES {
            let message = "the answer would be too long; ask for less (no --patch)".to_owned();
            bytes = serde_json::to_vec(&Answer::Failed { message }).map_err(|error| failed(&error))?;
        }
        let written = self.file.write_all(&bytes);
        written.map_err(|error| failed(&error))
    }
}

/// An access list: the owner, and one more user for reading.
fn access_list(reader: u32) -> Vec<u8> {
    let mut bytes = ACL_VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (USER_OBJ, READ_WRITE, NOBODY_IN_PARTICULAR),
        (USER, READ, reader),
        (GROUP_OBJ, 0, NOBODY_IN_PARTICULAR),
        (MASK, READ, NOBODY_IN_PARTICULAR),
        (OTHER, 0, NOBODY_IN_PARTICULAR),
    ] {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}
