//! Attempts 1 to 14 and 16: files.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, openat};

use super::{Params, Refusal, Step, all_refused, c, ensure, other, part};
use crate::raw::{address, call, call3, text};

pub(crate) fn read(path: impl AsRef<Path>) -> Result<(), Refusal> {
    let mut byte = [0; 1];
    let mut file = File::open(path)?;
    file.read_exact(&mut byte)?;
    Ok(())
}

pub(crate) fn write(path: impl AsRef<Path>) -> Result<(), Refusal> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path)?.write_all(b"x")?;
    Ok(())
}

/// A fresh path in the workspace.
fn own(name: &str) -> Result<PathBuf, Refusal> {
    let path = Path::new("/workspace").join(name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(path),
    }
}

pub(crate) fn read_secrets(params: &Params) -> Step {
    let paths =
        ["/etc/shadow", "/root/.ssh/id_ed25519", "/etc/ssh/sshd_config", "/usr/bin/ls", &params.secret];
    all_refused(paths.map(|path| part(path, read(path))))
}

/// Its own package and its workspace, under the names that the host has for them.
pub(crate) fn by_host_name(params: &Params) -> Step {
    let package = Path::new(&params.package);
    let workspace = Path::new(&params.workspace);
    write(own("seen")?)?;
    all_refused([
        part("change the package", write(package.join("app/escape-probe"))),
        part("add to the package", write(package.join("app/new"))),
        part("read the package", read(package.join("app/escape-probe"))),
        part("read the workspace", read(workspace.join("seen"))),
        part("change the workspace", write(workspace.join("seen"))),
    ])
}

pub(crate) fn read_granted(params: &Params) -> Step {
    read(Path::new(&params.readable).join("file"))
}

pub(crate) fn follow_link_out(params: &Params) -> Step {
    let mut parts = Vec::new();
    for (name, target) in
        [("a", "/etc/shadow"), ("b", &params.secret), ("c", "/usr/bin/ls"), ("d", "/proc/1/root/etc")]
    {
        let link = own(&format!("link-{name}"))?;
        symlink(target, &link)?;
        parts.push(part(target, read(&link)));
    }
    all_refused(parts)
}

pub(crate) fn follow_link_in(params: &Params) -> Step {
    let link = own("link-in")?;
    symlink(Path::new(&params.readable).join("file"), &link)?;
    read(link)
}

pub(crate) fn climb(params: &Params) -> Step {
    let name = Path::new(&params.secret).file_name().unwrap_or_default().to_owned();
    let up = Path::new(&params.readable).join("..");
    let paths = [up.join(&name), up.join("../../../../etc/shadow"), Path::new("/workspace/..").join(&name)];
    all_refused(paths.map(|path| part(path.display().to_string(), read(path))))
}

pub(crate) fn open_beneath(params: &Params) -> Step {
    let directory = File::open(&params.readable)?;
    openat(&directory, "file", OFlags::RDONLY, Mode::empty())?;
    Ok(())
}

pub(crate) fn hard_link_in(params: &Params) -> Step {
    let mut parts = Vec::new();
    for source in
        [format!("{}/file", params.readable), format!("{}/own", params.writable), "/usr/bin/ls".to_owned()]
    {
        let to = own("hard")?;
        parts.push(part(source.clone(), fs::hard_link(&source, to)));
    }
    all_refused(parts)
}

pub(crate) fn hard_link(_: &Params) -> Step {
    let (from, to) = (own("hard-from")?, own("hard-to")?);
    write(&from)?;
    Ok(fs::hard_link(from, to)?)
}

pub(crate) fn rename_across(params: &Params) -> Step {
    let (from, to) = (own("moved")?, Path::new(&params.writable).join("moved"));
    write(&from)?;
    all_refused([
        part("workspace to grant", fs::rename(&from, &to)),
        part("grant to workspace", fs::rename(Path::new(&params.writable).join("own"), own("moved-in")?)),
        part("workspace to /tmp", fs::rename(&from, "/tmp/moved")),
    ])
}

pub(crate) fn rename(_: &Params) -> Step {
    let (from, to) = (own("renamed-from")?, own("renamed-to")?);
    write(&from)?;
    Ok(fs::rename(from, to)?)
}

pub(crate) fn proc_root(params: &Params) -> Step {
    let paths = [
        "/proc/1/root/etc/shadow".to_owned(),
        "/proc/1/cwd/etc/shadow".to_owned(),
        "/proc/1/mem".to_owned(),
        "/proc/1/environ".to_owned(),
        format!("/proc/self/root{}", params.secret),
        "/proc/self/root/etc/shadow".to_owned(),
        format!("/proc/{}/root/etc/shadow", params.neighbour_pid),
        format!("/proc/self/task/1/root{}", params.secret),
    ];
    all_refused(paths.map(|path| part(path.clone(), read(path))))
}

pub(crate) fn proc_self(_: &Params) -> Step {
    read("/proc/self/status")
}

pub(crate) fn open_by_handle(_: &Params) -> Step {
    by_handle_in("/workspace")
}

/// Opens a file of the file system that a directory is in.
pub(crate) fn by_handle_in(directory: &str) -> Step {
    // A handle of 8 bytes of type 1: inode and generation on most file systems.
    let handle: [u32; 4] = [8, 1, 2, 0];
    let directory = File::open(directory)?;
    let fd = usize::try_from(std::os::fd::AsRawFd::as_raw_fd(&directory)).unwrap_or_default();
    call3(libc::SYS_open_by_handle_at, fd, address(&handle), 0)?;
    Ok(())
}

pub(crate) fn make_device(_: &Params) -> Step {
    let mode = Mode::from_bits_retain(0o666);
    let mut parts = Vec::new();
    for directory in ["/workspace", "/tmp", "/dev/shm"] {
        let character = format!("{directory}/mem");
        parts.push(part(
            character.clone(),
            mknodat(CWD, character, FileType::CharacterDevice, mode, rustix::fs::makedev(1, 1)),
        ));
        let block = format!("{directory}/disk");
        parts.push(part(
            block.clone(),
            mknodat(CWD, block, FileType::BlockDevice, mode, rustix::fs::makedev(254, 0)),
        ));
    }
    all_refused(parts)
}

pub(crate) fn make_pipe(_: &Params) -> Step {
    let path = own("pipe")?;
    mknodat(CWD, &path, FileType::Fifo, Mode::from_bits_retain(0o600), 0)?;
    Ok(())
}

pub(crate) fn write_system(_: &Params) -> Step {
    let paths = [
        "/new",
        "/usr/new",
        "/usr/bin/python3",
        "/etc/passwd",
        "/etc/new",
        "/app/new",
        "/app/escape-probe",
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/proc/self/uid_map",
        "/proc/self/oom_score_adj",
        "/proc/self/mem",
        "/dev/new",
        "/sys/kernel/uevent_helper",
    ];
    all_refused(paths.map(|path| part(path, write(path))))
}

pub(crate) fn write_own(_: &Params) -> Step {
    write("/tmp/file")?;
    write("/dev/shm/file")?;
    write("/workspace/file")
}

pub(crate) fn open_devices(_: &Params) -> Step {
    let names = [
        "mem",
        "kmem",
        "port",
        "vda",
        "sda",
        "kvm",
        "fuse",
        "loop-control",
        "net/tun",
        "vsock",
        "userfaultfd",
        "kmsg",
        "uinput",
    ];
    all_refused(names.map(|name| part(name, File::open(format!("/dev/{name}")))))
}

pub(crate) fn use_devices(_: &Params) -> Step {
    write("/dev/null")?;
    read("/dev/zero")?;
    read("/dev/urandom")?;
    OpenOptions::new().read(true).write(true).open("/dev/ptmx")?;
    Ok(())
}

pub(crate) fn mounts(_: &Params) -> Step {
    let (proc, tmp, tmpfs, bind) = (c("/proc")?, c("/tmp")?, c("tmpfs")?, c("/usr")?);
    let at = usize::try_from(libc::AT_FDCWD).unwrap_or(usize::MAX);
    let ms_bind = usize::try_from(libc::MS_BIND).unwrap_or_default();
    all_refused([
        part("umount2", call3(libc::SYS_umount2, text(&proc), 2, 0)),
        part("mount tmpfs", call(libc::SYS_mount, [text(&tmpfs), text(&tmp), text(&tmpfs), 0, 0, 0])),
        part("mount bind", call(libc::SYS_mount, [text(&bind), text(&tmp), 0, ms_bind, 0, 0])),
        part("open_tree", call3(libc::SYS_open_tree, at, text(&bind), 1)),
        part("fsopen", call3(libc::SYS_fsopen, text(&tmpfs), 0, 0)),
        part("move_mount", call(libc::SYS_move_mount, [at, text(&bind), at, text(&tmp), 0, 0])),
        part("mount_setattr", call(libc::SYS_mount_setattr, [at, text(&bind), 0, 0, 0, 0])),
    ])
}

pub(crate) fn statfs(_: &Params) -> Step {
    rustix::fs::statfs("/workspace")?;
    Ok(())
}

pub(crate) fn change_root(_: &Params) -> Step {
    let workspace = c("/workspace")?;
    let namespace = File::open("/proc/self/ns/net");
    let fd = namespace.map_or(0, std::os::fd::IntoRawFd::into_raw_fd);
    all_refused([
        part("chroot", call3(libc::SYS_chroot, text(&workspace), 0, 0)),
        part("pivot_root", call3(libc::SYS_pivot_root, text(&workspace), text(&workspace), 0)),
        part("setns", call3(libc::SYS_setns, usize::try_from(fd).unwrap_or_default(), 0, 0)),
    ])
}

pub(crate) fn change_directory(_: &Params) -> Step {
    Ok(std::env::set_current_dir("/tmp")?)
}

pub(crate) fn plant_hooks(params: &Params) -> Step {
    let names = ["repo/.git/hooks/post-checkout", ".envrc", ".mcp.json", ".vscode/tasks.json", "Makefile"];
    all_refused(names.map(|name| part(name, write(Path::new(&params.readable).join(name)))))
}

pub(crate) fn write_granted(params: &Params) -> Step {
    write(Path::new(&params.writable).join("new"))
}

pub(crate) fn change_repository(params: &Params) -> Step {
    let config = Path::new(&params.readable).join("repo/.git/config");
    let other_config = own("config")?;
    write(&other_config)?;
    let mode = Mode::from_bits_retain(0o777);
    all_refused([
        part("write", write(&config)),
        part("truncate", OpenOptions::new().write(true).truncate(true).open(&config).map(drop)),
        part("rename over", fs::rename(&other_config, &config)),
        part("remove", fs::remove_file(&config)),
        part("change the mode", rustix::fs::chmod(&config, mode).map_err(std::io::Error::from)),
    ])
}

pub(crate) fn own_repository(_: &Params) -> Step {
    fs::create_dir_all("/workspace/repo/.git")?;
    write("/workspace/repo/.git/config")
}

/// Fills each file system in memory, with bytes and with files, and cleans up.
pub(crate) fn fill(_: &Params) -> Step {
    let mut parts = Vec::new();
    for directory in ["/tmp", "/dev/shm"] {
        parts.push(part(format!("{directory}: bytes"), fill_bytes(directory)));
        parts.push(part(format!("{directory}: files"), fill_files(directory)));
    }
    all_refused(parts)
}

fn fill_bytes(directory: &str) -> Step {
    let path = Path::new(directory).join("filler");
    let mut file = File::create(&path)?;
    let block = vec![1; 1 << 20];
    let result = (0..1024).try_for_each(|_| file.write_all(&block));
    fs::remove_file(path)?;
    Ok(result?)
}

fn fill_files(directory: &str) -> Step {
    let below = Path::new(directory).join("files");
    fs::create_dir(&below)?;
    let result = (0..1_000_000).try_for_each(|number| File::create(below.join(number.to_string())).map(drop));
    fs::remove_dir_all(below)?;
    Ok(result?)
}

pub(crate) fn write_megabyte(_: &Params) -> Step {
    fs::write("/tmp/megabyte", vec![1; 1 << 20])?;
    let length = fs::metadata("/tmp/megabyte")?.len();
    if length == 1 << 20 { ensure(true, "") } else { other(format!("{length} bytes")) }
}
