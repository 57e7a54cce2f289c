//! A strict tar reader.
//!
//! Reads POSIX and GNU tar without holding contents, and refuses what a package has no use for or
//! what two readers could understand differently: devices, fifos, sparse files, absolute paths,
//! `..`, sizes that disagree, checksums and padding that are not exact, a missing end. So no byte
//! of an archive can change unnoticed: headers are covered by their checksum, contents by the
//! digests, and the rest must be zero.

use crate::bounds::{DEPTH_MAX, LINK_MAX, PATH_MAX, TAR_EXTENSION_MAX, TRAILING_ZEROS_MAX};
use aos_core::path::{PathError, RelativePath};
use std::io::{self, BufRead, Read};
use tar::{EntryType, Header, PaxExtensions};
use thiserror::Error;

/// The unit of a tar: headers have one block, contents are filled up to whole ones.
const BLOCK: usize = 512;

/// Why bytes are not an acceptable tar.
#[derive(Debug, Error)]
pub enum TarError {
    /// Reading failed.
    #[error("cannot read")]
    Read(#[from] io::Error),
    /// The tar ends before its end mark.
    #[error("the tar is cut off")]
    Truncated,
    /// A header is damaged.
    #[error("a tar header is damaged: {0}")]
    Header(&'static str),
    /// Bytes that must be zero are not.
    #[error("the tar has data where there must be none ({0})")]
    Padding(&'static str),
    /// A name is not acceptable.
    #[error("an entry's name is refused")]
    Path(#[from] PathError),
    /// A name is not UTF-8.
    #[error("the name {0:?} is not UTF-8")]
    NotText(String),
    /// The entry is of a kind that packages do not have.
    #[error("`{path}` is {kind}, which a package must not contain")]
    Kind {
        /// The entry.
        path: String,
        /// Its kind.
        kind: &'static str,
    },
    /// Something exceeds its bound.
    #[error("{what} has {found}, at most {max} are allowed")]
    Bound {
        /// What exceeds.
        what: String,
        /// How much there is.
        found: u64,
        /// How much is allowed.
        max: u64,
    },
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file; its contents follow.
    File,
    /// A directory.
    Directory,
    /// A symbolic link and its target, which is not interpreted.
    Symlink(String),
    /// A hard link to an earlier entry.
    HardLink(RelativePath),
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path below the root.
    pub path: RelativePath,
    /// What it is.
    pub kind: Kind,
    /// Bytes of contents; 0 for all but files.
    pub size: u64,
    /// The permission bits as written, special bits included.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u64,
}

/// Names and sizes from extension headers, for the next entry.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

/// Reads the entries of a tar, one after the other; the contents of the current one are read
/// through [`Read`].
pub struct TarReader<R> {
    input: R,
    /// Contents of the current entry that are not read yet.
    remaining: u64,
    /// Zero bytes after these contents.
    padding: usize,
}

impl<R: Read> TarReader<R> {
    /// Reads a tar from its start.
    pub fn new(input: R) -> Self {
        Self { input, remaining: 0, padding: 0 }
    }

    /// The next entry, `None` after the end mark and the zeros behind it have been read. What is
    /// left of the current contents is skipped. The entry of the root directory itself is left
    /// out.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_contents()?;
            let Some(header) = self.header()? else {
                return self.finish().map(|()| None);
            };
            let size = header.entry_size().map_err(|_| TarError::Header("size"))?;
            match header.entry_type() {
                EntryType::GNULongName => extensions.path = Some(self.long_name(size)?),
                EntryType::GNULongLink => extensions.link = Some(self.long_name(size)?),
                EntryType::XHeader => self.pax(size, &mut extensions)?,
                EntryType::XGlobalHeader => self.global_pax(size)?,
                _ => {
                    if extensions.size.is_some_and(|declared| declared != size) {
                        return Err(TarError::Header("two different sizes"));
                    }
                    if let Some(entry) = self.entry(&header, size, std::mem::take(&mut extensions))? {
                        return Ok(Some(entry));
                    }
                }
            }
        }
    }

    /// The input, for what is to be done with it after the last entry.
    pub(crate) const fn input(&mut self) -> &mut R {
        &mut self.input
    }

    fn start(&mut self, size: u64) {
        self.remaining = size;
        // Less than a block, so the conversion is exact.
        self.padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
    }

    fn skip_contents(&mut self) -> Result<(), TarError> {
        if self.remaining > 0 {
            let skipped = io::copy(&mut self.input.by_ref().take(self.remaining), &mut io::sink())?;
            if skipped < self.remaining {
                return Err(TarError::Truncated);
            }
            self.remaining = 0;
        }
        let mut padding = [0; BLOCK];
        let padding = padding.get_mut(..self.padding).unwrap_or_default();
        self.read_whole(padding)?;
        self.padding = 0;
        if padding.iter().any(|&byte| byte != 0) { Err(TarError::Padding("after a file")) } else { Ok(()) }
    }

    fn read_whole(&mut self, buffer: &mut [u8]) -> Result<(), TarError> {
        self.input.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => TarError::Truncated,
            _ => TarError::Read(error),
        })
    }

    /// The next header; `None` for the first block of the end mark.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut header = Header::new_old();
        self.read_whole(header.as_mut_bytes())?;
        if header.as_bytes().iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        check_sum(&header)?;
        Ok(Some(header))
    }

    /// The second zero block, and nothing but zeros behind it.
    fn finish(&mut self) -> Result<(), TarError> {
        let mut block = [0; BLOCK];
        self.read_whole(&mut block)?;
        let mut trailing = 0;
        loop {
            if block.iter().any(|&byte| byte != 0) {
                return Err(TarError::Padding("after the end"));
            }
            let count = self.input.read(&mut block)? as u64;
            trailing += count;
            if count == 0 {
                return Ok(());
            }
            if trailing > TRAILING_ZEROS_MAX {
                let what = "the padding after the end".to_owned();
                return Err(TarError::Bound { what, found: trailing, max: TRAILING_ZEROS_MAX });
            }
        }
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > TAR_EXTENSION_MAX {
            let what = "an extension header".to_owned();
            return Err(TarError::Bound { what, found: size, max: TAR_EXTENSION_MAX });
        }
        self.start(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        if self.remaining > 0 { Err(TarError::Truncated) } else { Ok(bytes) }
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let mut name = self.extension(size)?;
        if name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn pax(&mut self, size: u64, extensions: &mut Extensions) -> Result<(), TarError> {
        let bytes = self.extension(size)?;
        for record in PaxExtensions::new(&bytes) {
            let record = record.map_err(|_| TarError::Header("pax record"))?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" => extensions.path = Some(value.to_vec()),
                b"linkpath" => extensions.link = Some(value.to_vec()),
                b"size" => {
                    let text = str::from_utf8(value).map_err(|_| TarError::Header("pax size"))?;
                    extensions.size = Some(text.parse().map_err(|_| TarError::Header("pax size"))?);
                }
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(TarError::Kind { path: "an entry".to_owned(), kind: "a sparse file" });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A global header may hold comments; a name or size for all that follows makes no sense.
    fn global_pax(&mut self, size: u64) -> Result<(), TarError> {
        let mut extensions = Extensions::default();
        self.pax(size, &mut extensions)?;
        match extensions {
            Extensions { path: None, link: None, size: None } => Ok(()),
            _ => Err(TarError::Header("a global header with a name or size")),
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        size: u64,
        extensions: Extensions,
    ) -> Result<Option<Entry>, TarError> {
        let name = extensions.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let name = text(name)?;
        let link = || match extensions.link.clone() {
            Some(link) => text(link),
            None => text(header.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default()),
        };
        let kind = match header.entry_type() {
            EntryType::Regular if name.ends_with('/') => {
                return Err(TarError::Header("a file named as a directory"));
            }
            EntryType::Regular => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(link_target(&name, link()?)?),
            EntryType::Link => Kind::HardLink(path(&link()?)?.ok_or(TarError::Header("link to the root"))?),
            other => return Err(TarError::Kind { path: shown(&name), kind: describe(other) }),
        };
        if size > 0 && kind != Kind::File {
            return Err(TarError::Header("contents of something that is not a file"));
        }
        self.start(size);
        let Some(path) = path(&name)? else {
            return if kind == Kind::Directory {
                Ok(None)
            } else {
                Err(TarError::Header("a root that is no directory"))
            };
        };
        let mode = header.mode().map_err(|_| TarError::Header("mode"))?;
        let mtime = header.mtime().map_err(|_| TarError::Header("mtime"))?;
        Ok(Some(Entry { path, kind, size, mode, mtime }))
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.by_ref().take(self.remaining).read(buffer)?;
        if count == 0 && self.remaining > 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the tar is cut off"));
        }
        self.remaining -= count as u64;
        Ok(count)
    }
}

impl<R: BufRead> TarReader<R> {
    /// The next bytes of the current contents, as many as the input has at once; none at their end.
    /// [`Self::consume`] says how many were taken.
    pub(crate) fn fill_contents(&mut self) -> Result<&[u8], TarError> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let bytes = self.input.fill_buf()?;
        if bytes.is_empty() {
            return Err(TarError::Truncated);
        }
        let count = usize::try_from(self.remaining).map_or(bytes.len(), |left| left.min(bytes.len()));
        Ok(bytes.get(..count).unwrap_or_default())
    }

    /// Goes on behind bytes that [`Self::fill_contents`] has given.
    pub(crate) fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.remaining = self.remaining.saturating_sub(count as u64);
    }
}

/// The checksum field covers every other byte of the header, and is itself in one of the two
/// exact forms that tools write.
fn check_sum(header: &Header) -> Result<(), TarError> {
    let field = header.as_old().cksum;
    let (digits, end) = field.split_at(6);
    let exact = digits.iter().all(u8::is_ascii_digit)
        && matches!(end, [0, b' '] | [b'0'..=b'7', 0])
        && header.cksum().is_ok_and(|sum| sum == actual_sum(header));
    if exact { Ok(()) } else { Err(TarError::Header("checksum")) }
}

/// The sum of all bytes, the checksum field counted as spaces (POSIX ustar).
fn actual_sum(header: &Header) -> u32 {
    let all: u32 = header.as_bytes().iter().map(|&byte| u32::from(byte)).sum();
    let field: u32 = header.as_old().cksum.iter().map(|&byte| u32::from(byte)).sum();
    all - field + 8 * u32::from(b' ')
}

const fn describe(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a fifo",
        EntryType::GNUSparse => "a sparse file",
        _ => "of an unknown kind",
    }
}

fn shown(name: &str) -> String {
    name.escape_debug().take(256).collect()
}

fn text(bytes: Vec<u8>) -> Result<String, TarError> {
    String::from_utf8(bytes).map_err(|error| {
        TarError::NotText(String::from_utf8_lossy(error.as_bytes()).chars().take(256).collect())
    })
}

/// A name as a path: one leading `./` and a closing slash are how tools write directories. `None`
/// is the root itself.
fn path(name: &str) -> Result<Option<RelativePath>, TarError> {
    let name = name.strip_prefix("./").unwrap_or(name);
    let name = if name.len() > 1 { name.strip_suffix('/').unwrap_or(name) } else { name };
    if name.is_empty() || name == "." {
        return Ok(None);
    }
    let bound = |found: usize, max: usize, unit: &str| {
        let what = format!("the path `{}` counted in {unit}", shown(name));
        Err(TarError::Bound { what, found: found as u64, max: max as u64 })
    };
    if name.len() > PATH_MAX {
        return bound(name.len(), PATH_MAX, "bytes");
    }
    let path: RelativePath = name.parse()?;
    let depth = path.segments().count();
    if depth > DEPTH_MAX { bound(depth, DEPTH_MAX, "segments") } else { Ok(Some(path)) }
}

fn link_target(name: &str, target: String) -> Result<String, TarError> {
    if target.is_empty() || target.contains('\0') {
        return Err(TarError::Header("a symbolic link without a target"));
    }
    if target.len() > LINK_MAX {
        let what = format!("the target of `{}` counted in bytes", shown(name));
        return Err(TarError::Bound { what, found: target.len() as u64, max: LINK_MAX as u64 });
    }
    Ok(target)
}
