"""One QEMU machine with UEFI: the built image as it is, its own throw-away disk, consoles, credentials, SSH.

Invariants: the image is never written (a qcow2 overlay is); QEMU dies with this process (`setpriv --pdeathsig`); every
wait has a deadline and an error with the console's tail; secrets reach QEMU through 0600 files, not its command line.

    with Machine(image, credentials={"ssh.authorized_keys.root": key}) as machine:
        machine.guest.wait_ssh(600)
        machine.guest.run("systemctl is-system-running --wait")
        machine.power_off(120)
"""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from .accel import Accel
from .console import Console
from .guest import Guest
from .qmp import Qmp, QmpError

_FIRMWARE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
_SECURE_FIRMWARE = Path("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")
_FIRMWARE_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")


class MachineError(Exception):
    """The machine did not start, died, or did not do something in time."""


@dataclass
class Machine:
    """A machine to be started once; `disk_bytes` is what the image may grow into.

    With `secure_boot` the firmware is in setup mode, so that a signed image enrols its own certificate. With `kernel` and
    `initrd` there is no UEFI: QEMU starts them, with `kernel_arguments` as the whole command line.
    """

    image: Path
    accel: Accel
    logs: Path
    name: str = "aos"
    credentials: dict[str, bytes] = field(default_factory=dict)
    ssh_key: Path | None = None
    memory_mib: int = 1024
    cpus: int = 2
    disk_bytes: int = 8 << 30
    screen: bool = False
    secure_boot: bool = False
    kernel_arguments: str = ""
    watchdog: bool = True
    kernel: Path | None = None
    initrd: Path | None = None

    def __post_init__(self) -> None:
        # Unix socket paths end at 108 bytes: a short folder of our own, whatever the checkout's path.
        _remove_orphans()
        self.folder = Path(tempfile.mkdtemp(prefix=f"aos-vm-{os.getpid()}-", dir="/tmp"))
        self.port = _free_port()
        self.guest = Guest(self.port, self.ssh_key or self.folder / "none", self.folder, self.check_alive)
        self._process: subprocess.Popen[bytes] | None = None
        self._console: Console | None = None
        self._qmp: Qmp | None = None

    # Life

    def __enter__(self) -> Machine:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.destroy()

    def start(self) -> None:
        """Make the overlay disk and start QEMU; returns when its consoles are connected."""
        self.logs.mkdir(parents=True, exist_ok=True)
        for log in (self.console_log, self.second_log, self.qemu_log):
            log.unlink(missing_ok=True)
        try:
            self._make_disk()
            with self.qemu_log.open("wb") as log:
                self._process = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", "--", *self._command()],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            self._console = Console(self._wait_socket("console"), self.console_log, f"the console of {self.name}")
            self._qmp = Qmp(self._wait_socket("qmp"))
            self._qmp.command("cont")
        except BaseException:
            self.destroy()
            raise

    def destroy(self) -> None:
        """End the machine at once and remove what it used; its logs stay."""
        self.guest.hang_up()
        for connection in (self._qmp, self._console):
            if connection:
                connection.close()
        self._qmp = self._console = None
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def check_alive(self) -> None:
        """Raise when QEMU has ended."""
        if self._process is None or self._process.poll() is not None:
            status = self._process.returncode if self._process else "never started"
            raise MachineError(self.describe(f"the machine {self.name} has ended (QEMU: {status})"))

    def describe(self, problem: str) -> str:
        """`problem` with the console's tail and the logs' places."""
        tail = self._console.tail() if self._console else ""
        said = self.qemu_log.read_text(errors="replace").strip() if self.qemu_log.exists() else ""
        return f"{problem}\n--- the end of {self.console_log}:\n{tail}\n--- QEMU said ({self.qemu_log}): {said}"

    # Conversation

    @property
    def console_log(self) -> Path:
        """What the first serial port printed."""
        return self.logs / f"{self.name}.console.log"

    @property
    def second_log(self) -> Path:
        """What was written to /dev/ttyS1 in the guest."""
        return self.logs / f"{self.name}.ttyS1.log"

    @property
    def qemu_log(self) -> Path:
        """QEMU's own messages."""
        return self.logs / f"{self.name}.qemu.log"

    @property
    def console(self) -> Console:
        """The first serial port."""
        if self._console is None:
            raise MachineError(f"the machine {self.name} is not running")
        return self._console

    @property
    def qmp(self) -> Qmp:
        """QEMU's control connection."""
        if self._qmp is None:
            raise MachineError(f"the machine {self.name} is not running")
        return self._qmp

    def reboot(self, timeout_s: float) -> None:
        """Reboot from inside and wait until SSH answers from the new boot."""
        before = self.guest.run("cat /proc/sys/kernel/random/boot_id").stdout
        self.guest.run("systemctl reboot", check=False)
        self.guest.hang_up()
        self.wait_new_boot(before, timeout_s)

    def wait_new_boot(self, boot_id: str, timeout_s: float) -> None:
        """Wait until SSH answers with another boot id than `boot_id`."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.guest.wait_ssh(max(deadline - time.monotonic(), 1))
            answer = self.guest.run("cat /proc/sys/kernel/random/boot_id", check=False, timeout_s=120)
            if answer.returncode == 0 and answer.stdout != boot_id:
                return
            self.guest.hang_up()
            time.sleep(1)
        raise MachineError(self.describe(f"the machine {self.name} did not come back within {timeout_s:.0f} s"))

    def power_off(self, timeout_s: float) -> None:
        """Press the power button and wait until the machine is off."""
        self.guest.hang_up()
        try:
            self.qmp.command("system_powerdown")
        except QmpError:
            pass  # off already; what follows tells
        self.wait_off(timeout_s)

    def wait_off(self, timeout_s: float) -> None:
        """Wait until the machine is off."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise MachineError(self.describe(f"the machine {self.name} is not off after {timeout_s:.0f} s")) from error

    def screenshot(self, target: Path) -> None:
        """Write what the screen shows as a PPM file; the machine needs `screen=True`."""
        self.qmp.command("screendump", filename=str(target))

    def grow_disk(self, size_bytes: int) -> None:
        """Make the running machine's disk larger, as a cloud's console does."""
        self.qmp.command("block_resize", **{"node-name": "disk0", "size": size_bytes})

    # Making

    def _make_disk(self) -> None:
        for arguments in (
            ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(self.image.resolve()), str(self.folder / "disk.qcow2")],
            ["resize", "-q", str(self.folder / "disk.qcow2"), str(self.disk_bytes)],
        ):
            done = subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise MachineError(f"qemu-img could not make the disk of {self.name}: {done.stderr.strip()}")
        if self.kernel is None:
            shutil.copyfile(_FIRMWARE_VARIABLES, self.folder / "variables.fd")

    def _boot(self) -> list[str]:
        """What the machine starts with."""
        if self.kernel is not None:
            initrd = ["-initrd", str(self.initrd)] if self.initrd else []
            return ["-kernel", str(self.kernel), *initrd, "-append", self.kernel_arguments]
        command = [
            "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_SECURE_FIRMWARE if self.secure_boot else _FIRMWARE}",
            "-drive", f"if=pflash,unit=1,format=raw,file={self.folder}/variables.fd",
        ]  # fmt: skip
        if self.secure_boot:
            command += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
        if self.kernel_arguments:
            command += ["-smbios", f"type=11,value=io.systemd.stub.kernel-cmdline-extra={self.kernel_arguments.replace(',', ',,')}"]
        return command

    def _command(self) -> list[str]:
        command = [
            "qemu-system-x86_64", "-name", self.name, "-S",
            "-machine", f"q35,usb=off,vmport=off,smm={'on' if self.secure_boot else 'off'}", *self.accel.arguments,
            "-m", str(self.memory_mib), "-smp", str(self.cpus),
            "-nodefaults", "-display", "none", "-vga", "std" if self.screen else "none",
            *self._boot(),
            "-blockdev", f"driver=qcow2,node-name=disk0,discard=unmap,file.driver=file,file.filename={self.folder}/disk.qcow2",
            "-device", "virtio-blk-pci,drive=disk0,bootindex=1",
            "-netdev", f"user,id=net0,hostfwd=tcp:127.0.0.1:{self.port}-:22",
            "-device", "virtio-net-pci,netdev=net0,romfile=",
            "-device", "virtio-rng-pci",
            "-chardev", f"socket,id=console,path={self.folder}/console,server=on,wait=off",
            "-serial", "chardev:console",
            "-serial", f"file:{self.second_log}",
            "-qmp", f"unix:{self.folder}/qmp,server=on,wait=off",
        ]  # fmt: skip
        if self.watchdog:
            command += ["-device", "i6300esb", "-action", "watchdog=reset"]
        for number, (name, value) in enumerate(sorted(self.credentials.items())):
            file = self.folder / f"credential-{number}"
            file.touch(mode=0o600)
            file.write_text(f"io.systemd.credential.binary:{name}={base64.b64encode(value).decode()}")
            command += ["-smbios", f"type=11,path={file}"]
        return command

    def _wait_socket(self, name: str) -> Path:
        path = self.folder / name
        deadline = time.monotonic() + 60
        while not path.exists():
            self.check_alive()
            if time.monotonic() > deadline:
                raise MachineError(self.describe(f"QEMU did not open {path}"))
            time.sleep(0.05)
        return path


def _remove_orphans() -> None:
    """Remove the folders of runs that were killed: theirs is the only process that would have."""
    for folder in Path("/tmp").glob("aos-vm-*-*"):
        owner = folder.name.split("-")[2]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
