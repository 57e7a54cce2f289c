"""Removing and purging: what goes, what stays, and why (docs/adr, "purge").

remove: agents stop, programs go, settings and state stay. purge: settings and the daemon's state
go. Kept on purpose: workspaces that agents wrote (/var/lib/aos-agents, /var/lib/aos-changes), the users they belong
to (/etc/userdb) with the counter that keeps a uid from being given twice (/var/lib/aos-accounts),
the packages that root built or pulled (/var/lib/aos-packages, without its cache), and, as with every
Debian package, the system user and groups in /etc/passwd and /etc/group.
"""

from agents import HOME

# What purge keeps.
KEPT = ("/var/lib/aos-agents", "/var/lib/aos-changes", "/var/lib/aos-accounts", "/var/lib/aos-packages", "/etc/userdb")
PACKAGES = "/var/lib/aos-packages"

# Trees whose content changes by running the machine at all.
NOISE = ("/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/var/log", "/var/cache", "/var/lib/apt", "/var/lib/dpkg",
         "/var/lib/systemd", "/srv", "/root", "/etc/sysusers.d/test.conf")
# Files that installing any package with a user rewrites.
REWRITTEN = {f"/etc/{name}{suffix}" for name in ("passwd", "group", "shadow", "gshadow") for suffix in ("", "-")} | {
    "/etc/ld.so.cache", "/etc/.pwd.lock", "/etc/.updated", "/var/.updated", "/etc/machine-id"}
# What packages that came as dependencies generate, and keep while others depend on them.
GENERATED = ("/usr/share/mime", "/var/lib/sgml-base", "/var/lib/xml-core", "/etc/ssl/certs", "/usr/share/glib-2.0",
             "/etc/xml", "/etc/sgml", "/etc/ca-certificates", "/usr/local/share")


def snapshot(machine):
    """Every path of the machine, but for the noise."""
    prune = " -o ".join(f"-path {path}" for path in NOISE)
    return set(machine.sh(f"find / -xdev \\( {prune} \\) -prune -o -print").out.splitlines())


def section(checks, machine, before):
    """Remove with a paused agent; then purge without any left, and with one left."""
    machine.run("aos", "run", "--detach", "./tick", cwd=HOME)
    machine.run("aos", "enable", "tick")
    machine.run("aos", "pause", "tick")
    removed(checks, machine)
    purged(checks, machine, before)


def removed(checks, machine):
    """apt remove stops the agents and keeps settings and state."""
    done = apt(machine, "remove", "agentd", "aos")
    checks.succeeds("apt remove", done)
    units = machine.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "aos*", "agentd*")
    active = [line for line in units.out.splitlines() if " active " in line]
    checks.check("no unit of ours is active", not active, units.text)
    procs = machine.sh("for p in /proc/[0-9]*; do readlink $p/exe; done | grep -e aos -e agentd")
    checks.check("no process of ours is left", not procs.out.strip(), procs.text)
    machine.run("systemctl", "daemon-reload")
    # Links in /etc are the administrator's decisions: purge removes them.
    wants = machine.sh("find /run/systemd/generator* /usr/lib/systemd -name '*aos*' -o -name 'agentd*'")
    checks.check("no unit of ours is left", not wants.out.strip(), wants.text)
    checks.check("state is kept", machine.run("test", "-f", "/var/lib/aos/state.sqlite").code == 0)
    checks.check("workspaces are kept", machine.run("test", "-d", "/var/lib/aos-agents/sitewatch").code == 0)
    checks.check("root's packages and their cache are kept", machine.run("test", "-d", f"{PACKAGES}/cache").code == 0)


def purged(checks, machine, before):
    """apt purge leaves what policy keeps, and nothing else."""
    done = apt(machine, "purge", "agentd", "aos")
    checks.succeeds("apt purge", done)
    checks.check("purge does not complain", "not empty so not removed" not in done.text, done.text)
    checks.succeeds("autoremove takes the dependencies", apt(machine, "autoremove", "--purge"))
    machine.run("systemctl", "daemon-reload")
    left = sorted(path for path in snapshot(machine) - before
                  if path not in REWRITTEN and "__pycache__" not in path)
    owned = set(machine.sh("cat /var/lib/dpkg/info/*.list").out.splitlines())
    kept = [path for path in left if path.startswith(KEPT)]
    stray = [path for path in left if path not in owned and path not in kept]
    ours = [path for path in stray if "aos" in path or "agentd" in path]
    checks.check("no file of ours is left but workspaces, their users, and packages", not ours, "\n".join(ours))
    strange = [path for path in stray if path not in ours and not path.startswith(GENERATED)]
    checks.check("nothing else is left either", not strange, "\n".join(strange))
    checks.check("a workspace that agents wrote is kept", any("sitewatch" in path for path in kept), "\n".join(left))
    cache = [path for path in kept if path.startswith(f"{PACKAGES}/cache")]
    checks.check("root's packages are kept, their cache is not", f"{PACKAGES}/store/index.json" in kept and not cache,
                 "\n".join(cache))
    missing = sorted(before - snapshot(machine))
    checks.check("nothing that was there is gone", not missing, "\n".join(missing))
    runtime = machine.sh("find /run -path /run/systemd/units -prune -o -name '*aos*' -print")
    checks.check("nothing of ours is left in /run", not runtime.out.strip(), runtime.text)


def apt(machine, *words):
    """apt-get without questions."""
    return machine.run("apt-get", "-y", *words, env={"DEBIAN_FRONTEND": "noninteractive"}, timeout_s=300)
