"""The supervisor dies or is upgraded; agents do not notice."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from agents import HOME


def pid(machine, unit):
    """MainPID of a unit."""
    return machine.run("systemctl", "show", "-P", "MainPID", unit).out.strip()


def section(checks, machine, debs):
    """kill -9, then an upgrade, under one running agent."""
    checks.succeeds("an agent runs", machine.run("aos", "run", "--detach", "./tick", cwd=HOME), "tick")
    agent = pid(machine, "aos-agent@tick")
    killed(checks, machine, agent)
    upgraded(checks, machine, debs, agent)
    complete(checks, machine)
    checks.succeeds("and it is stopped like any other", machine.run("aos", "stop", "tick"))


def killed(checks, machine, agent):
    """kill -9: systemd starts the daemon again, it finds what runs."""
    daemon = pid(machine, "agentd.service")
    checks.succeeds("kill -9 reaches agentd", machine.sh(f"kill -9 {daemon}"))
    machine.sh(f"for i in $(seq 100); do p=$(systemctl show -P MainPID agentd.service);"
               f" [ $p != {daemon} ] && [ $p != 0 ] && systemctl -q is-active agentd && exit 0; sleep 0.2; done; exit 1")
    checks.check("agentd is back after kill -9", pid(machine, "agentd.service") not in (daemon, "0"))
    checks.check("the agent's pid is unchanged", pid(machine, "aos-agent@tick") == agent)
    checks.succeeds("the daemon knows it still runs", machine.run("aos", "status", "tick"), "running", agent)


def repacked(deb, into, version):
    """The same package with a higher version: what an upgrade looks like to dpkg."""
    with tempfile.TemporaryDirectory() as work:
        tree = Path(work) / "tree"
        subprocess.run(["dpkg-deb", "-R", deb, tree], check=True)
        control = tree / "DEBIAN/control"
        text = control.read_text(encoding="utf-8")
        old = re.search(r"^Version: (.*)$", text, re.M)[1]
        text = re.sub(r"^Version: .*$", f"Version: {version}", text, flags=re.M)
        control.write_text(text.replace(f"(= {old})", f"(= {version})"), encoding="utf-8")
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, into], check=True, stdout=subprocess.DEVNULL)
    return old


def upgraded(checks, machine, debs, agent):
    """apt install of a higher version."""
    folder = machine.root / "srv/upgrade"
    folder.mkdir()
    for name in ("agentd", "aos"):
        version = subprocess.run(
            ["dpkg-deb", "-f", machine.root / debs[name].lstrip("/"), "Version"],
            check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        repacked(machine.root / debs[name].lstrip("/"), folder / f"{name}.deb", f"{version}+upgrade1")
    daemon = pid(machine, "agentd.service")
    apt = machine.run("apt-get", "-y", "install", "/srv/upgrade/agentd.deb", "/srv/upgrade/aos.deb",
                      env={"DEBIAN_FRONTEND": "noninteractive"}, timeout_s=300)
    checks.succeeds("apt upgrades the packages", apt, "+upgrade1")
    checks.check("agentd was restarted", pid(machine, "agentd.service") not in (daemon, "0"))
    checks.check("the agent's pid is unchanged", pid(machine, "aos-agent@tick") == agent)
    checks.succeeds("agentd.service is active", machine.run("systemctl", "is-active", "agentd.service"))
    checks.succeeds("state survived", machine.run("aos", "list"), "sitewatch", "tick", "exit7")
    shutil.rmtree(folder)


def complete(checks, machine):
    """Not one line of its output was lost."""
    logs = machine.sh("journalctl -o cat --no-pager _SYSTEMD_INVOCATION_ID="
                      "$(systemctl show -P InvocationID aos-agent@tick)")
    numbers = [int(line.split()[1]) for line in logs.out.splitlines() if re.fullmatch(r"tick \d+", line)]
    checks.check("its output is complete", len(numbers) > 3 and numbers == list(range(len(numbers))), logs.out)
