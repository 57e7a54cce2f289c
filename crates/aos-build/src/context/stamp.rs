//! What the kernel says of a file, by which a change of its contents is noticed without reading it.

use rustix::fs::Stat;

/// Bytes of a stamp in the cache.
pub(super) const STAMP_BYTES: usize = 8 * 3 + 2 * (8 + 4) + 4;

/// A moment of a file's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment {
    /// Seconds since 1970.
    pub(crate) seconds: i64,
    /// Nanoseconds after that.
    pub(crate) nanoseconds: u32,
}

/// Everything that changes when a file's contents do. The kernel sets the change time and nobody
/// else can, so that equal stamps mean equal contents, but for a change within one tick of the
/// clock: see [`super::files`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    pub(crate) modified: Moment,
    pub(crate) changed: Moment,
    pub(crate) mode: u32,
}

impl Stamp {
    pub(crate) fn of(stat: &Stat) -> Self {
        let moment = |seconds: i64, nanoseconds: u64| Moment {
            seconds,
            nanoseconds: u32::try_from(nanoseconds).unwrap_or(u32::MAX),
        };
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: moment(stat.st_mtime, stat.st_mtime_nsec),
            changed: moment(stat.st_ctime, stat.st_ctime_nsec),
            mode: stat.st_mode,
        }
    }

    /// True when its owner may execute the file.
    pub(crate) const fn is_executable(&self) -> bool {
        self.mode & 0o100 != 0
    }

    pub(super) fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        let fields = [
            &self.device.to_le_bytes()[..],
            &self.inode.to_le_bytes(),
            &self.size.to_le_bytes(),
            &self.modified.seconds.to_le_bytes(),
            &self.modified.nanoseconds.to_le_bytes(),
            &self.changed.seconds.to_le_bytes(),
            &self.changed.nanoseconds.to_le_bytes(),
            &self.mode.to_le_bytes(),
        ];
        let all = fields.into_iter().flatten();
        bytes.iter_mut().zip(all).for_each(|(to, from)| *to = *from);
        bytes
    }

    #[cfg(test)]
    pub(super) fn sample() -> Self {
        let moment = |seconds| Moment { seconds, nanoseconds: 5 };
        Self { device: 1, inode: 2, size: 3, modified: moment(4), changed: moment(6), mode: 0o100_644 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_in_the_bytes() {
        let stamp = Stamp::sample();
        let later = Moment { seconds: 4, nanoseconds: 6 };
        for other in [
            Stamp { device: 9, ..stamp },
            Stamp { inode: 9, ..stamp },
            Stamp { size: 9, ..stamp },
            Stamp { modified: later, ..stamp },
            Stamp { changed: later, ..stamp },
            Stamp { mode: 0o100_755, ..stamp },
        ] {
            assert_ne!(stamp.to_bytes(), other.to_bytes());
        }
        assert_eq!(stamp.to_bytes().last_chunk(), Some(&0o100_644_u32.to_le_bytes()));
    }
}
