"""Installing the packages with apt, dependencies included, as a user would."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def field(deb, name):
    """One control field of a package file."""
    return subprocess.run(["dpkg-deb", "-f", deb, name], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def bring(machine, folder):
    """Copies the packages into the machine; returns {package: path in the machine}."""
    debs = {}
    for deb in sorted(folder.glob("*.deb")):
        name = field(deb, "Package")
        if name.endswith("-dbgsym"):
            continue
        path = f"/srv/debs/{deb.name}"
        (machine.root / "srv/debs").mkdir(parents=True, exist_ok=True)
        shutil.copy(deb, machine.root / path.lstrip("/"))
        debs[name] = path
    missing = {"agentd", "aos", "aos-appliance"} - set(debs)
    if missing:
        raise SystemExit(f"no package {', '.join(sorted(missing))} in {folder}: tests/lib/build-debs")
    return debs


def section(checks, machine, debs):
    """apt resolves the dependencies, the daemon is up, nothing failed."""
    apt = machine.run("apt-get", "-y", "install", debs["agentd"], debs["aos"],
                      env={"DEBIAN_FRONTEND": "noninteractive"}, timeout_s=300)
    checks.succeeds("apt install ./agentd_*.deb ./aos_*.deb", apt)
    checks.check("no maintainer script complains", not [
        line for line in apt.text.splitlines()
        if any(word in line.lower() for word in ("failed", "error", "cannot")) and "debconf:" not in line
    ], apt.text)
    checks.succeeds("agentd.service is active", machine.run("systemctl", "is-active", "agentd.service"), "active")
    checks.succeeds("agentd.service is enabled", machine.run("systemctl", "is-enabled", "agentd.service"), "enabled")
    state = machine.run("systemctl", "is-system-running", "--wait")
    failed = machine.run("systemctl", "--failed", "--no-legend", "--plain")
    checks.check("no unit failed", state.out.strip() == "running", state.text + failed.text)
    owner = machine.sh("ps -o user= -p $(systemctl show -P MainPID agentd.service) 2>/dev/null"
                       " || stat -c %U /proc/$(systemctl show -P MainPID agentd.service)")
    checks.check("agentd runs as user aos", owner.out.strip() == "aos", owner.text)
    checks.succeeds("apt considers the packages consistent", machine.run("apt-get", "check"))
    checks.succeeds("installed files match their checksums", machine.run("dpkg", "--verify", "agentd", "aos"))
    checks.check("installing aos does not start the first-boot wizard",
                 machine.run("systemctl", "cat", "aos-configure.service").code != 0)
    checks.succeeds("aos --version", machine.run("aos", "--version"), "aos ")
    for path in ("/usr/share/man/man1/aos.1.gz", "/usr/share/bash-completion/completions/aos",
                 "/usr/share/zsh/vendor-completions/_aos", "/usr/share/fish/vendor_completions.d/aos.fish",
                 "/usr/share/doc/aos/examples/sitewatch/Agentfile.yaml"):
        checks.check(f"{path} is there", (machine.root / path.lstrip("/")).is_file())
    joined = machine.sh("echo 'm reader aos' >> /etc/sysusers.d/test.conf && systemd-sysusers")
    checks.succeeds("a user can be put into the group aos", joined)


def smoke(checks, machine):
    """The packages' own test. Its agents have limits: after the section `limits`."""
    machine.write("/srv/smoke", (ROOT / "debian/tests/smoke").read_bytes(), 0o755)
    done = machine.run("/srv/smoke", env={"AUTOPKGTEST_TMP": "/tmp"}, timeout_s=300)
    checks.succeeds("debian/tests/smoke, as autopkgtest runs it", done)


def appliance(checks, machine, debs):
    """The wizard comes with aos-appliance only: at the next boot, not at once, and goes with it."""
    apt = machine.run("apt-get", "-y", "install", debs["aos-appliance"],
                      env={"DEBIAN_FRONTEND": "noninteractive"}, timeout_s=300)
    checks.succeeds("apt install ./aos-appliance_*.deb", apt)
    checks.succeeds("the wizard is enabled", machine.run("systemctl", "is-enabled", "aos-configure.service"), "enabled")
    state = machine.run("systemctl", "is-active", "aos-configure.service")
    checks.check("the wizard is not started on a running system", state.out.strip() == "inactive", state.text)
    checks.succeeds("its unit verifies",
                    machine.run("systemd-analyze", "verify", "--man=no", "/usr/lib/systemd/system/aos-configure.service"))
    checks.succeeds("apt purge aos-appliance", machine.run("apt-get", "-y", "purge", "aos-appliance", timeout_s=300))
    link = machine.sh("find /etc/systemd -name 'aos-configure*'")
    checks.check("the wizard goes with its package", not link.out.strip(), link.text)
