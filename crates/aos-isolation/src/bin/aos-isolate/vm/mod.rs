//! `vm`: one agent in a virtual machine of its own.
//!
//! | process | is | does |
//! |---|---|---|
//! | driver | the caller's child | [`relay`]: moves the agent's streams, signals and status over one socket |
//! | stage | pid 1 of namespaces of its own | [`stage`]: prepares QEMU's root directory, starts QEMU, reaps |
//! | QEMU | its child | is the machine |
//! | guest | pid 1 of the machine | [`guest`]: mounts the shares where the host has them, starts `aos-launch` |
//!
//! In the machine `aos-launch` applies the very plan, so an agent is held in twice: by all of its layers there,
//! and, should the guest's kernel become the agent's, by QEMU and what is around QEMU: the agent's own user, no
//! capability, a root directory with `/usr` and the plan's sources and nothing else, no network, no other
//! process, and system call filters.

mod guest;
mod relay;
mod stage;
mod view;

use std::fs::File;
use std::num::NonZero;
use std::os::fd::OwnedFd;

use aos_isolation::vm::initrd::Archive;
use aos_isolation::vm::kernel::{self, Kernel};
use aos_isolation::vm::machine::{Accelerator, Machine};
use aos_isolation::vm::manifest::{INIT, LAUNCHER};
use aos_sandbox::launch::notify::Notifier;
use aos_sys::process::{self, Fork};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::Start;
use crate::error::{Context, LaunchError, Layer, fail, print_line};

pub(crate) use guest::{is_guest, run as run_guest};

/// The device of the processor's own virtualisation.
const KVM: &str = "/dev/kvm";

/// What of the host a machine is made from.
pub(crate) struct Parts {
    machine: Machine,
    kernel: Kernel,
    /// The initial file system, but for what the plan's sources add.
    archive: Archive,
}

/// Runs the agent in a machine.
pub(crate) fn run(
    start: &Start,
    report: Option<File>,
    notifier: Option<&Notifier>,
) -> Result<u8, LaunchError> {
    let parts = parts(start)?;
    let flags = SocketFlags::CLOEXEC;
    let (own, machines) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .layer(Layer::Process, "cannot make a socket")?;
    match process::fork().layer(Layer::Process, "cannot fork the stage")? {
        Fork::Child => {
            drop((own, report));
            Ok(stage::run(start, parts, machines).unwrap_or_else(|failure| {
                print_line(&failure.to_string());
                failure.layer().exit_status()
            }))
        }
        Fork::Parent(stage) => {
            drop(machines);
            let what = relay::What { start, machine: parts.machine, kernel: parts.kernel.release };
            relay::run(&what, stage, own, report, notifier)
        }
    }
}

/// Looks at everything that can be missing before anything is made.
fn parts(start: &Start) -> Result<Parts, LaunchError> {
    let kernel = kernel::find(&start.programs.kernels()).layer(Layer::Isolation, "vm")?;
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let machine = Machine::new(&start.plan.unit, accelerator(), processors).layer(Layer::Isolation, "vm")?;
    if !start.program.starts_with("/usr") {
        return fail(Layer::Isolation, format!("vm: {} is not below /usr", start.program.display()));
    }
    Ok(Parts { machine, archive: archive(start, &kernel)?, kernel })
}

/// KVM where the processor has it. A device without that is another hypervisor's software, which does not run
/// every kernel.
fn accelerator() -> Accelerator {
    let can_use = File::options().read(true).write(true).open(KVM).is_ok();
    if can_use && has_virtualisation() { Accelerator::Kvm } else { Accelerator::Emulation }
}

/// Intel's VMX or AMD's SVM: the processor's own virtualisation.
fn has_virtualisation() -> bool {
    use std::arch::x86_64::__cpuid;
    let has_vmx = __cpuid(1).ecx >> 5 & 1 == 1;
    let has_svm = __cpuid(0x8000_0000).eax > 0x8000_0000 && __cpuid(0x8000_0001).ecx >> 2 & 1 == 1;
    has_vmx || has_svm
}

/// The programs and the kernel's modules.
fn archive(start: &Start, kernel: &Kernel) -> Result<Archive, LaunchError> {
    use aos_isolation::vm::manifest::MODULES;
    let mut archive = Archive::default();
    let what = "cannot make the initial file system";
    for directory in ["dev", "root", MODULES] {
        archive.directory(directory).layer(Layer::Isolation, what)?;
    }
    // Before devtmpfs is mounted: the first process's own streams.
    archive.device("dev/console", (5, 1)).layer(Layer::Isolation, what)?;
    archive.device("dev/null", (1, 3)).layer(Layer::Isolation, what)?;
    for (name, path) in &start.inside {
        let needed = crate::parts::needed(path).layer(Layer::Isolation, path.display())?;
        if let Some(loader) = needed.first() {
            let why = format!(
                "{} needs {loader}, which no machine has: it has to be linked statically",
                path.display()
            );
            return fail(Layer::Isolation, why);
        }
        let content = std::fs::read(path).layer(Layer::Isolation, path.display())?;
        archive.file(name, 0o755, &content).layer(Layer::Isolation, what)?;
    }
    for (number, path) in kernel.modules.iter().enumerate() {
        let content = kernel::read_module(path).layer(Layer::Isolation, path.display())?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{MODULES}/{number:02}-{name}");
        archive.file(&name, 0o644, &content).layer(Layer::Isolation, what)?;
    }
    Ok(archive)
}

/// The programs inside, by name.
pub(crate) const INSIDE: [&str; 2] = [LAUNCHER, INIT];

/// A driver that ended before the stage was tied to it has closed its end of the socket.
fn has_listener(socket: &OwnedFd) -> Result<(), LaunchError> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut ends = [PollFd::new(socket, PollFlags::empty())];
    poll(&mut ends, Some(&Timespec::default())).layer(Layer::Process, "cannot look at the driver")?;
    let is_over = ends.iter().any(|end| end.revents().intersects(PollFlags::HUP | PollFlags::ERR));
    if is_over { fail(Layer::Process, "the driver has ended") } else { Ok(()) }
}
