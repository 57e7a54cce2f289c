"""What systemd itself says about our units, and bounds on it."""

# `systemd-analyze security`: exposure, 0 (best) to 10. The bounds are what the units reach.
BOUNDS = {"agentd.service": 1.0, "aos-agent@x.service": 2.4, "aos-account@x.service": 1.0,
          "aos-account-remove@x.service": 1.0, "aos-workspace@x.service": 1.2,
          "aos-quota@x.service": 1.2}


def section(checks, machine):
    """Scores are printed and bounded; units verify without a word."""
    scores(checks, machine)
    verify(checks, machine)
    generator(checks, machine)
    confined(checks, machine)


def scores(checks, machine):
    """One line per unit."""
    for unit, bound in BOUNDS.items():
        done = machine.run("systemd-analyze", "security", "--no-pager", unit)
        last = (done.text.strip().splitlines() or [""])[-1]
        try:
            score = float(last.split(": ")[1].split()[0])
        except (IndexError, ValueError):
            checks.check(f"{unit} has a score", False, done.text)
            continue
        print(f"     {unit}: exposure {score}")
        checks.check(f"{unit}: exposure is at most {bound}", score <= bound, done.text)


def verify(checks, machine):
    """systemd-analyze verify has nothing to say."""
    units = machine.sh("dpkg -L agentd aos | grep '/systemd/system/[^/]*\\.[a-z]*e$'").out.split()
    checks.check("units are installed", len(units) >= 4, units)
    done = machine.run("systemd-analyze", "verify", "--man=no", *units)
    ours = [line for line in done.text.splitlines() if "aos" in line or "agentd" in line]
    checks.check("systemd-analyze verify is content", done.code == 0 and not ours, done.text)


def generator(checks, machine):
    """The generator runs as root at every boot: hostile files must not pass it."""
    hostile = {
        "UPPER": "MemoryMax=1\n",
        "a..b": "MemoryMax=1\n",
        "newline": "MemoryMax=1\n[Service]\nUser=root\n",
        "unknown": "ExecStart=/bin/sh\n",
        "percent": "MemoryMax=%i\n",
    }
    for name, content in hostile.items():
        machine.write(f"/etc/aos/enabled/{name}", content)
    (machine.root / "etc/aos/enabled/link").symlink_to("/etc/shadow")
    try:
        machine.run("systemctl", "daemon-reload")
        made = machine.sh("cat /run/systemd/generator*/aos-agent@*.service.d/* 2>/dev/null; ls -R /run/systemd/generator*")
        bad = [word for word in ("User=root", "ExecStart", "UPPER", "a..b", "link.service", "%i") if word in made.out]
        checks.check("hostile files in /etc/aos/enabled make no unit", not bad, f"{bad}\n{made.text}")
        checks.succeeds("and systemd goes on", machine.run("systemctl", "is-active", "dbus.service"))
    finally:
        for name in [*hostile, "link"]:
            (machine.root / "etc/aos/enabled" / name).unlink(missing_ok=True)
        machine.run("systemctl", "daemon-reload")


def confined(checks, machine):
    """The second example tries to get out, and says what stopped it."""
    done = machine.run("aos", "run", "./examples/jailbreak", cwd="/srv/agents", timeout_s=300)
    print("\n".join(f"     {line}" for line in done.out.splitlines()))
    checks.succeeds("aos run ./examples/jailbreak: nothing gets out", done)
