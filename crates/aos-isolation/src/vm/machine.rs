//! The machine: how large it is, and QEMU's command line for it. Pure.
//!
//! Every word is written here, or a number, or a path that the driver made: nothing that a plan, a package or an
//! agent says is in it, so there is nothing to quote. The machine has a serial line for the kernel's last words, one
//! port to the driver, and the three shares; no disk, network, display, sound, USB or monitor.

use aos_sandbox::plan::UnitLimits;
use thiserror::Error;

use super::manifest::{GUEST, INIT, Share};

/// Paths in QEMU's own root directory, which the driver prepares.
pub const KERNEL: &str = "/machine/kernel";
/// See [`KERNEL`].
pub const INITRD: &str = "/machine/initrd";
/// See [`KERNEL`].
pub const CONSOLE: &str = "/machine/log/console";
/// Below it is a directory for each share.
pub const SHARES: &str = "/share";
/// The descriptor that is QEMU's end of the channel.
pub const CHANNEL_FD: i32 = 3;
/// The port's name in the guest's `/sys/class/virtio-ports/*/name`.
pub const PORT: &str = "aos";

/// What the agent has where its package says nothing: an agent in Python fits many times.
const MEMORY_DEFAULT: u64 = 1 << 30;
/// QEMU itself, its translated code without KVM, and the initial file system.
const OVERHEAD: u64 = 160 << 20;
/// Debian's kernel takes about 90 MiB of this, and refuses to boot in less.
const MEMORY_MIN: u64 = 160 << 20;
const MIB: u64 = 1 << 20;
/// Bytes of translated code, in MiB.
const TRANSLATED_MIB: u32 = 64;
/// Processors with KVM; without it one is emulated, which is what a machine under emulation boots fastest with.
const PROCESSORS_MAX: usize = 4;

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor, by `/dev/kvm`.
    Kvm,
    /// QEMU, which translates them.
    Emulation,
}

impl Accelerator {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::Emulation => "emulated, slow",
        }
    }
}

/// A limit that leaves no room for a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "limits.memory: {} MiB is too little for a virtual machine, which takes {} MiB; the rest has to be {} MiB at least",
    .0 / MIB, OVERHEAD / MIB, MEMORY_MIN / MIB
)]
pub struct TooSmall(u64);

/// The machine's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// What executes its instructions.
    pub accelerator: Accelerator,
    /// Its memory, in MiB.
    pub memory_mib: u64,
    /// Its processors.
    pub processors: usize,
}

impl Machine {
    /// A machine that stays within the unit's limits, QEMU included.
    pub fn new(limits: &UnitLimits, accelerator: Accelerator, processors: usize) -> Result<Self, TooSmall> {
        let memory = match limits.memory_max_bytes {
            None => MEMORY_DEFAULT,
            Some(limit) => {
                limit.checked_sub(OVERHEAD).filter(|left| *left >= MEMORY_MIN).ok_or(TooSmall(limit))?
            }
        };
        let processors = match accelerator {
            Accelerator::Kvm => processors.clamp(1, PROCESSORS_MAX),
            Accelerator::Emulation => 1,
        };
        Ok(Self { accelerator, memory_mib: memory / MIB, processors })
    }

    /// QEMU's arguments.
    pub fn arguments(&self) -> Vec<String> {
        let mut words: Vec<String> = [
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-machine",
            "q35,usb=off,sata=off,smbus=off,vmport=off,graphics=off,dump-guest-core=off",
            // No new process, no other user, no call that other architectures left behind.
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
            "-kernel",
            KERNEL,
            "-initrd",
            INITRD,
        ]
        .map(str::to_owned)
        .into();
        let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);
        match self.accelerator {
            Accelerator::Kvm => {
                add("-accel", "kvm".to_owned());
                add("-cpu", "host".to_owned());
            }
            Accelerator::Emulation => {
                add("-accel", format!("tcg,tb-size={TRANSLATED_MIB}"));
                // QEMU 7.2 faults twice at cmpxchg16b.
                add("-cpu", "max,cx16=off".to_owned());
            }
        }
        add("-m", format!("{}M", self.memory_mib));
        add("-smp", self.processors.to_string());
        add("-append", format!("console=ttyS0 quiet panic=-1 rdinit=/{INIT} -- {GUEST}"));
        add("-chardev", format!("file,id=console,path={CONSOLE}"));
        add("-serial", "chardev:console".to_owned());
        add("-chardev", format!("socket,id=channel,fd={CHANNEL_FD}"));
        add("-device", "virtio-serial-pci".to_owned());
        add("-device", format!("virtserialport,chardev=channel,name={PORT}"));
        for share in Share::ALL {
            let name = share.name();
            let read_only = if share.is_read_only() { ",readonly=on" } else { "" };
            add(
                "-fsdev",
                format!(
                    "local,id={name},path={SHARES}/{name},security_model=none,multidevs=remap{read_only}"
                ),
            );
            add("-device", format!("virtio-9p-pci,fsdev={name},mount_tag={name}"));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(memory_mib: Option<u64>) -> UnitLimits {
        UnitLimits { memory_max_bytes: memory_mib.map(|size| size * MIB), ..UnitLimits::default() }
    }

    #[test]
    fn a_machine_and_what_emulates_it_fit_into_the_limit() {
        let machine = Machine::new(&limits(Some(512)), Accelerator::Kvm, 64).unwrap();
        assert_eq!((machine.memory_mib, machine.processors), (352, 4));
        let machine = Machine::new(&limits(None), Accelerator::Emulation, 64).unwrap();
        assert_eq!((machine.memory_mib, machine.processors), (1024, 1));
        for small in [0, 100, 319] {
            let error = Machine::new(&limits(Some(small)), Accelerator::Kvm, 1).unwrap_err();
            assert!(error.to_string().starts_with(&format!("limits.memory: {small} MiB is too little")));
        }
        Machine::new(&limits(Some(320)), Accelerator::Kvm, 1).unwrap();
    }

    #[test]
    fn the_command_line() {
        let machine = Machine::new(&limits(None), Accelerator::Emulation, 1).unwrap();
        insta::assert_snapshot!(machine.arguments().join("\n"));
    }
}
