"""A machine whose questions were all answered by credentials, and the examples in it."""

import json

from bed import shown


def credentials(bed):
    """What SMBIOS carries."""
    texts = {
        "aos.hostname": "credbox",
        "aos.timezone": "Europe/Paris",
        "aos.provider": "anthropic",
        "aos.provider-key": bed.provider_key,
        "passwd.hashed-password.root": bed.password_hash(),
        "ssh.authorized_keys.root": bed.public_key,
    }
    return {name: text.encode() for name, text in texts.items()}


def section(checks, bed, machine):
    """The answers are in force, nothing was asked, everything runs."""
    guest = machine.guest
    state = guest.run("systemctl is-system-running --wait", check=False, timeout_s=bed.boot_s)
    failed = guest.run("systemctl --failed --no-legend --plain; journalctl -b -p err --no-pager", check=False).stdout
    checks.check("the machine is `running`: no unit failed", state.stdout.strip() == "running", state.stdout + failed)
    checks.check("agentd is active", guest.run("systemctl is-active agentd", check=False).stdout.strip() == "active",
                 guest.run("systemctl status --no-pager agentd", check=False).stdout)
    checks.check("nothing was asked on the console", not machine.console.seen("is not set up yet|AOS setup\\."), machine.console.tail())
    name = guest.run("hostnamectl hostname", check=False).stdout.strip()
    checks.check("the host name is the credential's", name == "credbox", name)
    zone = guest.run("timedatectl show -P Timezone", check=False).stdout.strip()
    checks.check("the time zone is the credential's", zone == "Europe/Paris", zone)
    sshd = guest.run("sshd -T | grep -E '^(passwordauthentication|permitrootlogin|kbdinteractiveauthentication) '", check=False).stdout
    wanted = {"passwordauthentication no", "kbdinteractiveauthentication no", "permitrootlogin without-password"}
    checks.check("SSH takes keys only", set(sshd.lower().splitlines()) == wanted, sshd)
    listening = guest.run("ss -Hltn | awk '{print $4}'", check=False).stdout.split()
    outside = [address for address in listening if not address.startswith(("127.", "[::1]"))]
    checks.check("only SSH listens to the network", len(outside) == 1 and outside[0].endswith(":22"), listening)
    provider_key(checks, bed, guest, "anthropic")
    hardening(checks, guest)


def provider_key(checks, bed, guest, provider):
    """The key is where it belongs, readable for the machine, and in plain nowhere."""
    stored = f"/etc/credstore.encrypted/aos.provider.{provider}"
    mode = guest.run(f"stat -c '%a %U' {stored}", check=False).stdout.strip()
    checks.check("the provider's key is an encrypted credential of root", mode in ("600 root", "400 root"), mode)
    decrypted = guest.run(f"systemd-creds decrypt --name=aos.provider.{provider} {stored} -", check=False)
    checks.check("the machine can decrypt it", decrypted.stdout.strip() == bed.provider_key, decrypted.stderr)
    nowhere(checks, guest, "the provider's key", bed.provider_key)


def nowhere(checks, guest, what, secret):
    """No file and no journal entry has a secret in plain; the same search finds the host name, which proves it searches."""
    name = guest.run("hostnamectl hostname").stdout.strip()
    search = "grep -rlF -f - /etc /var /root /home /srv /tmp /run --exclude-dir=@system --exclude-dir=credentials"
    known = guest.run(search, check=False, stdin=name.encode())
    found = guest.run(search, check=False, stdin=secret.encode())
    checks.check(f"no file has {what} in plain", known.stdout and found.returncode == 1 and not found.stdout, found.stdout + found.stderr)
    count = "cat > /dev/shm/needle; journalctl --no-pager -o export | grep -acF -f /dev/shm/needle; rm /dev/shm/needle"
    known = guest.run(count, check=False, stdin=name.encode()).stdout.strip()
    logged = guest.run(count, check=False, stdin=secret.encode()).stdout.strip()
    checks.check(f"the journal does not have {what}", known.isdigit() and known != "0" and logged == "0", f"{known} {logged}")


def hardening(checks, guest):
    """Settings that agents' confinement or the machine's safety depend on."""
    wanted = {
        "kernel.dmesg_restrict": "1", "kernel.kptr_restrict": "2", "kernel.unprivileged_bpf_disabled": "1",
        "kernel.yama.ptrace_scope": "2", "kernel.core_pattern": "|/bin/false", "vm.memfd_noexec": "1",
    }  # fmt: skip
    values = guest.run(["sysctl", *wanted]).stdout.splitlines()
    actual = dict(line.split(" = ", 1) for line in values)
    checks.check("the kernel is hardened", actual == wanted, actual)
    watchdog = guest.run("wdctl --oneline 2>&1; systemctl show -P RuntimeWatchdogUSec", check=False).stdout
    checks.check("the hardware watchdog is fed", "watchdog" in watchdog.lower() and "1min" in watchdog, watchdog)
    history = guest.run("bash -lic 'echo \"[${HISTFILE-unset}]\"' 2>/dev/null", check=False).stdout.strip()
    checks.check("the shell keeps no history file", history.endswith("[]"), history)


def examples(checks, bed, machine):
    """The examples, from their folders in the image, as a user runs them."""
    guest = machine.guest
    first = guest.run("aos run /usr/share/aos/examples/sitewatch", check=False, timeout_s=bed.command_s)
    checks.check("aos run sitewatch ends with 0 and reports", first.returncode == 0 and "baseline" in first.stdout, first.stdout + first.stderr)
    guest.run("touch /etc/systemd/system/appeared.service")
    again = guest.run("aos run /usr/share/aos/examples/sitewatch", check=False, timeout_s=bed.command_s)
    checks.check("its second run names what changed", again.returncode == 0 and "appeared.service" in again.stdout, again.stdout + again.stderr)
    guest.run("rm /etc/systemd/system/appeared.service")
    report = guest.run("cat /var/lib/aos-agents/sitewatch/report.md", check=False).stdout
    checks.check("its report is in its workspace", "appeared.service" in report, report)
    status = guest.run("aos run /usr/share/aos/examples/sitewatch -- --no-such-option", check=False, timeout_s=bed.command_s)
    checks.check("aos run ends with the agent's exit status", status.returncode == 2, f"{status.returncode} {status.stdout}{status.stderr}")
    unit = shown(guest, "aos-agent@sitewatch.service", "Result", "ExecMainStatus", "User", "Slice")
    wanted = {"Result": "exit-code", "ExecMainStatus": "2", "User": "aos-sitewatch", "Slice": "aos-default.slice"}
    checks.check("its unit tells the same", unit == wanted, unit)
    listed = guest.run("aos list --json", check=False).stdout
    ids = {agent.get("id") for agent in json.loads(listed or "[]")}
    checks.check("aos list has it", "sitewatch" in ids, listed)
    # Three stages, two of them with steps that run in the launcher, on the image's kernel and file systems.
    spell = guest.run("aos run /usr/share/aos/examples/spell -- teh lazy dog", check=False, timeout_s=bed.command_s)
    checks.check("spell is built by steps, and reports its word", spell.returncode == 1 and spell.stdout.strip() == "teh", spell.stdout + spell.stderr)
    jail = guest.run("aos run /usr/share/aos/examples/jailbreak", check=False, timeout_s=bed.command_s)
    checks.check("the jailbreak fails on Debian 13's kernel", jail.returncode == 0 and "NOT STOPPED" not in jail.stdout, jail.stdout + jail.stderr)
