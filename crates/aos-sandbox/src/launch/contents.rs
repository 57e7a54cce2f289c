//! Reading a file whole with few calls: the kernel says of its own files, of pipes and of what grows
//! that they are empty, and a reader that believes it asks for 32 bytes at first.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes asked for at once: a plan, a report and a mount table of usual size fit.
const USUAL_BYTES: usize = 16 << 10;

/// All bytes, but at most `max`.
pub fn read(source: impl Read, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    source.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// All bytes of a file of the kernel, which is never endless.
pub fn of_kernel(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    read(File::open(path)?, u64::MAX)
}
