//! What a program needs to be executed: the interpreter of its `#!` line, the interpreter's
//! interpreter, and the loader that an ELF file names. Landlock checks the right to execute for each
//! of them, so each gets one, and nothing else does.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use aos_sandbox::plan::Links;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// The kernel follows four interpreters (`bprm_execve` in fs/exec.c), and a loader follows them.
const DEPTH_MAX: usize = 6;
/// The kernel reads this much for a `#!` line (`BINPRM_BUF_SIZE`).
const LINE_BYTES: usize = 256;
/// A 64-bit ELF program header (elf(5)).
const PROGRAM_HEADER_BYTES: usize = 56;
/// The kernel refuses more (`load_elf_phdrs` in fs/binfmt_elf.c).
const PROGRAM_HEADERS_BYTES_MAX: usize = 65_536;
/// The type of the program header that names the loader.
const PT_INTERP: u32 = 3;
/// A path that the kernel takes.
const PATH_BYTES: usize = 4096;

/// A program and what it needs, each opened for reading.
#[derive(Debug)]
pub(crate) struct Chain {
    /// The files to be executed, the program first.
    pub(crate) files: Vec<(PathBuf, OwnedFd)>,
}

/// Why a program cannot be executed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChainError {
    /// A file is missing or cannot be read.
    #[error("{}: {source}", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// A file cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A `#!` line or an ELF header that names no absolute path.
    #[error("{} names an interpreter that is not an absolute path", .0.display())]
    Relative(PathBuf),
    /// `env` with a name that is not in the path.
    #[error("{} starts `env {name}`, which is not in the agent's PATH", .path.display())]
    NotInPath {
        /// The script.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// Interpreters without end.
    #[error("{} has too many interpreters", .0.display())]
    TooDeep(PathBuf),
}

/// Opens a file of the agent's root for reading.
pub(crate) fn open(path: &Path, links: Links) -> Result<OwnedFd, Errno> {
    let resolve = match links {
        Links::Follow => ResolveFlags::NO_MAGICLINKS,
        Links::Refuse => ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS,
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    openat2(CWD, path, flags, Mode::empty(), resolve)
}

/// Follows the interpreters of a program. `environment` is for `env` in `#!` lines.
pub(crate) fn chain(
    program: &Path,
    links: Links,
    environment: &BTreeMap<String, String>,
) -> Result<Chain, ChainError> {
    let mut chain = Chain { files: Vec::new() };
    let mut waiting = vec![(program.to_owned(), links)];
    while let Some((path, links)) = waiting.pop() {
        if chain.files.len() >= DEPTH_MAX {
            return Err(ChainError::TooDeep(program.to_owned()));
        }
        let file = open(&path, links).map_err(|source| ChainError::Open { path: path.clone(), source })?;
        let file = File::from(file);
        let needs = needs(|offset, length| read_at(&file, offset, length));
        match needs.map_err(|source| ChainError::Read { path: path.clone(), source })? {
            Needs::Nothing => {}
            Needs::Script { interpreter, argument } => {
                waiting.extend(named_by_env(&path, &interpreter, &argument, environment)?);
                waiting.push((absolute(&path, interpreter)?, Links::Follow));
            }
            Needs::Loader(loader) => waiting.push((absolute(&path, loader)?, Links::Follow)),
        }
        chain.files.push((path, file.into()));
    }
    Ok(chain)
}

/// Reads up to `length` bytes at `offset`; fewer at the end of the file.
fn read_at(file: &File, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
        match file.read_at(rest, at)? {
            0 => break,
            read => done += read,
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

fn absolute(of: &Path, interpreter: String) -> Result<PathBuf, ChainError> {
    if interpreter.starts_with('/') {
        Ok(interpreter.into())
    } else {
        Err(ChainError::Relative(of.to_owned()))
    }
}

/// What the kernel looks for when it executes a file.
#[derive(Debug, PartialEq, Eq)]
enum Needs {
    Nothing,
    Script { interpreter: String, argument: String },
    Loader(String),
}

/// Looks at a file through `read(offset, length)`, which returns fewer bytes only at the end.
fn needs(read: impl Fn(u64, usize) -> std::io::Result<Vec<u8>>) -> std::io::Result<Needs> {
    let header = read(0, LINE_BYTES)?;
    if let Some(line) = header.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let line = line.trim_matches([' ', '\t']);
        let (interpreter, argument) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        return Ok(Needs::Script {
            interpreter: interpreter.to_owned(),
            argument: argument.trim().to_owned(),
        });
    }
    let Some((offset, length)) = elf_interpreter(&header, &read)? else { return Ok(Needs::Nothing) };
    let text = read(offset, length)?;
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8(text.to_vec()).map_or(Needs::Nothing, Needs::Loader))
}

/// Place and length of the `PT_INTERP` text of a 64-bit little-endian ELF file (elf(5)).
fn elf_interpreter(
    header: &[u8],
    read: impl Fn(u64, usize) -> std::io::Result<Vec<u8>>,
) -> std::io::Result<Option<(u64, usize)>> {
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Ok(None);
    }
    let facts = (u64_at(header, 32), u16_at(header, 54), u16_at(header, 56));
    let (Some(offset), Some(size), Some(count)) = facts else { return Ok(None) };
    let (size, count) = (usize::from(size), usize::from(count));
    if size < PROGRAM_HEADER_BYTES || size * count > PROGRAM_HEADERS_BYTES_MAX {
        return Ok(None);
    }
    let table = read(offset, size * count)?;
    Ok(table.chunks_exact(size).find_map(|entry| {
        let is_interpreter = u32_at(entry, 0)? == PT_INTERP;
        let length = usize::try_from(u64_at(entry, 32)?).ok()?;
        (is_interpreter && length <= PATH_BYTES).then_some((u64_at(entry, 8)?, length))
    }))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_le_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

/// The program that a line `#!/usr/bin/env NAME` means: part of the chain as much as `env` is.
fn named_by_env(
    script: &Path,
    interpreter: &str,
    argument: &str,
    environment: &BTreeMap<String, String>,
) -> Result<Option<(PathBuf, Links)>, ChainError> {
    if Path::new(interpreter).file_name().is_none_or(|name| name != "env") {
        return Ok(None);
    }
    let argument = argument.strip_prefix("-S").unwrap_or(argument).trim();
    let word = argument.split([' ', '\t']).find(|word| !word.contains('=') && !word.starts_with('-'));
    let Some(name) = word.filter(|word| !word.is_empty()) else { return Ok(None) };
    if name.contains('/') {
        return Ok(Some((absolute(script, name.to_owned())?, Links::Follow)));
    }
    let path = environment.get("PATH").map_or("", String::as_str);
    let found = path
        .split(':')
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| Path::new(directory).join(name))
        .find(|candidate| rustix::fs::access(candidate, rustix::fs::Access::EXEC_OK).is_ok());
    match found {
        Some(found) => Ok(Some((found, Links::Follow))),
        None => Err(ChainError::NotInPath { path: script.to_owned(), name: name.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs_of(bytes: &[u8]) -> Needs {
        let read = |offset: u64, length: usize| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            Ok(bytes[start..start.saturating_add(length).min(bytes.len())].to_vec())
        };
        needs(read).unwrap()
    }

    fn script(line: &str) -> (String, String) {
        match needs_of(line.as_bytes()) {
            Needs::Script { interpreter, argument } => (interpreter, argument),
            other => panic!("{line:?} is {other:?}"),
        }
    }

    #[test]
    fn interpreter_lines() {
        for (line, interpreter, argument) in [
            ("#!/bin/sh\n", "/bin/sh", ""),
            ("#! /bin/sh -e \nx", "/bin/sh", "-e"),
            ("#!\t/usr/bin/env\tpython3 -u", "/usr/bin/env", "python3 -u"),
            ("#!python3\n", "python3", ""),
            ("#!\n", "", ""),
        ] {
            assert_eq!(script(line), (interpreter.to_owned(), argument.to_owned()), "{line:?}");
        }
        assert_eq!(script(&format!("#!/{}", "x".repeat(999))).0.len(), LINE_BYTES - 2);
        assert_eq!(needs_of(b"# comment"), Needs::Nothing);
        assert_eq!(needs_of(b""), Needs::Nothing);
    }

    #[test]
    fn damaged_elf_headers_need_nothing() {
        let mut header = vec![0xff; 4096];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        assert_eq!(needs_of(&header), Needs::Nothing);
        for length in 0..200 {
            assert_eq!(needs_of(&header[..length]), Needs::Nothing);
        }
    }

    #[test]
    fn a_real_program_needs_its_loader() {
        let chain = chain(Path::new("/usr/bin/env"), Links::Follow, &BTreeMap::new()).unwrap();
        let paths: Vec<_> = chain.files.iter().map(|(path, _)| path.to_str().unwrap()).collect();
        assert_eq!(paths, ["/usr/bin/env", "/lib64/ld-linux-x86-64.so.2"]);
    }

    #[test]
    fn env_means_the_program_it_starts() {
        let environment = BTreeMap::from([("PATH".to_owned(), "/nonexistent:/usr/bin".to_owned())]);
        let named = |argument| named_by_env(Path::new("/s"), "/usr/bin/env", argument, &environment);
        for argument in ["sh", "-S sh -e", "-S A=1 sh", "/usr/bin/sh"] {
            assert_eq!(named(argument).unwrap().unwrap().0, Path::new("/usr/bin/sh"), "{argument}");
        }
        assert!(named("").unwrap().is_none());
        assert!(matches!(named("no-such-program"), Err(ChainError::NotInPath { .. })));
        assert!(named_by_env(Path::new("/s"), "/bin/sh", "x", &environment).unwrap().is_none());
    }
}
