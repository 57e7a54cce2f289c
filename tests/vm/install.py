"""Our packages by apt, and the state of the machine after it."""

import shutil


def bring(load, debs):
    """Copies the packages into what is pushed."""
    (load / "debs").mkdir()
    found = [deb for deb in debs.glob("*.deb") if not deb.name.startswith("aos-appliance") and "-dbgsym" not in deb.name]
    if len(found) < 2:
        raise SystemExit(f"no packages in {debs}: tests/lib/build-debs")
    for deb in found:
        shutil.copy(deb, load / "debs" / deb.name)


def section(checks, guest):
    """Installed, running, with what it needs of a kernel."""
    apt = guest.run("DEBIAN_FRONTEND=noninteractive apt-get -y install /srv/load/debs/*.deb", check=False, timeout_s=600)
    checks.check("apt install ./agentd_*.deb ./aos_*.deb", apt.returncode == 0, apt.stdout + apt.stderr)
    active = guest.run("systemctl is-active agentd.service && systemctl is-system-running --wait; systemctl --failed --no-legend", check=False)
    checks.check("agentd is active, and no unit failed", active.stdout.split() == ["active", "running"], active.stdout)
    kernel = guest.run("uname -r; cat /sys/kernel/security/lsm /sys/fs/cgroup/cgroup.controllers").stdout
    print("\n".join(f"     {line}" for line in kernel.splitlines()))
    checks.check("Landlock is on, and the controllers are there",
                 all(word in kernel for word in ("landlock", "memory", "pids", "cpu")), kernel)
