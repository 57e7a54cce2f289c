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
use aos_sandbox::launch::aliases;
use aos_sandbox::launch::devices::{DEVICE_DIRECTORIES, DEVICE_LINKS, DEVICES, Device};
use aos_sandbox::launch::mounts::{Content, bound, copy, new_tmpfs, union};
use aos_sandbox::launch::sources::{self, Source};
use aos_sandbox::plan::{BindAccess, Identity, Node, SandboxPlan};
use aos_sys::mount::{Attributes, Reach, set_attributes};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, major, minor, open, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen, move_mount,
};

use crate::error::{Context, LaunchError, Layer, fail};

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
    ) -> Result<(), LaunchError> {
        let host = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .layer(Layer::Namespace, "/")?;
        aos_sys::mount::make_private(&host, Reach::Tree)
            .layer(Layer::Namespace, "cannot keep mounts from spreading")?;
        let sources = sources::open_all(&plan.tree)?;
        aliases::refuse(&plan.tree, &sources)?;
        let programs = open_programs(programs)?;
        let facts: Vec<Fact> = sources.iter().map(fact).collect();
        let mut layout = Layout::new(plan, &facts, identity).layer(Layer::Plan, "the plan's places")?;
        self.mount_area(runtime)?;
        self.copy_programs(programs)?;
        self.make_places(&layout).layer(Layer::Namespace, "cannot make the root's places")?;
        for mount in &layout.mounts {
            self.mount(plan, mount, &sources, runtime)?;
        }
        view_of_the_kernel()?;
        match runtime {
            Runtime::Sandbox => crate::parts::narrow(&mut layout, plan, &self.sources, &self.root)?,
            Runtime::Container => {
                let table =
                    fs::read("/proc/self/mountinfo").layer(Layer::Namespace, "/proc/self/mountinfo")?;
                below(&mut layout, &self.sources, &String::from_utf8_lossy(&table))?;
            }
        }
        let directories = Directories { root: &self.root, sources: &self.sources, programs: &self.programs };
        let config = config(plan, &layout, identity, &directories, runtime);
        let bytes = config.to_json().layer(Layer::Isolation, "cannot write the configuration")?;
        fs::write(self.bundle.join("config.json"), bytes)
            .layer(Layer::Isolation, "cannot write the configuration")
    }

    fn mount_area(&self, runtime: Runtime) -> Result<(), LaunchError> {
        let what = "cannot make the staging area";
        let area = new_tmpfs(AREA_BYTES, INODES, "0755", Content::Data).layer(Layer::Namespace, what)?;
        attach_over(&area, Path::new(AREA)).layer(Layer::Namespace, what)?;
        for directory in [&self.root, &self.sources, &self.programs, &self.state, &self.bundle] {
            fs::create_dir(directory).layer(Layer::Namespace, what)?;
        }
        fs::create_dir(self.state.join("empty")).layer(Layer::Namespace, what)?;
        // runsc makes its root read-only without keeping `noexec`, which the kernel refuses. The root holds no
        // program.
        let programs = if runtime == Runtime::Sandbox { Content::Anything } else { Content::Data };
        let root = new_tmpfs(ROOT_BYTES, INODES, "0755", programs).layer(Layer::Namespace, what)?;
        attach_over(&root, &self.root).layer(Layer::Namespace, what)?;
        let programs =
            new_tmpfs(PROGRAMS_BYTES, 16, "0755", Content::Anything).layer(Layer::Namespace, what)?;
        attach_over(&programs, &self.programs).layer(Layer::Namespace, what)?;
        fs::create_dir(self.root.join(aos_isolation::oci::PROGRAMS.trim_start_matches('/')))
            .layer(Layer::Namespace, what)
    }

    fn copy_programs(&self, programs: Vec<(String, File)>) -> Result<(), LaunchError> {
        for (name, mut from) in programs {
            let path = self.programs.join(&name);
            let copied = File::create_new(&path).and_then(|mut to| {
                io::copy(&mut from, &mut to)?;
                to.set_permissions(fs::Permissions::from_mode(0o555))
            });
            copied.layer(Layer::Isolation, format!("cannot copy {name}"))?;
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
    ) -> Result<(), LaunchError> {
        let (Some(entry), Some(source)) = (plan.tree.get(mount.index), all.get(mount.index)) else {
            return fail(Layer::Plan, "a mount of no place");
        };
        let what = || format!("{}: cannot mount {}", entry.cause, entry.path);
        let detached = match (mount.what, &entry.node) {
            (MountKind::Host(_), Node::Overlay { on_own, .. }) => {
                let own = self.own(mount, *on_own, runtime).layer(Layer::Namespace, what())?;
                let lower = if let Source::Union(lower) = source { lower.as_slice() } else { &[] };
                union(own.iter().chain(lower)).layer(Layer::Namespace, what())?
            }
            (MountKind::Host(_), Node::Bind(bind)) => match source {
                Source::Mounted { file, .. } => bound(entry, bind, file)?,
                _ => return fail(Layer::Plan, what()),
            },
            (MountKind::Devices, _) if runtime == Runtime::Container => devices()?,
            (MountKind::Tmpfs { size_bytes, inodes }, _) if mount.inside.is_some() => {
                new_tmpfs(size_bytes, inodes, "1777", Content::Data).layer(Layer::Namespace, what())?
            }
            _ => return Ok(()),
        };
        self.attach(plan, mount, source, &detached, runtime).layer(Layer::Namespace, what())
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
        source: &Source,
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
        let is_file = matches!(source, Source::Mounted { is_directory: false, .. });
        let made = if is_file { File::create_new(&own).map(drop) } else { fs::create_dir(&own) };
        made.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        attach_over(detached, &own)
    }
}

/// What a root's places depend on.
fn fact(source: &Source) -> Fact {
    match source {
        Source::Inside => Fact::Inside,
        Source::Absent => Fact::Absent,
        Source::Mounted { is_directory: false, .. } => Fact::File,
        Source::Mounted { is_directory: true, .. } | Source::Union(_) | Source::Layers(_) => Fact::Directory,
        Source::Link(to) => Fact::Link(to.clone()),
        Source::Copied(content) => Fact::Content(content.clone()),
    }
}

/// Adds the mounts that lie below what was prepared: of the host below a grant, grants in grants, devices.
/// Each comes right after the mount that it lies in.
fn below(layout: &mut Layout, sources: &Path, mountinfo: &str) -> Result<(), LaunchError> {
    for line in mountinfo.lines() {
        // proc_pid_mountinfo(5): the fifth field is the mount point, the sixth its options.
        let mut fields = line.split(' ').skip(4);
        let (Some(point), Some(options)) = (fields.next(), fields.next()) else { continue };
        let point = aliases::unescape(point);
        let Some((index, part)) = number_and_part(sources, &point) else { continue };
        let (Some(part), Some(above)) =
            (part.to_str(), layout.mounts.iter().rposition(|mount| mount.index == index))
        else {
            return fail(Layer::Namespace, format!("{} cannot be named to a runtime", point.display()));
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

fn open_programs(programs: &[(&str, PathBuf)]) -> Result<Vec<(String, File)>, LaunchError> {
    let open = |(name, path): &(&str, PathBuf)| {
        let file = File::open(path).layer(Layer::Isolation, path.display())?;
        Ok(((*name).to_owned(), file))
    };
    programs.iter().map(open).collect()
}

/// What runtimes look at before they start something: processes, and control groups of the one hierarchy.
/// Where the kernel refuses it (a unit that shows only processes), they see what this process sees, and say
/// themselves what they lack.
fn view_of_the_kernel() -> Result<(), LaunchError> {
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
    let proc = proc.layer(Layer::Namespace, "cannot mount a process file system")?;
    attach_over(&proc, Path::new("/proc")).layer(Layer::Namespace, "/proc")?;
    match new("cgroup2", &[]) {
        Ok(groups) => {
            attach_over(&groups, Path::new("/sys/fs/cgroup")).layer(Layer::Namespace, "/sys/fs/cgroup")
        }
        Err(_) => Ok(()),
    }
}

/// A detached `/dev` with the devices that have no effect outside.
fn devices() -> Result<OwnedFd, LaunchError> {
    let what = "cannot make /dev";
    let mount = new_tmpfs(1 << 20, 64, "0755", Content::Data).layer(Layer::Namespace, what)?;
    let scaffold = Path::new(AREA).join("devices");
    fs::create_dir(&scaffold).layer(Layer::Namespace, what)?;
    attach_over(&mount, &scaffold).layer(Layer::Namespace, what)?;
    for directory in DEVICE_DIRECTORIES {
        fs::create_dir(scaffold.join(directory)).layer(Layer::Namespace, what)?;
    }
    for (name, to) in DEVICE_LINKS {
        symlink(to, scaffold.join(name)).layer(Layer::Namespace, what)?;
    }
    for one in DEVICES {
        File::create_new(scaffold.join(one.name)).layer(Layer::Namespace, what)?;
        attach_over(&device(one)?, &scaffold.join(one.name)).layer(Layer::Namespace, one.name)?;
    }
    copy(&mount).layer(Layer::Namespace, what)
}

/// A detached mount of one device of the host, if it is that device.
fn device(device: Device) -> Result<OwnedFd, LaunchError> {
    let path = Path::new("/dev").join(device.name);
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat2(CWD, &path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        .layer(Layer::Namespace, path.display())?;
    let stat = rustix::fs::fstat(&file).layer(Layer::Namespace, path.display())?;
    let is_character = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if !is_character || (major(stat.st_rdev), minor(stat.st_rdev)) != device.number {
        return fail(Layer::Namespace, format!("{} is another device", path.display()));
    }
    let mount = copy(&file).layer(Layer::Namespace, path.display())?;
    let attributes = Attributes { no_exec: true, private: true, ..Attributes::default() };
    set_attributes(&mount, attributes, Reach::One).layer(Layer::Namespace, path.display())?;
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

pub(crate) fn attach_over(mount: &OwnedFd, path: &Path) -> Result<(), Errno> {
    move_mount(mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Whether a mount of the host may be executed from.
pub(crate) const fn is_executable(kind: MountKind) -> bool {
    matches!(kind, MountKind::Host(BindAccess::ReadExecute))
}
