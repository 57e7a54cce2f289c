"""Agents that ask for another isolation than the launcher's: missing, then there, in the unit as it is installed."""

import agents
from agents import HOME

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
    """crun and runc; gVisor and virtual machines are refused with a reason."""
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
    agents.write(machine, "in-vm", "look.py", LOOK, extra="  isolation: vm\n")
    checks.refused("a virtual machine is refused by name", machine.run("aos", "run", "./in-vm", cwd=HOME), "vm")
    machine.sh("aos remove in-vm; aos packages remove in-vm:1.0.0")
    apt = machine.run("apt-get", "-y", "purge", "crun", "runc", env={"DEBIAN_FRONTEND": "noninteractive"}, timeout_s=300)
    checks.succeeds("apt purge crun runc", apt)
