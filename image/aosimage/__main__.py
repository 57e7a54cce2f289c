"""image/run: builds the AOS appliance, boots it in QEMU, runs an example agent in it, shows the result, shuts it down.

Every step is skipped when its inputs have not changed; the log of each is image/out/logs/STEP.log.
"""

from __future__ import annotations

import argparse
import fcntl
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from . import accel, build, demo, host, release, terminal
from .accel import Accel
from .aptsources import AptSourcesError
from .console import ConsoleError
from .guest import GuestError
from .places import Places
from .progress import Progress, Step, StepFailed
from .qmp import QmpError
from .vm import Machine, MachineError

BUILD_STEPS = ("host", "packages", "mkosi", "tools", "image")
STEPS = (*BUILD_STEPS, "release", "boot", "example")
# Under emulation on a loaded machine; virtualised it takes a tenth.
_BOOT_TIMEOUT_S = 1200
_STOP_TIMEOUT_S = 300
_NOTE = """\
Where things go: image/out (packages, released images, logs), image/.cache (what makes the next run quick, and the
local signing keys). AOS_ACCEL=kvm or tcg overrides the test whether KVM works."""


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="image/run", description=__doc__, epilog=_NOTE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave the machine running, with its console in this terminal; Ctrl-] ends it")
    parser.add_argument("--release", action="store_true", help="build only, and put aos_VERSION_amd64.{raw.zst,qcow2} and SHA256SUMS into image/out")
    parser.add_argument("--step", choices=STEPS, help="do this step and those it needs, and stop after it")
    parser.add_argument("--debs", type=Path, metavar="DIR", help="take our .debs from DIR instead of building them")
    parser.add_argument("--base", action="store_true", help="the image without our packages (to compare with); never runs the example")
    parser.add_argument("--memory", type=int, default=1024, metavar="MIB", help="the machine's memory (default: 1024)")
    parser.add_argument("--metal", action="store_true", help="Debian's generic kernel instead of the one for virtual machines")
    parser.add_argument("--sign", nargs=2, type=Path, metavar=("KEY", "CERT"), help="an image of its own with boot files signed for Secure Boot")
    return parser.parse_args()


class Run:
    """One invocation: the steps in order."""

    def __init__(self, options: argparse.Namespace) -> None:
        root = Path(__file__).resolve().parents[2]
        debs = options.debs.resolve() if options.debs else root / "image/out/debs"
        self.options = options
        flavour = f"{'base' if options.base else 'aos'}{'-metal' if options.metal else ''}{'-signed' if options.sign else ''}"
        self.places = Places(root, debs, flavour)
        self.progress = Progress(self.places.logs)
        self.python = Path()

    def step(self, name: str, title: str, work: Callable[[Step], object]) -> bool:
        """Do one step; true when it was the last one asked for."""
        chosen = " ".join(word for word in sys.argv[1:] if word != "--keep")
        repeat = f"image/run {chosen}" if self.options.step else f"image/run --step {name} {chosen}".rstrip()
        with self.progress.step(name, title, repeat) as step:
            work(step)
        return self.options.step == name

    def build(self) -> bool:
        """Everything up to the image; true when that was all that was asked for. One run builds at a time."""
        self.places.cache.mkdir(parents=True, exist_ok=True)
        with (self.places.cache / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("  wait  another image/run builds", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            return self._build()

    def _build(self) -> bool:
        with_packages = not self.options.base
        own_packages = with_packages and self.options.debs is None

        def prepare(step: Step) -> None:
            host.install_packages(step, packaging=own_packages, booting=not self.options.release)
            host.write_sources(self.places, step)

        if self.step("host", "what this machine needs", prepare):
            return True
        if with_packages and self.step("packages", "Debian packages of AOS", self._packages):
            return True
        if self.step("mkosi", "mkosi of Debian 13", self._mkosi):
            return True
        if self.step("tools", "Debian 13's image tools", lambda step: host.build_tools(self.places, step, self.python)):
            return True
        return self.step("image", "the image", lambda step: build.build_image(self.places, step, self.python, self.options.sign))

    def _packages(self, step: Step) -> None:
        if self.options.debs is None:
            host.need_rust(self.places, step)
            build.build_packages(self.places, step)
        elif missing := build.missing_packages(self.places):
            raise StepFailed(f"{self.places.debs} must hold one .deb each of {', '.join(build.OUR_PACKAGES)}; see {', '.join(missing)}")

    def _mkosi(self, step: Step) -> None:
        self.python = host.fetch_mkosi(self.places, step)

    def publish(self) -> None:
        """`--release`: the files that people download."""
        made: list[Path] = []
        self.step("release", "the published files", lambda step: made.extend(release.publish(self.places, step)))
        for path in made:
            print(f"        {path}")

    def demonstrate(self) -> None:
        """Boot, run the example, show it, shut down."""
        with tempfile.TemporaryDirectory(prefix="aos-run-") as folder:
            key = demo.make_ssh_key(self.places, Path(folder))
            kind = Accel.TCG

            def probe(step: Step) -> None:
                nonlocal kind
                kind = accel.detect(self.places.kernel, self.places.cache / "accel")
                step.note = "KVM" if kind is Accel.KVM else "KVM does not start a guest here: emulation, slow"

            self.step("accel", "how to run it", probe)
            credentials = {"ssh.authorized_keys.root": key.with_suffix(".pub").read_bytes(), "system.hostname": b"aos-demo"}
            machine = Machine(
                self.places.disk, kind, self.places.logs, name="machine", credentials=credentials, ssh_key=key,
                memory_mib=self.options.memory, screen=self.options.keep,
            )  # fmt: skip
            try:
                self._drive(machine)
            finally:
                machine.destroy()

    def _drive(self, machine: Machine) -> None:
        def boot(step: Step) -> None:
            machine.start()
            machine.guest.wait_ssh(_BOOT_TIMEOUT_S)
            state = machine.guest.run("systemctl is-system-running --wait", check=False, timeout_s=_BOOT_TIMEOUT_S).stdout.strip()
            step.note = f"{state}; ssh on 127.0.0.1:{machine.port}"
            if state != "running":
                failed = machine.guest.run("systemctl --failed --no-legend --plain; journalctl -b -p err --no-pager -n 20", check=False).stdout
                raise StepFailed(f"the machine is {state}:\n{failed}")

        if self.step("boot", "the machine boots", boot):
            return
        if not self.options.base:
            shown: list[str] = []

            def example(step: Step) -> None:
                shown.append(demo.run_inside(machine.guest, demo.pack(self.places, step), step))

            self.step("example", f"examples/{demo.EXAMPLE} runs in the machine", example)
            print(demo.indent("\n".join(shown)))
        if self.options.keep:
            self._keep(machine)
        self.step("stop", "the machine shuts down", lambda step: machine.power_off(_STOP_TIMEOUT_S))

    def _keep(self, machine: Machine) -> None:
        print(f"\n  ssh -i {machine.guest.key} -p {machine.port} root@127.0.0.1")
        if demo.have_terminal():
            print("  This is its console; Ctrl-] shuts the machine down.\n")
            with machine.console.borrow() as connection:
                terminal.attach(connection)
        else:
            print("  Ctrl-C shuts the machine down.\n", flush=True)
            try:
                while True:
                    machine.check_alive()
                    time.sleep(1)
            except KeyboardInterrupt:
                pass


def main() -> int:
    """Run the steps; 0 only when all that was asked for succeeded."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run = Run(arguments())
    started = time.monotonic()
    try:
        done = run.build()
        if not done and run.options.release:
            run.publish()
        elif not done:
            run.demonstrate()
    except KeyboardInterrupt:
        print("image/run: interrupted; nothing is left running", file=sys.stderr)
        return 130
    except (StepFailed, AptSourcesError, ConsoleError, GuestError, MachineError, QmpError) as error:
        print(f"image/run: {error}", file=sys.stderr)
        return 1
    print(f"  done in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
