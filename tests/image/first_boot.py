"""The first boot without answers: the wizard on the serial console, then logins on both consoles, and where secrets went."""

import mmap
import time

from provisioned import nowhere, provider_key

# A step of the wizard answers at once; emulation and neighbours make that some seconds.
STEP_S = 180


def section(checks, bed, machine):
    """Set up, log in, look for secrets, shut down, look at the disk."""
    console = machine.console
    console.expect(r"Press Enter to set it up here", bed.boot_s)
    checks.check("the machine offers its setup on the serial console", True)
    converse(bed, console)
    checks.check("the wizard ends by saying what it did", True)
    serial_login(checks, bed, console)
    machine.guest.wait_ssh(bed.boot_s)
    guest = machine.guest
    settings(checks, guest)
    screen_login(checks, bed, machine)
    provider_key(checks, bed, guest, "anthropic")
    password_nowhere(checks, bed, guest)
    disk = machine.folder / "disk.qcow2"
    machine.power_off(bed.boot_s)
    checks.check("the disk is searched: it has the host name", contains(disk, b"wizardbox"))
    for name, secret in (("key", bed.provider_key), ("password", bed.password)):
        checks.check(f"the disk has the {name} in plain nowhere, deleted files included", not contains(disk, secret.encode()))


def converse(bed, console):
    """Answer the wizard as a person does."""
    console.line()
    for question, answer in (
        (r"Host name \[[^]]*\]: ", "wizardbox"),
        (r"Time zone \[[^]]*\]: ", "Europe/Berlin"),
        (r"Log in with \[\d\]: ", "3"),
        (r"New password for root[^:]*: ", bed.password),
        (r"The same again[^:]*: ", bed.password),
        (r"SSH public key[^:]*: ", bed.public_key),
        (r"Provider \[\d\]: ", "1"),
        (r"API key[^:]*: ", bed.provider_key),
        (r"Apply this \[yes\]: ", "yes"),
    ):
        console.expect(question, STEP_S)
        console.line(answer)
    console.expect(r"== Done ==", STEP_S)


def serial_login(checks, bed, console):
    """The password logs in on the serial console; a wrong one does not."""
    console.expect(r"login: ", STEP_S)
    console.line("root")
    console.expect(r"Password: ", STEP_S)
    console.line("not-the-password")
    console.expect(r"Login incorrect", STEP_S)
    console.expect(r"login: ", STEP_S)
    console.line("root")
    console.expect(r"Password: ", STEP_S)
    console.line(bed.password)
    console.expect(r"root@wizardbox:~# ", STEP_S)
    checks.check("the password logs in on the serial console, another does not", True)
    # The shell's echo has the command, its output has the sum.
    console.line("aos --version && echo sum $((40 + 2))")
    console.expect(r"sum 42", STEP_S)
    checks.check("aos is there", True)
    checks.check("neither secret was echoed", not any(secret in console.text for secret in (bed.password, bed.provider_key)))
    console.line("exit")


def settings(checks, guest):
    """What was answered is in force."""
    name = guest.run("cat /etc/hostname", check=False).stdout.strip()
    checks.check("the host name was set", name == "wizardbox", name)
    zone = guest.run("timedatectl show -P Timezone", check=False).stdout.strip()
    checks.check("the time zone was set", zone == "Europe/Berlin", zone)
    state = guest.run("systemctl is-system-running --wait", check=False).stdout.strip()
    checks.check("the machine is `running`", state == "running", guest.run("systemctl --failed --no-legend", check=False).stdout)
    keys = guest.run("stat -c '%a %U' /root/.ssh /root/.ssh/authorized_keys", check=False).stdout.split("\n")[:2]
    checks.check("the SSH key is root's alone", keys == ["700 root", "600 root"], keys)
    hosts = guest.run("ls /etc/ssh /usr/share/factory/etc/ssh", check=False).stdout
    checks.check("host keys are this machine's own", hosts.count("ssh_host_ed25519_key\n") == 1, hosts)


def screen_login(checks, bed, machine):
    """The other console: a PC keyboard and screen."""
    guest = machine.guest
    press(machine, "\n")
    if not checks.check("the screen shows a login prompt with the address", shows(guest, "login:", "10.0.2.15", "aos configure"), screen(guest)):
        return
    press(machine, "root\n")
    shows(guest, "Password:")
    press(machine, f"{bed.password}\n")
    checks.check("the password logs in with keyboard and screen", shows(guest, "root@wizardbox"), screen(guest))


def press(machine, text):
    """Type on the PC keyboard."""
    for letter in text:
        key = {"\n": "ret", "-": "minus"}.get(letter, letter)
        machine.qmp.command("send-key", keys=[{"type": "qcode", "data": key}])
        # QEMU's keyboard holds a key for 100 ms and queues few.
        time.sleep(0.25)


def screen(guest):
    """The text on the first virtual terminal."""
    return guest.run("fold -w $(stty size < /dev/tty1 | cut -d' ' -f2) /dev/vcs1", check=False).stdout


def shows(guest, *wanted):
    """Wait until the screen has all of these texts."""
    deadline = time.monotonic() + STEP_S
    while time.monotonic() < deadline:
        text = screen(guest)
        if all(word in text for word in wanted):
            return True
        time.sleep(2)
    return False


def password_nowhere(checks, bed, guest):
    """The password is in /etc/shadow as a hash only."""
    nowhere(checks, guest, "the password", bed.password)
    shadow = guest.run("grep ^root: /etc/shadow | cut -d: -f2", check=False).stdout
    checks.check("it is a hash in /etc/shadow", shadow.startswith("$"), shadow[:3])


def contains(path, needle):
    """Whether a file has these bytes."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(needle) >= 0
