//! What a runtime is given: the root file system, the sources, the programs and `config.json`, in file
//! systems in memory of this mount namespace. All of it ends with the last process here, even one that is
//! killed.
//!
//! Sources are opened without following links and mounted by descriptor, so nobody who writes to a granted
//! directory can redirect a mount; the runtime is told of this staging area only.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::{fs, io};

use aos_isolation::layout::{Fact, Layout, Mount, MountKind, What};
use aos_isolation::oci::{Directories, Runtime, config};
use aos_sandbox::plan::{BindAccess, Identity, Node, SandboxPlan};
use aos_sys::mount::{Attributes, Reach, set_attributes};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, major, minor, open, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen, move_mount,
};

use crate::aliases;
use crate::error::{Context, Failure, Stage, fail};
use crate::sources::{self, Source, bound, copy, union};

/// The directory of the host that the staging area covers, in this mount namespace only. Nothing of it can
/// be a source: no plan grants anything below it.
pub(crate) const AREA: &str = "/run";
/// The configuration, the runtime's state, its log, and links: small files.
const AREA_BYTES: u64 = 16 << 20;
/// Directories, links and files of the root; as in `aos-launch`.
const ROOT_BYTES: u64 = 4 << 20;
const INODES: u64 = 65_536;
/// Copies of two programs, with debugging information where they are built without optimisation.
const PROGRAMS_BYTES: u64 = 128 << 20;

/// The devices of an agent with their numbers: the kernel's admin-guide/devices.txt.
const DEVICES: [(&str, (u32, u32)); 6] = [
    ("null", (1, 3)),
    ("zero", (1, 5)),
    ("full", (1, 7)),
    ("random", (1, 8)),
    ("urandom", (1, 9)),
    ("tty", (5, 0)),
];
/// The links of `/dev` that programs expect.
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// The directories of the area.
#[derive(Clone, Debug)]
pub(crate) struct Area {
    root: PathBuf,
    sources: PathBuf,
    /// Copies of the programs that the runtime executes, until they run.
    pub(crate) programs: PathBuf,
    /// The runtime's own state.
    pub(crate) state: PathBuf,
    /// With `config.json`.
    pub(crate) bundle: PathBuf,
    /// What the runtime says.
    pub(crate) log: PathBuf,
}

impl Area {
    /// Where everything is.
    pub(crate) fn new() -> Self {
        let at = |name: &str| Path::new(AREA).join(name);
        Self {
            root: at("root"),
            sources: at("sources"),
            programs: at("programs"),
            state: at("state"),
            bundle: at("bundle"),
            log: at("aos-isolate.log"),
        }
    }

    /// Removes the names of the programs, which run by now: the agent finds nothing there.
    pub(crate) fn forget_programs(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.programs)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }

    /// Prepares everything for a runtime. `programs` are copied under the given names.
    pub(crate) fn prepare(
        &self,
        plan: &SandboxPlan,
        identity: &Identity,
        runtime: Runtime,
        programs: &[(&str, PathBuf)],
    ) -> Result<(), Failure> {
        let host = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .stage(Stage::Namespace, "/")?;
        aos_sys::mount::make_private(&host, Reach::Tree)
            .stage(Stage::Namespace, "cannot keep mounts from spreading")?;
        let sources = sources::open_all(&plan.tree)?;
        aliases::refuse(&plan.tree, &sources)?;
        let programs = open_programs(programs)?;
        let facts: Vec<Fact> = sources.iter().map(|source| source.fact.clone()).collect();
        let mut layout = Layout::new(plan, &facts, identity).stage(Stage::Plan, "the plan's places")?;
        self.mount_area(runtime)?;
        self.copy_programs(programs)?;
        self.make_places(&layout).stage(Stage::Namespace, "cannot make the root's places")?;
        for mount in &layout.mounts {
            self.mount(plan, mount, &sources, runtime)?;
        }
        view_of_the_kernel()?;
        match runtime {
            Runtime::Sandbox => crate::parts::narrow(&mut layout, plan, &self.sources, &self.root)?,
            Runtime::Container => {
                let table =
                    fs::read("/proc/self/mountinfo").stage(Stage::Namespace, "/proc/self/mountinfo")?;
                below(&mut layout, &self.sources, &String::from_utf8_lossy(&table))?;
            }
        }
        let directories = Directories { root: &self.root, sources: &self.sources, programs: &self.programs };
        let config = config(plan, &layout, identity, &directories, runtime);
        let bytes = config.to_json().stage(Stage::Isolation, "cannot write the configuration")?;
        fs::write(self.bundle.join("config.json"), bytes)
            .stage(Stage::Isolation, "cannot write the configuration")
    }

    fn mount_area(&self, runtime: Runtime) -> Result<(), Failure> {
        let what = "cannot make the staging area";
        let area = new_tmpfs(AREA_BYTES, INODES, "0755", Programs::Inert).stage(Stage::Namespace, what)?;
        attach_over(&area, Path::new(AREA)).stage(Stage::Namespace, what)?;
        for directory in [&self.root, &self.sources, &self.programs, &self.state, &self.bundle] {
            fs::create_dir(directory).stage(Stage::Namespace, what)?;
        }
        fs::create_dir(self.state.join("empty")).stage(Stage::Namespace, what)?;
        // runsc makes its root read-only without keeping `noexec`, which the kernel refuses. The root holds no
        // program.
        let programs = if runtime == Runtime::Sandbox { Programs::Executed } else { Programs::Inert };
        let root = new_tmpfs(ROOT_BYTES, INODES, "0755", programs).stage(Stage::Namespace, what)?;
        attach_over(&root, &self.root).stage(Stage::Namespace, what)?;
        let programs =
            new_tmpfs(PROGRAMS_BYTES, 16, "0755", Programs::Executed).stage(Stage::Namespace, what)?;
        attach_over(&programs, &self.programs).stage(Stage::Namespace, what)?;
        fs::create_dir(self.root.join(aos_isolation::oci::PROGRAMS.trim_start_matches('/')))
            .stage(Stage::Namespace, what)
    }

    fn copy_programs(&self, programs: Vec<(String, File)>) -> Result<(), Failure> {
        for (name, mut from) in programs {
            let path = self.programs.join(&name);
            let copied = File::create_new(&path).and_then(|mut to| {
                io::copy(&mut from, &mut to)?;
                to.set_permissions(fs::Permissions::from_mode(0o555))
            });
            copied.stage(Stage::Isolation, format!("cannot copy {name}"))?;
        }
        Ok(())
    }

    fn make_places(&self, layout: &Layout) -> io::Result<()> {
        for place in &layout.places {
            make_place(&self.root, &place.path, &place.what)?;
        }
        Ok(())
    }

    /// Prepares one mount under its number, and puts one that lies in another into that.
    fn mount(
        &self,
        plan: &SandboxPlan,
        mount: &Mount,
        all: &[Source],
        runtime: Runtime,
    ) -> Result<(), Failure> {
        let (Some(entry), Some(source)) = (plan.tree.get(mount.index), all.get(mount.index)) else {
            return fail(Stage::Plan, "a mount of no place");
        };
        let what = || format!("{}: cannot mount {}", entry.cause, entry.path);
        let detached = match (mount.what, &entry.node) {
            (MountKind::Host(_), Node::Overlay { on_own, .. }) => {
                let own = self.own(mount, *on_own, runtime).stage(Stage::Namespace, what())?;
                union(own.iter().chain(&source.files)).stage(Stage::Namespace, what())?
            }
            (MountKind::Host(access), _) => match source.files.first() {
                Some(file) => bound(entry, access, file)?,
                None => return fail(Stage::Plan, what()),
            },
            (MountKind::Devices, _) if runtime == Runtime::Container => devices()?,
            (MountKind::Tmpfs { size_bytes, inodes }, _) if mount.inside.is_some() => {
                new_tmpfs(size_bytes, inodes, "1777", Programs::Inert).stage(Stage::Namespace, what())?
            }
            _ => return Ok(()),
        };
        self.attach(plan, mount, &source.fact, &detached, runtime).stage(Stage::Namespace, what())
    }

    /// The topmost directory of a union: the root's own, where it is one of the union's. gVisor is told of
    /// each mount, so there the root's own directory changes later and an empty one takes its place: the
    /// kernel makes no union of one directory.
    fn own(&self, mount: &Mount, on_own: bool, runtime: Runtime) -> Result<Option<OwnedFd>, Errno> {
        match (on_own, runtime) {
            (false, _) => Ok(None),
            (true, Runtime::Container) => place(&self.root, &mount.path).map(Some),
            (true, Runtime::Sandbox) => place(&self.state, "empty").map(Some),
        }
    }

    fn attach(
        &self,
        plan: &SandboxPlan,
        mount: &Mount,
        fact: &Fact,
        detached: &OwnedFd,
        runtime: Runtime,
    ) -> Result<(), Errno> {
        if let Some((outer, above)) = mount.inside.and_then(|outer| Some((outer, plan.tree.get(outer)?))) {
            let above = above.path.as_str().trim_start_matches('/');
            let path = mount.path.strip_prefix(above).unwrap_or_default().trim_start_matches('/');
            let at = place(&self.sources.join(outer.to_string()), path);
            match (runtime, at) {
                (Runtime::Container, at) => return attach_at(detached, &at?),
                // Of a union, the root's own directory has the place.
                (Runtime::Sandbox, Err(Errno::NOENT)) => {}
                (Runtime::Sandbox, at) => attach_at(&copy(detached)?, &at?)?,
            }
        }
        let own = self.sources.join(mount.index.to_string());
        let made = if *fact == Fact::File { File::create_new(&own).map(drop) } else { fs::create_dir(&own) };
        made.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        attach_over(detached, &own)
    }
}

/// Adds the mounts that lie below what was prepared: of the host below a grant, grants in grants, devices.
/// Each comes right after the mount that it lies in.
fn below(layout: &mut Layout, sources: &Path, mountinfo: &str) -> Result<(), Failure> {
    for line in mountinfo.lines() {
        // proc_pid_mountinfo(5): the fifth field is the mount point, the sixth its options.
        let mut fields = line.split(' ').skip(4);
        let (Some(point), Some(options)) = (fields.next(), fields.next()) else { continue };
        let point = aliases::unescape(point);
        let Some((index, part)) = number_and_part(sources, &point) else { continue };
        let (Some(part), Some(above)) =
            (part.to_str(), layout.mounts.iter().rposition(|mount| mount.index == index))
        else {
            return fail(Stage::Namespace, format!("{} cannot be named to a runtime", point.display()));
        };
        let has = |option: &str| options.split(',').any(|one| one == option);
        let what = MountKind::Below { read_only: has("ro"), no_dev: has("nodev"), no_exec: has("noexec") };
        let inside = layout.mounts.iter().find(|mount| mount.index == index).map(|mount| mount.path.clone());
        let path = format!("{}/{part}", inside.unwrap_or_default());
        layout
            .mounts
            .insert(above + 1, Mount { index, path, what, part: part.to_owned(), inside: Some(index) });
    }
    Ok(())
}

/// The number of the place, and the part of it, that a path below the sources means.
fn number_and_part(sources: &Path, path: &Path) -> Option<(usize, PathBuf)> {
    let rest = path.strip_prefix(sources).ok()?;
    let mut parts = rest.components();
    let index = parts.next()?.as_os_str().to_str()?.parse().ok()?;
    let part = parts.as_path();
    (!part.as_os_str().is_empty()).then(|| (index, part.to_owned()))
}

/// Makes a place of the root with its parents. One may be named twice, such as a parent that is a place of
/// its own.
pub(crate) fn make_place(root: &Path, path: &str, what: &What) -> io::Result<()> {
    let path = root.join(path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let made = match what {
        What::Directory => fs::create_dir(&path),
        What::File(content) => fs::write(&path, content),
        What::Link(to) => symlink(to, &path),
    };
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn open_programs(programs: &[(&str, PathBuf)]) -> Result<Vec<(String, File)>, Failure> {
    let open = |(name, path): &(&str, PathBuf)| {
        let file = File::open(path).stage(Stage::Isolation, path.display())?;
        Ok(((*name).to_owned(), file))
    };
    programs.iter().map(open).collect()
}

/// What runtimes look at before they start something: processes, and control groups of the one hierarchy.
/// Where the kernel refuses it (a unit that shows only processes), they see what this process sees, and say
/// themselves what they lack.
fn view_of_the_kernel() -> Result<(), Failure> {
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let new = |kind: &str, options: &[(&str, &str)]| -> Result<OwnedFd, Errno> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (name, value) in options {
            fsconfig_set_string(context.as_fd(), *name, *value)?;
        }
        fsconfig_create(context.as_fd())?;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)
    };
    let proc = new("proc", &[]).or_else(|_| new("proc", &[("subset", "pid")]));
    let proc = proc.stage(Stage::Namespace, "cannot mount a process file system")?;
    attach_over(&proc, Path::new("/proc")).stage(Stage::Namespace, "/proc")?;
    match new("cgroup2", &[]) {
        Ok(groups) => {
            attach_over(&groups, Path::new("/sys/fs/cgroup")).stage(Stage::Namespace, "/sys/fs/cgroup")
        }
        Err(_) => Ok(()),
    }
}

/// Whether programs in a file system in memory are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Programs {
    Inert,
    Executed,
}

/// An empty file system in memory.
fn new_tmpfs(size_bytes: u64, inodes: u64, mode: &str, programs: Programs) -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "size", size_bytes.to_string())?;
    fsconfig_set_string(context.as_fd(), "nr_inodes", inodes.to_string())?;
    fsconfig_set_string(context.as_fd(), "mode", mode)?;
    fsconfig_create(context.as_fd())?;
    let mut flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if programs == Programs::Inert {
        flags |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
    }
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// A detached `/dev` with the devices that have no effect outside.
fn devices() -> Result<OwnedFd, Failure> {
    let what = "cannot make /dev";
    let mount = new_tmpfs(1 << 20, 64, "0755", Programs::Inert).stage(Stage::Namespace, what)?;
    let scaffold = Path::new(AREA).join("devices");
    fs::create_dir(&scaffold).stage(Stage::Namespace, what)?;
    attach_over(&mount, &scaffold).stage(Stage::Namespace, what)?;
    for directory in ["pts", "shm"] {
        fs::create_dir(scaffold.join(directory)).stage(Stage::Namespace, what)?;
    }
    for (name, to) in DEVICE_LINKS {
        symlink(to, scaffold.join(name)).stage(Stage::Namespace, what)?;
    }
    for (name, number) in DEVICES {
        File::create_new(scaffold.join(name)).stage(Stage::Namespace, what)?;
        attach_over(&device(name, number)?, &scaffold.join(name)).stage(Stage::Namespace, name)?;
    }
    copy(&mount).stage(Stage::Namespace, what)
}

/// A detached mount of one device of the host, if it is that device.
fn device(name: &str, number: (u32, u32)) -> Result<OwnedFd, Failure> {
    let path = Path::new("/dev").join(name);
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat2(CWD, &path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        .stage(Stage::Namespace, path.display())?;
    let stat = rustix::fs::fstat(&file).stage(Stage::Namespace, path.display())?;
    let is_character = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if !is_character || (major(stat.st_rdev), minor(stat.st_rdev)) != number {
        return fail(Stage::Namespace, format!("{} is another device", path.display()));
    }
    let mount = copy(&file).stage(Stage::Namespace, path.display())?;
    let attributes = Attributes { no_exec: true, private: true, ..Attributes::default() };
    set_attributes(&mount, attributes, Reach::One).stage(Stage::Namespace, path.display())?;
    Ok(mount)
}

/// A place in a tree, found without following a link or leaving the tree.
fn place(root: &Path, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = open(root, flags, Mode::empty())?;
    openat2(
        root,
        path,
        flags | OFlags::NOFOLLOW,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

fn attach_at(mount: &OwnedFd, place: &OwnedFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags)
}

fn attach_over(mount: &OwnedFd, path: &Path) -> Result<(), Errno> {
    move_mount(mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Whether a mount of the host may be executed from.
pub(crate) const fn is_executable(kind: MountKind) -> bool {
    matches!(kind, MountKind::Host(BindAccess::ReadExecute))
}
