"""The escape corpus on Debian 13's kernel: the launcher started by root and by a user, the installed unit, every backend."""

import subprocess

PROGRAMS = ("escape", "escape-probe", "escape-step")
LAUNCH = "AOS_LAUNCH=/usr/libexec/aos/aos-launch AOS_ISOLATE=/usr/libexec/aos/aos-isolate"


def bring(load, folder):
    """Copies the corpus, without its debugging symbols, into what is pushed."""
    (load / "escape").mkdir()
    for name in PROGRAMS:
        if not (folder / name).is_file():
            raise SystemExit(f"{folder / name} is not built: cargo test --workspace --locked --no-run")
        subprocess.run(["strip", "-o", load / "escape" / name, folder / name], check=True)


def section(checks, guest):
    """Every attempt is stopped, every allowed neighbour works, in every situation."""
    guest.run("systemctl start aos-account@escape.service")
    for name, options in (("alone", ""), ("in the installed unit", "--unit"), ("in every backend that needs no machine", "--backends oci:crun oci:runc gvisor")):
        done = guest.run(f"{LAUNCH} /srv/load/escape/escape {options}", check=False, timeout_s=1800)
        print("\n".join(f"     {line}" for line in done.stdout.splitlines()))
        # The table has a line for each attempt: a run that did nothing is no pass.
        lines = [line for line in done.stdout.splitlines() if line.startswith("ok ")]
        checks.check(f"the escape corpus finds no way out, {name} ({len(lines)} attempts)",
                     done.returncode == 0 and len(lines) > 50, done.stdout + done.stderr)
