"""The escape corpus inside the installed unit: launcher, unit file and user as the packages made them.

tests/escape runs the same corpus with the launcher alone; here systemd's own walls stand as well.
"""

import shutil

PROGRAMS = ("escape", "escape-probe")


def bring(machine, folder):
    """Copies the corpus into the machine; False when it is not built."""
    into = machine.root / "srv/escape"
    into.mkdir()
    if not all((folder / name).is_file() for name in PROGRAMS):
        return False
    for name in PROGRAMS:
        shutil.copy(folder / name, into / name)
    return True


def section(checks, machine, built):
    """Every attempt is stopped, every allowed neighbour works."""
    if not checks.check("the escape corpus is built (tests/run escape)", built):
        return
    checks.succeeds("an account unit makes a user", machine.run("systemctl", "start", "aos-account@escape.service"))
    checks.succeeds("nss-systemd knows it", machine.run("getent", "passwd", "aos-escape"), "aos-escape")
    done = machine.run("/srv/escape/escape", "--unit", timeout_s=300)
    print("\n".join(f"     {line}" for line in done.out.splitlines()))
    checks.succeeds("the escape corpus finds no way out of the unit", done)
    machine.run("rm", "-r", "/var/lib/aos/agents/escape", "/run/systemd/system/aos-agent@escape.service.d")
    checks.succeeds("an account unit takes the user away",
                    machine.run("systemctl", "start", "aos-account-remove@escape.service"))
    checks.check("nss-systemd knows it no longer", machine.run("getent", "passwd", "aos-escape").code != 0)
