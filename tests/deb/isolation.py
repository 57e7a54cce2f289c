"""Agents that ask for another isolation than the launcher's: missing, then there, in the unit as it is installed."""

import shutil
import subprocess
from pathlib import Path

import agents
from agents import HOME

ROOT = Path(__file__).resolve().parents[2]

LOOK = """\
import os, sys
try:
    open("/etc/shadow").close()
    print("shadow: read")
except OSError:
    print("shadow: refused")
processes = [name for name in os.listdir("/proc") if name.isdigit()]
print("processes:", len(processes) < 8, "host:", os.uname().nodename, "first:", os.getuid() != 0)
print("capabilities:", [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")])
open("/workspace/made", "w").write("by the agent")
sys.exit(7)
"""


def section(checks, machine):
    """crun, runc and a virtual machine: missing, then there."""
    for runtime in ("crun", "runc"):
        agents.write(machine, f"in-{runtime}", "look.py", LOOK, extra=f"  isolation: oci:{runtime}\n")
        missing = machine.run("aos", "run", f"./in-{runtime}", cwd=HOME)
        checks.refused(f"{runtime} that is not installed is an error", missing, runtime)
    checks.succeeds("aos backends, without any", machine.run("aos", "backends"), "native", "oci:crun")
    apt = machine.run("apt-get", "-y", "--no-install-recommends", "install", "crun", "runc",
                      env={"DEBIAN_FRONTEND": "noninteractive"}, timeout_s=300)
    checks.succeeds("apt install crun runc", apt)
    for runtime in ("crun", "runc"):
        name = f"in-{runtime}"
        done = machine.run("aos", "run", f"./{name}", cwd=HOME, timeout_s=120)
        checks.check(f"an agent in {runtime} ends with its own status", done.code == 7, done.text)
        for said in ("shadow: refused", f"processes: True host: {name} first: True", "capabilities: ['0000000000000000']"):
            checks.check(f"and says `{said}`", said in done.text, done.text)
        made = machine.root / f"var/lib/aos-agents/{name}/made"
        checks.check("its workspace stays", made.is_file() and made.read_text() == "by the agent", done.text)
        left = machine.sh(f"pgrep -a {runtime}; mount | grep -c {name}")
        checks.check("no process and no mount of the runtime stays", left.out.strip() == "0", left.text)
        checks.succeeds(f"aos remove {name}", machine.run("aos", "remove", name))
        checks.succeeds("its package goes", machine.run("aos", "packages", "remove", f"{name}:1.0.0"))
    virtual_machine(checks, machine)
    apt = machine.run("apt-get", "-y", "purge", "crun", "runc", "qemu-system-x86", env={"DEBIAN_FRONTEND": "noninteractive"},
                      timeout_s=300)
    checks.succeeds("apt purge crun runc qemu-system-x86", apt)


def virtual_machine(checks, machine):
    """First without QEMU, then without a kernel, then with both; emulated, since a unit has no /dev/kvm."""
    agents.write(machine, "in-vm", "look.py", LOOK, extra="  isolation: vm\n")
    run = ("aos", "run", "./in-vm")
    checks.refused("QEMU that is not installed is an error", machine.run(*run, cwd=HOME), "qemu-system-x86")
    apt = machine.run("apt-get", "-y", "--no-install-recommends", "install", "qemu-system-x86",
                      env={"DEBIAN_FRONTEND": "noninteractive"}, timeout_s=600)
    checks.succeeds("apt install qemu-system-x86", apt)
    checks.refused("so is a kernel", machine.run(*run, cwd=HOME), "linux-image-amd64")
    subprocess.run([ROOT / "tests/isolation/run", "--fetch-kernel"], check=True)
    kernel = machine.root / "usr/libexec/aos/kernel"
    shutil.copytree(ROOT / "target/isolation/kernel", kernel)
    done = machine.run(*run, cwd=HOME, timeout_s=300)
    checks.check("an agent in a virtual machine ends with its own status", done.code == 7, done.text)
    for said in ("shadow: refused", "processes: True host: in-vm first: True", "capabilities: ['0000000000000000']"):
        checks.check(f"and says `{said}`", said in done.text, done.text)
    made = machine.root / "var/lib/aos-agents/in-vm/made"
    checks.check("its workspace stays", made.is_file() and made.read_text() == "by the agent", done.text)
    explained = machine.run("aos", "explain", "in-vm")
    checks.succeeds("aos explain shows QEMU and the launcher inside", explained, "emulated", "qemu", "landlock")
    left = machine.sh("pgrep -a qemu; mount | grep -c in-vm")
    checks.check("no process and no mount of the machine stays", left.out.strip() == "0", left.text)
    checks.succeeds("aos remove in-vm", machine.run("aos", "remove", "in-vm"))
    checks.succeeds("its package goes", machine.run("aos", "packages", "remove", "in-vm:1.0.0"))
    shutil.rmtree(kernel)
