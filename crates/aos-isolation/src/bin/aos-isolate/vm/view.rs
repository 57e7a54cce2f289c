//! QEMU's root directory: its own program and libraries, the kernel, the initial file system, and a directory for
//! each share with the plan's sources in it, each a mount with the plan's flags.
//!
//! QEMU's 9p server follows no link of the guest's. Were it to, by a fault, it would find nothing else here: the
//! host's root is detached.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use aos_core::config::Isolation;
use aos_core::path::AbsolutePath;
use aos_isolation::vm::machine::{CONSOLE, INITRD, KERNEL, SHARES};
use aos_isolation::vm::manifest::{MANIFEST, MANIFEST_VERSION, Manifest, PLAN, Place, Share, What};
use aos_sandbox::launch::aliases;
use aos_sandbox::launch::mounts::{Content, bound, copy, inert, new_tmpfs};
use aos_sandbox::launch::sources::{self, Source};
use aos_sandbox::plan::{BindAccess, Node, TreeEntry};
use aos_sys::mount::{Attributes, Reach, set_attributes};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, open};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, unmount,
};
use rustix::process::{chdir, pivot_root};

use super::{KVM, Parts};
use crate::Start;
use crate::error::{Context, LaunchError, Layer, fail};
use crate::staging::{AREA, attach_over};

/// What QEMU itself says.
pub(super) const QEMU_LOG: &str = "/machine/log/qemu";
/// The kernel's and QEMU's words, of which the guest chooses the length.
const LOG_BYTES: u64 = 256 << 10;
/// The initial file system, directories, and copies of small files.
const ROOT_BYTES: u64 = 128 << 20;
const INODES: u64 = 65_536;
/// What QEMU opens in `/dev`.
const DEVICES: [&str; 3] = ["null", "urandom", "zero"];
/// The links into `/usr` of a Debian root, by which programs name their loader.
const USR_LINKS: [(&str, &str); 4] =
    [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("sbin", "usr/sbin")];

/// Prepares everything and makes it this process's root; the host's is gone.
pub(super) fn enter(start: &Start, parts: Parts) -> Result<(), LaunchError> {
    let host = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .layer(Layer::Namespace, "/")?;
    aos_sys::mount::make_private(&host, Reach::Tree)
        .layer(Layer::Namespace, "cannot keep mounts from spreading")?;
    let opened = sources::open_all(&start.plan.tree)?;
    aliases::refuse(&start.plan.tree, &opened)?;
    let usr = opened_directory("/usr")?;
    let kernel = File::open(&parts.kernel.image).layer(Layer::Isolation, parts.kernel.image.display())?;
    let what = "cannot make the machine's root";
    let root = new_tmpfs(ROOT_BYTES, INODES, "0755", Content::Data).layer(Layer::Namespace, what)?;
    let devices = devices(parts.machine.accelerator)?;
    attach_over(&root, Path::new(AREA)).layer(Layer::Namespace, what)?;
    let places = share(&start.plan.tree, &opened)?;
    make_machine(start, parts, &places, &kernel)?;
    let readable = Attributes { read_only: true, no_exec: false, no_dev: true, private: true };
    mount_copy(&usr, &at("/usr"), true, readable)?;
    for (name, to) in USR_LINKS {
        symlink(to, at("").join(name)).layer(Layer::Namespace, what)?;
    }
    fs::create_dir(at("/dev")).layer(Layer::Namespace, what)?;
    for (name, device) in &devices {
        let path = at("/dev").join(name);
        File::create_new(&path)
            .and_then(|_| Ok(attach_over(device, &path)?))
            .layer(Layer::Namespace, name)?;
    }
    mount_new_proc()?;
    seal(&root)
}

/// The root's own directory can no longer be changed, and is the root.
fn seal(root: &OwnedFd) -> Result<(), LaunchError> {
    let what = "cannot enter the machine's root";
    let sealed = Attributes { read_only: true, no_exec: true, no_dev: true, private: true };
    set_attributes(root, sealed, Reach::One).layer(Layer::Namespace, what)?;
    chdir(AREA).layer(Layer::Namespace, what)?;
    // Both at one place: the old root is then on top of the new one and is taken off.
    pivot_root(".", ".").layer(Layer::Namespace, what)?;
    unmount(".", UnmountFlags::DETACH).layer(Layer::Namespace, what)?;
    chdir("/").layer(Layer::Namespace, what)
}

/// A path of QEMU's root, while that is not yet the root.
fn at(path: &str) -> std::path::PathBuf {
    Path::new(AREA).join(path.trim_start_matches('/'))
}

fn opened_directory(path: &str) -> Result<OwnedFd, LaunchError> {
    open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .layer(Layer::Namespace, path)
}

/// Puts every source under its number, and says where the guest shows it. A path that is granted twice is shown
/// once, with the wider access: the launcher inside makes each of its mounts from that with the plan's flags.
fn share(tree: &[TreeEntry], opened: &[Source]) -> Result<Vec<Place>, LaunchError> {
    for share in Share::ALL {
        let path = at(SHARES).join(share.name());
        fs::create_dir_all(&path).layer(Layer::Namespace, "cannot make the shares")?;
    }
    let mut places: BTreeMap<AbsolutePath, What> = BTreeMap::new();
    let mut next = 0;
    for (entry, source) in tree.iter().zip(opened) {
        for (path, shown) in shown(entry, source) {
            let kind = shown.share();
            let is_narrower =
                |there: &What| matches!(there, What::Shared { share, .. } if Some(*share) >= kind);
            if places.get(path).is_some_and(is_narrower) {
                continue;
            }
            next += 1;
            let what = shown.put(entry, next)?;
            places.insert(path.clone(), what);
        }
    }
    Ok(places.into_iter().map(|(path, what)| Place { path, what }).collect())
}

/// What of the host an entry shows.
enum Shown<'a> {
    /// A source with its bind's flags.
    Bound(&'a OwnedFd, &'a aos_sandbox::plan::Bind, bool),
    /// A directory of a union.
    Lower(&'a OwnedFd),
    /// A file's content.
    Content(&'a [u8]),
    /// A link.
    Link(&'a Path),
}

fn shown<'a>(entry: &'a TreeEntry, source: &'a Source) -> Vec<(&'a AbsolutePath, Shown<'a>)> {
    match (&entry.node, source) {
        (Node::Bind(bind), Source::Mounted { file, is_directory }) => {
            vec![(&bind.source, Shown::Bound(file, bind, *is_directory))]
        }
        (Node::Bind(bind), Source::Link(to)) => vec![(&bind.source, Shown::Link(to))],
        (Node::Overlay { lower, .. }, Source::Union(files)) => {
            lower.iter().zip(files.iter().map(Shown::Lower)).collect()
        }
        (Node::Copy { source, .. }, Source::Copied(content)) => vec![(source, Shown::Content(content))],
        (Node::Copy { source, .. }, Source::Link(to)) => vec![(source, Shown::Link(to))],
        _ => Vec::new(),
    }
}

impl Shown<'_> {
    fn share(&self) -> Option<Share> {
        match self {
            Self::Bound(_, bind, _) => Some(match bind.access {
                BindAccess::Read => Share::Data,
                BindAccess::ReadExecute => Share::Programs,
                BindAccess::Write => Share::Written,
            }),
            Self::Lower(_) => Some(Share::Programs),
            Self::Content(_) => Some(Share::Data),
            Self::Link(_) => None,
        }
    }

    /// Puts it into its share under a number.
    fn put(&self, entry: &TreeEntry, number: usize) -> Result<What, LaunchError> {
        let what = || format!("{}: cannot share {}", entry.cause, entry.path);
        let Some(share) = self.share() else {
            let Self::Link(to) = self else { return fail(Layer::Plan, what()) };
            let Some(to) = to.to_str() else { return fail(Layer::Grant, what()) };
            return Ok(What::Link { to: to.to_owned() });
        };
        let path = at(SHARES).join(share.name()).join(number.to_string());
        let is_directory = match self {
            Self::Bound(file, bind, is_directory) => {
                let mount = bound(entry, bind, file)?;
                make(&path, *is_directory).layer(Layer::Namespace, what())?;
                attach_over(&mount, &path).layer(Layer::Namespace, what())?;
                *is_directory
            }
            Self::Lower(file) => {
                let readable = Attributes { read_only: true, no_exec: true, no_dev: true, private: true };
                mount_copy(file, &path, true, readable)?;
                true
            }
            Self::Content(content) => {
                fs::write(&path, content).layer(Layer::Namespace, what())?;
                false
            }
            Self::Link(_) => return fail(Layer::Plan, what()),
        };
        Ok(What::Shared { share, number, is_directory })
    }
}

fn make(path: &Path, is_directory: bool) -> std::io::Result<()> {
    if is_directory { fs::create_dir(path) } else { File::create_new(path).map(drop) }
}

/// The kernel, the initial file system and the logs.
fn make_machine(start: &Start, parts: Parts, places: &[Place], kernel: &File) -> Result<(), LaunchError> {
    let what = "cannot make the machine's files";
    fs::create_dir_all(at("/machine/log")).layer(Layer::Namespace, what)?;
    let readable = Attributes { read_only: true, no_exec: true, no_dev: true, private: true };
    mount_copy(kernel, &at(KERNEL), false, readable)?;
    let Start { plan, user, .. } = start;
    let manifest =
        Manifest { version: MANIFEST_VERSION, uid: user.uid, gid: user.gid, places: places.to_vec() };
    let manifest = manifest.to_json().layer(Layer::Plan, what)?;
    // The launcher inside is what holds the agent in there: to it the plan is its own.
    let mut plan = plan.clone();
    plan.isolation = Isolation::Native;
    // The host's file system keeps this one.
    plan.disk = None;
    let plan = plan.to_json().layer(Layer::Plan, what)?;
    let mut archive = parts.archive;
    archive.file(MANIFEST, 0o600, &manifest).layer(Layer::Isolation, what)?;
    archive.file(PLAN, 0o600, &plan).layer(Layer::Isolation, what)?;
    let archive = archive.finish().layer(Layer::Isolation, what)?;
    fs::write(at(INITRD), archive).layer(Layer::Namespace, what)?;
    let logs = new_tmpfs(LOG_BYTES, 8, "0755", Content::Data).layer(Layer::Namespace, what)?;
    attach_over(&logs, &at("/machine/log")).layer(Layer::Namespace, what)?;
    for log in [CONSOLE, QEMU_LOG] {
        File::create_new(at(log)).layer(Layer::Namespace, what)?;
    }
    Ok(())
}

fn mount_copy(
    from: impl std::os::fd::AsFd,
    to: &Path,
    is_directory: bool,
    attributes: Attributes,
) -> Result<(), LaunchError> {
    let what = to.display();
    let mount = copy(from).layer(Layer::Namespace, what)?;
    set_attributes(&mount, attributes, Reach::Tree).layer(Layer::Namespace, to.display())?;
    make(to, is_directory).layer(Layer::Namespace, to.display())?;
    attach_over(&mount, to).layer(Layer::Namespace, to.display())
}

/// Detached mounts of the host's devices: none that reaches anything, and `/dev/kvm` where it is used.
fn devices(
    accelerator: aos_isolation::vm::machine::Accelerator,
) -> Result<Vec<(&'static str, OwnedFd)>, LaunchError> {
    use aos_isolation::vm::machine::Accelerator;
    let kvm = (accelerator == Accelerator::Kvm).then(|| KVM.trim_start_matches("/dev/"));
    let mut mounts = Vec::new();
    for name in DEVICES.into_iter().chain(kvm) {
        let path = Path::new("/dev").join(name);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = open(&path, flags, Mode::empty()).layer(Layer::Namespace, path.display())?;
        let mode = fstat(&file).layer(Layer::Namespace, path.display())?.st_mode;
        if FileType::from_raw_mode(mode) != FileType::CharacterDevice {
            return fail(Layer::Namespace, format!("{} is no device", path.display()));
        }
        let mount = copy(&file).layer(Layer::Namespace, path.display())?;
        let attributes = Attributes { no_exec: true, private: true, ..Attributes::default() };
        set_attributes(&mount, attributes, Reach::One).layer(Layer::Namespace, path.display())?;
        mounts.push((name, mount));
    }
    Ok(mounts)
}

/// The processes of this pid namespace: QEMU reaches open files by it.
fn mount_new_proc() -> Result<(), LaunchError> {
    let made = || {
        let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "subset", "pid")?;
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, inert())
    };
    let proc = made().layer(Layer::Namespace, "cannot mount a process file system")?;
    fs::create_dir(at("/proc")).layer(Layer::Namespace, "/proc")?;
    rustix::mount::move_mount(
        &proc,
        "",
        CWD,
        at("/proc"),
        rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .layer(Layer::Namespace, "/proc")
}
