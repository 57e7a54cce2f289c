"""KVM or emulation: /dev/kvm that opens is no proof, so a real kernel is started once and the answer remembered."""

from __future__ import annotations

import enum
import os
import subprocess
from pathlib import Path

# A kernel without a root file system says this within a second of virtualised time; so it ran, interrupts and all.
_PROOF = b"Unable to mount root fs"
_PROBE_TIMEOUT_S = 30


class Accel(enum.Enum):
    """How the guest's instructions are executed."""

    KVM = "kvm"
    TCG = "tcg"

    @property
    def arguments(self) -> list[str]:
        """QEMU's options for it."""
        if self is Accel.KVM:
            return ["-accel", "kvm", "-cpu", "host"]
        # cx16=off: QEMU 7.2 may double-fault the guest at cmpxchg16b. la57=off: one level of page tables less to walk.
        return ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,cx16=off,la57=off"]


def detect(kernel: Path, cache: Path) -> Accel:
    """Start `kernel` under KVM; remember the answer in `cache` until this machine reboots."""
    if forced := os.environ.get("AOS_ACCEL"):
        return Accel(forced)
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Accel.TCG
    key = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if cache.exists() and (words := cache.read_text().split()) and words[0] == key:
        return Accel(words[1])
    found = Accel.KVM if _starts_under_kvm(kernel) else Accel.TCG
    cache.write_text(f"{key} {found.value}\n")
    return found


def _starts_under_kvm(kernel: Path) -> bool:
    command = [
        "qemu-system-x86_64", "-machine", "q35", *Accel.KVM.arguments, "-m", "512", "-nodefaults", "-no-reboot",
        "-display", "none", "-serial", "stdio", "-kernel", str(kernel), "-append", "console=ttyS0 panic=-1",
    ]  # fmt: skip
    try:
        output = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_TIMEOUT_S, check=False
        ).stdout
    except subprocess.TimeoutExpired:
        return False
    return _PROOF in output
