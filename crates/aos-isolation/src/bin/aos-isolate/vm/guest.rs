//! The first process of a machine: it shows the host's files where the host has them, starts `aos-launch` with the
//! plan, and speaks to the driver until that has ended.
//!
//! It is root in the machine, and the agent is not; a fault here gives an agent its own machine and nothing else.

#![expect(
    clippy::disallowed_methods,
    reason = "this module starts aos-launch in the machine, and nothing else"
)]

mod pump;

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aos_isolation::vm::machine::PORT;
use aos_isolation::vm::manifest::{GUEST, LAUNCHER, MANIFEST, MODULES, Manifest, PLAN, Place, Share, What};
use aos_isolation::vm::wire::FromGuest;
use aos_sys::signal;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_move, unmount};
use rustix::process::{Resource, Rlimit, chdir, chroot, setrlimit};

use crate::error::{Context, LaunchError, Layer, fail, print_line};
use pump::Pump;

/// The machine's root, until it is the root.
const ROOT: &str = "/root";
/// The launcher, the plan and the report, which no plan shows.
const OWN: &str = "/aos";
/// How long a device may take to appear.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(10);
/// `MODULE_INIT_COMPRESSED_FILE` of linux/module.h.
const COMPRESSED: i32 = 4;
/// Files of the machine: an agent's own limit is below.
const OPEN_FILES: u64 = 1 << 20;
/// Settings below `/proc/sys`: what an agent has no use for in a kernel of its own, and that a kernel with a fault
/// ends instead of going on.
const SETTINGS: [(&str, &str); 4] = [
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "2"),
    ("kernel/sysrq", "0"),
    ("kernel/panic_on_oops", "1"),
];

/// Whether this process is one.
pub(crate) fn is_guest() -> bool {
    rustix::process::getpid().is_init() && std::env::args_os().nth(1).is_some_and(|word| word == GUEST)
}

/// Runs until the driver ends the machine.
pub(crate) fn run() -> Result<u8, LaunchError> {
    mount_kernels_own()?;
    let port = open_port()?;
    match prepare().and_then(Pump::new) {
        Ok(mut pump) => pump.run(&port)?,
        Err(failure) => {
            print_line(&failure.to_string());
            pump::say(&port, &FromGuest::Failed(failure.to_string()))?;
        }
    }
    // The driver ends the machine when it has heard the last message.
    loop {
        std::thread::sleep(PATIENCE);
    }
}

/// The launcher, started.
pub(super) struct Started {
    pub(super) launcher: Child,
    /// Where it reports readiness.
    pub(super) readiness: UnixDatagram,
    /// Where it writes the report.
    pub(super) report: PathBuf,
}

fn mount_kernels_own() -> Result<(), LaunchError> {
    let mounted = |kind: &str, at: &str, data: Option<&std::ffi::CStr>| {
        let path = Path::new(ROOT).join(at);
        fs::create_dir_all(&path).layer(Layer::Namespace, path.display())?;
        mount(kind, &path, kind, MountFlags::NOSUID, data).layer(Layer::Namespace, path.display())
    };
    mounted("tmpfs", "", Some(c"mode=0755,size=32m"))?;
    for (kind, at) in [("devtmpfs", "dev"), ("proc", "proc"), ("sysfs", "sys")] {
        mounted(kind, at, None)?;
    }
    for name in ["run", "tmp", "aos"] {
        fs::create_dir(Path::new(ROOT).join(name)).layer(Layer::Namespace, name)?;
    }
    load_modules()
}

/// Loads the kernel's modules, in the order of their names.
fn load_modules() -> Result<(), LaunchError> {
    let directory = Path::new("/").join(MODULES);
    let entries = fs::read_dir(&directory).layer(Layer::Isolation, directory.display())?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.sort();
    for path in paths {
        let file = File::open(&path).layer(Layer::Isolation, path.display())?;
        let is_plain = path.extension().is_some_and(|ending| ending == "ko");
        let flags = if is_plain { 0 } else { COMPRESSED };
        rustix::system::finit_module(&file, c"", flags).layer(Layer::Isolation, path.display())?;
    }
    Ok(())
}

/// The port to the driver, which the kernel finds while this process runs.
fn open_port() -> Result<File, LaunchError> {
    let started = Instant::now();
    let directory = Path::new(ROOT).join("sys/class/virtio-ports");
    while started.elapsed() < PATIENCE {
        for entry in fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok) {
            let is_own = fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim() == PORT);
            if is_own {
                let path = Path::new(ROOT).join("dev").join(entry.file_name());
                let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
                let mut options = File::options();
                std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags);
                return options.read(true).write(true).open(&path).layer(Layer::Isolation, path.display());
            }
        }
        std::thread::sleep(PAUSE);
    }
    fail(Layer::Isolation, "the machine has no port to the driver")
}

/// Everything up to the launcher's start.
fn prepare() -> Result<Started, LaunchError> {
    let manifest = fs::read(Path::new("/").join(MANIFEST)).layer(Layer::Plan, MANIFEST)?;
    let manifest = Manifest::parse(&manifest).layer(Layer::Plan, MANIFEST)?;
    for name in [LAUNCHER, PLAN] {
        let to = Path::new(ROOT).join(OWN.trim_start_matches('/')).join(name);
        fs::copy(Path::new("/").join(name), to).layer(Layer::Namespace, name)?;
    }
    for share in Share::ALL {
        mount_share(share)?;
    }
    enter_root()?;
    for (name, value) in SETTINGS {
        let path = Path::new("/proc/sys").join(name);
        fs::write(&path, value).layer(Layer::Limits, path.display())?;
    }
    for resource in [Resource::Nofile, Resource::Nproc, Resource::Memlock] {
        let limit = Some(OPEN_FILES).filter(|_| resource == Resource::Nofile);
        setrlimit(resource, Rlimit { current: limit, maximum: limit }).layer(Layer::Limits, "limits")?;
    }
    for place in &manifest.places {
        show(place).layer(Layer::Namespace, &place.path)?;
    }
    start(&manifest)
}

fn shares() -> PathBuf {
    Path::new(OWN).join("shares")
}

fn mount_share(share: Share) -> Result<(), LaunchError> {
    let path = Path::new(ROOT).join("aos/shares").join(share.name());
    fs::create_dir_all(&path).layer(Layer::Namespace, path.display())?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, share.is_read_only());
    let options = CString::new(share.options()).layer(Layer::Namespace, share.name())?;
    mount(share.name(), &path, "9p", flags, Some(options.as_c_str()))
        .layer(Layer::Isolation, format!("cannot mount the share {}", share.name()))
}

/// The root that the kernel unpacked cannot be left by pivot_root(2), which the launcher does: another one is put
/// on top of it. What was unpacked is removed, and its memory with it.
fn enter_root() -> Result<(), LaunchError> {
    let what = "cannot enter the machine's root";
    for name in [LAUNCHER, PLAN, MANIFEST] {
        fs::remove_file(Path::new("/").join(name)).layer(Layer::Namespace, what)?;
    }
    fs::remove_dir_all(Path::new("/").join(MODULES)).layer(Layer::Namespace, what)?;
    unmount(Path::new(ROOT).join("sys"), UnmountFlags::empty()).layer(Layer::Namespace, what)?;
    chdir(ROOT).layer(Layer::Namespace, what)?;
    mount_move(".", "/").layer(Layer::Namespace, what)?;
    chroot(".").layer(Layer::Namespace, what)?;
    chdir("/").layer(Layer::Namespace, what)
}

/// Makes one place of the host. Where a share shows its parent, it is there already.
fn show(place: &Place) -> std::io::Result<()> {
    let path = place.path.as_path();
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match &place.what {
        What::Link { to } => match symlink(to, path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        },
        What::Shared { share, number, is_directory } => {
            let made = if *is_directory { fs::create_dir(path) } else { File::create_new(path).map(drop) };
            match made {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let from = shares().join(share.name()).join(number.to_string());
            Ok(mount_bind(from, path)?)
        }
    }
}

fn start(manifest: &Manifest) -> Result<Started, LaunchError> {
    use std::os::linux::net::SocketAddrExt;
    const READINESS: &str = "aos-guest";
    let what = "cannot start the launcher";
    signal::block_all().layer(Layer::Process, what)?;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(READINESS).layer(Layer::Notify, what)?;
    let readiness = UnixDatagram::bind_addr(&address).layer(Layer::Notify, what)?;
    readiness.set_nonblocking(true).layer(Layer::Notify, what)?;
    let own = Path::new(OWN);
    fs::set_permissions(own.join(LAUNCHER), fs::Permissions::from_mode(0o755)).layer(Layer::Exec, what)?;
    let report = own.join("report.json");
    let mut command = Command::new(own.join(LAUNCHER));
    command.env_clear().env("NOTIFY_SOCKET", format!("@{READINESS}")).current_dir("/");
    command.arg("--plan").arg(own.join(PLAN)).arg("--report").arg(&report);
    command.args(["--uid", &manifest.uid.to_string(), "--gid", &manifest.gid.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let launcher = command.spawn().layer(Layer::Exec, what)?;
    Ok(Started { launcher, readiness, report })
}
