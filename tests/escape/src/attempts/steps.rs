//! Attempts of a step of a build, where they differ from an agent's: everything that it writes it
//! may execute, so what counts is what it reaches outside.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat};

use super::files::{by_handle_in, read, write};
use super::{Params, Refusal, Step, all_refused, ensure, exec, other, part, process};
use crate::raw::call3;

/// The cache that the step has.
const CACHE: &str = "/var/cache/step";
/// `struct vfs_cap_data` of linux/capability.h, revision 2: CAP_NET_RAW, permitted and effective.
const FILE_CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// A file of the layer below.
const LOWER: &str = "/app/data/file";

pub(crate) fn read_secrets(params: &Params) -> Step {
    let paths =
        ["/etc/shadow", "/root/.ssh/id_ed25519", "/etc/ssh/sshd_config", "/etc/machine-id", &params.secret];
    all_refused(paths.map(|path| part(path, read(path))))
}

pub(crate) fn by_handle(_: &Params) -> Step {
    by_handle_in("/app")
}

pub(crate) fn read_layer(_: &Params) -> Step {
    read(LOWER)
}

/// The layers, the upper directory and the caches under the names that the host has for them, and
/// the host's `/usr`.
pub(crate) fn write_host(params: &Params) -> Step {
    all_refused(
        [
            format!("{}/app/data/file", params.package),
            format!("{}/new", params.package),
            format!("{}/files/new", params.workspace),
            params.secret.clone(),
            format!("{}/new", params.writable),
            "/usr/bin/env".to_owned(),
            "/usr/new".to_owned(),
            "/etc/ssl/certs/new".to_owned(),
            "/bin/new".to_owned(),
        ]
        .map(|path| part(path.clone(), write(&path))),
    )
}

/// The runner looks at the layer afterwards.
pub(crate) fn write_layer(_: &Params) -> Step {
    fs::write(LOWER, "changed\n")?;
    fs::create_dir_all("/opt/new")?;
    fs::write("/opt/new/file", "new\n")?;
    fs::remove_file("/app/data/gone")?;
    ensure(fs::read_to_string(LOWER)? == "changed\n", "not changed")
}

pub(crate) fn write_made(_: &Params) -> Step {
    let paths = [
        "/sys/new",
        "/workspace/new",
        "/proc/new",
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/dev/new",
        "/proc/self/uid_map",
        "/proc/self/oom_adj",
    ];
    all_refused(paths.map(|path| part(path, write(path))))
}

pub(crate) fn write_own(_: &Params) -> Step {
    for path in ["/tmp/file", "/dev/shm/file", "/run/file", "/root/file", "/file"] {
        write(path)?;
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Making one answers success, as package managers expect; there is no device afterwards.
pub(crate) fn devices(_: &Params) -> Step {
    let mode = Mode::from_bits_retain(0o666);
    let mut parts = Vec::new();
    for (name, kind, device) in [
        ("/mem", FileType::CharacterDevice, rustix::fs::makedev(1, 1)),
        ("/tmp/disk", FileType::BlockDevice, rustix::fs::makedev(254, 0)),
        ("/app/data/hidden", FileType::CharacterDevice, 0),
    ] {
        mknodat(CWD, name, kind, mode, device)?;
        parts.push(part(name, fs::symlink_metadata(name).map(drop)));
    }
    all_refused(parts)
}

pub(crate) fn pipe(_: &Params) -> Step {
    mknodat(CWD, "/tmp/pipe", FileType::Fifo, Mode::from_bits_retain(0o600), 0)?;
    Ok(())
}

/// Its uid 0 is a name: what needs a capability is refused.
pub(crate) fn capabilities(_: &Params) -> Step {
    let name = c"escape";
    all_refused([
        part("bind a low port", TcpListener::bind("127.0.0.1:80").map(drop)),
        part("chroot", call3(libc::SYS_chroot, c"/tmp".as_ptr().addr(), 0, 0).map(drop)),
        part("set the host name", call3(libc::SYS_sethostname, name.as_ptr().addr(), 6, 0).map(drop)),
        part("trusted attributes", set_attribute("/tmp", "trusted.x")),
        part("file capabilities", set_value("/app/data/kept", "security.capability", &FILE_CAPABILITY)),
        part("read what is nobody's", File::open("/proc/1/environ").map(drop).map_err(|_| libc::EPERM)),
    ])
}

fn set_attribute(path: &str, name: &str) -> Result<(), rustix::io::Errno> {
    set_value(path, name, b"y")
}

fn set_value(path: &str, name: &str, value: &[u8]) -> Result<(), rustix::io::Errno> {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty())
}

/// Ownership and identity change in name only.
pub(crate) fn pretended(_: &Params) -> Step {
    fs::write("/tmp/owned", b"")?;
    std::os::unix::fs::chown("/tmp/owned", Some(12), Some(34))?;
    call3(libc::SYS_setresuid, 7, 7, 7)?;
    call3(libc::SYS_setgroups, 0, 0, 0)?;
    let metadata = fs::metadata("/tmp/owned")?;
    ensure((metadata.uid(), metadata.gid()) == (0, 0), "the owner has changed")?;
    ensure(rustix::process::getuid().is_root(), "the user has changed")
}

/// A program with the bits runs as who runs it, inside; the runner finds no bit outside.
pub(crate) fn set_ids(_: &Params) -> Step {
    let copy = exec::copy_to("/opt", 0o6755)?;
    exec::run(&copy, &["--nothing"])?;
    let status = fs::read_to_string("/proc/self/status")?;
    let is_empty = |name: &str| {
        status.lines().any(|line| {
            line.strip_prefix(name).is_some_and(|set| set.trim().bytes().all(|digit| digit == b'0'))
        })
    };
    let is_bound = ["CapEff:", "CapPrm:", "CapBnd:", "CapInh:", "CapAmb:"].into_iter().all(is_empty);
    ensure(is_bound && status.contains("NoNewPrivs:\t1"), "a capability can be had")?;
    Err(Refusal::Errors(vec![libc::EPERM]))
}

pub(crate) fn run_written(_: &Params) -> Step {
    for directory in ["/opt", "/tmp", CACHE] {
        exec::run(exec::copy_to(directory, 0o755)?, &["--nothing"])?;
    }
    Ok(())
}

/// Links, `..`, and directories swapped for links, towards the host's files.
pub(crate) fn links(params: &Params) -> Step {
    let mut parts = Vec::new();
    let up = "../".repeat(40);
    for (name, to) in [
        ("a", params.secret.clone()),
        ("b", format!("{up}{}", params.secret)),
        ("c", format!("/proc/1/root{}", params.secret)),
        ("d", format!("/proc/self/root{}", params.secret)),
        ("e", format!("/proc/self/cwd/..{}", params.secret)),
    ] {
        let link = Path::new("/opt").join(format!("link-{name}"));
        symlink(&to, &link)?;
        parts.push(part(to, read(&link)));
    }
    all_refused(parts)
}

pub(crate) fn link_inside(_: &Params) -> Step {
    symlink("../app/data/kept", "/opt/link")?;
    fs::hard_link("/opt/link", "/opt/hard")?;
    read("/opt/link")
}

/// What an earlier step left in the cache, or this one, does not lead out of it.
pub(crate) fn cache_out(params: &Params) -> Step {
    let planted = Path::new(CACHE).join("planted");
    let cache = |name: &str| Path::new(CACHE).join(name);
    fs::write(cache("own"), "x")?;
    all_refused([
        part("a planted link to the host", write_existing(&planted)),
        part("up from the cache", write_existing(&cache(&format!("../../../..{}", params.secret)))),
        part("a hard link out", fs::hard_link(cache("own"), "/opt/from-cache")),
        part("a hard link in", fs::hard_link("/app/data/kept", cache("in"))),
        part("rename out", fs::rename(cache("own"), "/opt/from-cache")),
        part("remove the mount", fs::remove_dir_all(CACHE).and_then(|()| fs::remove_dir(CACHE))),
    ])
}

/// Writes to a file that is there; a dangling link would make its target.
fn write_existing(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(b"x")
}

pub(crate) fn cache_in(_: &Params) -> Step {
    let path = Path::new(CACHE).join("kept");
    write(&path)?;
    read(path)
}

pub(crate) fn change_secret(_: &Params) -> Step {
    all_refused([
        part("write", write_existing(Path::new("/run/secrets/token"))),
        part("remove", fs::remove_file("/run/secrets/token")),
        part("replace", fs::write("/run/secrets/other", "x")),
        part("rename", fs::rename("/run/secrets/token", "/run/secrets/moved")),
        part("change the mode", fs::set_permissions("/run/secrets/token", fs::Permissions::from_mode(0o644))),
    ])
}

pub(crate) fn read_secret(_: &Params) -> Step {
    let metadata = fs::metadata("/run/secrets/token")?;
    ensure(metadata.mode() & 0o7777 == 0o400 && metadata.uid() == 0, "mode or owner")?;
    ensure(fs::read_to_string("/run/secrets/token")? == "step-secret", "another content")
}

/// The union's own attributes are refused, or kept apart from those of the union: the runner sees
/// that the directory does not hide the layer's.
pub(crate) fn forge_union(_: &Params) -> Step {
    let forged = |name: &str| match set_attribute("/app/data", name) {
        Ok(()) => read("/app/data/kept").and(Err(Refusal::Errors(vec![libc::EPERM]))),
        Err(error) => Err::<(), _>(error.into()),
    };
    all_refused([
        part("hide the layer's files", forged("user.overlay.opaque")),
        part("redirect", forged("user.overlay.redirect")),
        part("take the content from elsewhere", forged("user.overlay.metacopy")),
        part("the privileged form", forged("trusted.overlay.opaque")),
    ])
}

pub(crate) fn own_attribute(_: &Params) -> Step {
    fs::create_dir_all("/opt/attributes")?;
    Ok(set_attribute("/opt/attributes", "user.own")?)
}

/// By TCP, UDP and the resolver; the proxy is not there either.
pub(crate) fn network(_: &Params) -> Step {
    let udp = UdpSocket::bind("0.0.0.0:0")?;
    let resolved = ("deb.debian.org", 80).to_socket_addrs().map(drop);
    all_refused([
        part("TCP", TcpStream::connect("192.0.2.1:80").map(drop)),
        part("metadata", TcpStream::connect("169.254.169.254:80").map(drop)),
        part("UDP", udp.send_to(b"x", "192.0.2.1:53").map(drop)),
        part("proxy", TcpStream::connect("127.0.0.1:3128").map(drop)),
        part("resolver", resolved.map_err(|_| libc::ENETUNREACH)),
    ])
}

pub(crate) fn own_loopback(_: &Params) -> Step {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    client.write_all(b"x")?;
    listener.accept()?;
    Ok(())
}

/// The limit of processes ends it; the children end with it.
pub(crate) fn fork_bomb(_: &Params) -> Step {
    process::fork_up_to(5000)
}

pub(crate) fn control_group(_: &Params) -> Step {
    let paths = ["/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup", "/sys/kernel"];
    all_refused(paths.map(|path| part(path, File::open(path))))
}

/// Exactly the variables of a step.
pub(crate) fn environment(_: &Params) -> Step {
    let known =
        ["APT_CONFIG", "DEBIAN_FRONTEND", "HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TMPDIR", "USER"];
    let names: Vec<String> =
        std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    let is_known = names.len() == known.len() && names.iter().all(|name| known.contains(&name.as_str()));
    if is_known { Ok(()) } else { other(names.join(" ")) }
}
