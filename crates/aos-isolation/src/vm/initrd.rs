//! The archive of an initial file system, in the format `newc` of the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst.

use thiserror::Error;

/// A directory, a regular file and a character device of stat(2).
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER: u32 = 0o020_000;
/// Headers, names and contents begin at multiples of this.
const ALIGNMENT: usize = 4;
/// The name of the entry that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// A file that the format cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0} is larger than an initial file system can hold")]
pub struct TooLarge(pub String);

/// An archive in the making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archive {
    bytes: Vec<u8>,
    count: u32,
}

impl Archive {
    /// Adds a directory. Parents come before what is in them.
    pub fn directory(&mut self, path: &str) -> Result<(), TooLarge> {
        self.entry(path, DIRECTORY | 0o755, (0, 0), &[])
    }

    /// Adds a file with these permissions.
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> Result<(), TooLarge> {
        self.entry(path, REGULAR | permissions, (0, 0), content)
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, number: (u32, u32)) -> Result<(), TooLarge> {
        self.entry(path, CHARACTER | 0o600, number, &[])
    }

    /// The whole archive.
    pub fn finish(mut self) -> Result<Vec<u8>, TooLarge> {
        self.entry(TRAILER, 0, (0, 0), &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, path: &str, mode: u32, number: (u32, u32), content: &[u8]) -> Result<(), TooLarge> {
        let too_large = |_| TooLarge(path.to_owned());
        let size = u32::try_from(content.len()).map_err(too_large)?;
        let name_size = u32::try_from(path.len() + 1).map_err(too_large)?;
        self.count = self.count.saturating_add(1);
        // Inode, mode, user, group, links, time, size, the file system's device, the device, the name's size, a
        // checksum that this format leaves 0.
        let (major, minor) = number;
        let fields = [self.count, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
        Ok(())
    }

    fn align(&mut self) {
        let length = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_the_format_says() {
        let mut archive = Archive::default();
        archive.directory("dev").unwrap();
        archive.device("dev/null", (1, 3)).unwrap();
        archive.file("init", 0o755, b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        assert!(text.starts_with("07070100000001000041ED0000000000000000000000010000000000000000"), "{text}");
        // The last entry's header is 110 bytes, its name 11, and padding.
        let (at, _) = text.match_indices("070701").last().unwrap();
        assert!(at % ALIGNMENT == 0 && text[at + 110..].starts_with(TRAILER), "{text}");
        let (at, _) = text.match_indices("init\0").next().unwrap();
        assert_eq!(&bytes[(at + 5).next_multiple_of(ALIGNMENT)..][..5], b"hello");
        assert!(text.contains("0000000100000003"), "{text}");
    }
}
