//! Attempts 15 and 17 to 21: execution.
#![allow(clippy::disallowed_methods, reason = "starting programs is what these attempts are about")]

use std::fs::{self, File, Permissions};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::fs::{MemfdFlags, memfd_create};

use super::{PROGRAM, Params, Refusal, Step, all_refused, c, ensure, other, part};
use crate::raw::{call, text};

/// A program of the host that is not granted.
const DENIED: &str = "/usr/bin/ls";
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// Runs a program to its end; a status other than 0 is not a refusal.
pub(crate) fn run(program: impl AsRef<Path>, arguments: &[&str]) -> Step {
    let output = Command::new(program.as_ref()).args(arguments).output()?;
    finished(&output)
}

fn finished(output: &Output) -> Step {
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let is_refusal = ["Permission denied", "Operation not permitted", "failed to map segment"];
    if is_refusal.iter().any(|text| complaint.contains(text)) {
        return Err(Refusal::Errors(vec![libc::EACCES]));
    }
    other(format!("{}: {}", output.status, complaint.trim()))
}

pub(crate) fn copy_to(directory: &str, mode: u32) -> Result<PathBuf, Refusal> {
    let path = Path::new(directory).join("copy");
    fs::copy(PROGRAM, &path)?;
    fs::set_permissions(&path, Permissions::from_mode(mode))?;
    Ok(path)
}

pub(crate) fn run_self(_: &Params) -> Step {
    run(PROGRAM, &["--nothing"])
}

pub(crate) fn copies(params: &Params) -> Step {
    let mut parts = Vec::new();
    for directory in ["/workspace", "/tmp", "/dev/shm", &params.writable] {
        let path = copy_to(directory, 0o755)?;
        parts.push(part(directory, run(&path, &["--nothing"])));
        fs::remove_file(path)?;
    }
    all_refused(parts)
}

/// What it wrote, under the name that the host has for it.
pub(crate) fn by_host_name(params: &Params) -> Step {
    let copy = copy_to("/workspace", 0o755)?;
    let name = Path::new(&params.workspace).join("copy");
    let parts = [
        part("the workspace's name on the host", run(&name, &["--nothing"])),
        part(
            "the loader",
            fs::File::open(&name)
                .map_err(Refusal::from)
                .and_then(|_| run(LOADER, &[&name.display().to_string(), "--nothing"])),
        ),
    ];
    fs::remove_file(copy)?;
    all_refused(parts)
}

pub(crate) fn loader(_: &Params) -> Step {
    let mut parts = vec![part(DENIED, run(LOADER, &[DENIED, "/"]))];
    for directory in ["/workspace", "/tmp", "/dev/shm"] {
        let path = copy_to(directory, 0o755)?;
        let name = path.display().to_string();
        parts.push(part(name.clone(), run(LOADER, &[&name, "--nothing"])));
    }
    all_refused(parts)
}

pub(crate) fn loader_self(_: &Params) -> Step {
    run(LOADER, &[PROGRAM, "--nothing"])
}

pub(crate) fn memory(_: &Params) -> Step {
    let name = c("program")?;
    let create = |flags: usize| call(libc::SYS_memfd_create, [text(&name), flags, 0, 0, 0, 0]);
    let sealed = memfd_create("program", MemfdFlags::NOEXEC_SEAL)?;
    let mut sealed = File::from(sealed);
    sealed.write_all(&fs::read(PROGRAM)?)?;
    let path = format!("/proc/self/fd/{}", sealed.as_raw_fd());
    all_refused([
        part("an executable file", create(0x10)),
        part("a file of the old kind", create(0)),
        part("a sealed file", run(path, &["--nothing"]).map(|()| 0)),
    ])
}

pub(crate) fn memory_data(_: &Params) -> Step {
    let mut file = File::from(memfd_create("data", MemfdFlags::NOEXEC_SEAL)?);
    file.write_all(b"data")?;
    file.rewind()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    ensure(text == "data", "the data changed")
}

pub(crate) fn aliases(_: &Params) -> Step {
    let link = Path::new("/workspace/alias");
    if link.is_symlink() {
        fs::remove_file(link)?;
    }
    symlink(DENIED, link)?;
    let names = [
        "/workspace/alias",
        DENIED,
        "/bin/ls",
        "/proc/self/root/usr/bin/ls",
        "/usr/bin/../bin/ls",
        "/bin/sh",
    ];
    all_refused(names.map(|name| part(name, run(name, &["/"]))))
}

pub(crate) fn alias_allowed(_: &Params) -> Step {
    let link = Path::new("/workspace/alias-allowed");
    if link.is_symlink() {
        fs::remove_file(link)?;
    }
    symlink(PROGRAM, link)?;
    run(link, &["--nothing"])
}

fn write_script() -> Result<PathBuf, Refusal> {
    let path = PathBuf::from("/workspace/script.py");
    fs::write(&path, "#!/usr/bin/python3\nprint(1)\n")?;
    fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    Ok(path)
}

pub(crate) fn script(_: &Params) -> Step {
    run(write_script()?, &[])
}

pub(crate) fn interpreter(_: &Params) -> Step {
    let script = write_script()?;
    run("/usr/bin/python3", &[&script.display().to_string()])
}

/// A descriptor that a raw call returned.
#[allow(unsafe_code, reason = "the number of a new descriptor is owned by nobody else")]
pub(crate) fn owned(number: usize) -> Result<OwnedFd, Refusal> {
    let number = i32::try_from(number).map_err(|error| Refusal::Other(error.to_string()))?;
    // SAFETY: the kernel returned the number for a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
