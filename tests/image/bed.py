"""What the machines of the image tests share: the image, the accelerator, a key, secrets made for this run."""

import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

from aosimage import accel
from aosimage.places import Places
from aosimage.vm import Machine

AGENTS = Path(__file__).resolve().parent / "agents"


class Bed:
    """One run of the tests; its folder goes when it ends."""

    # Under emulation, beside other work; an event ends each wait, so generosity costs nothing.
    boot_s = 1200
    command_s = 600

    def __init__(self, root):
        self.places = Places(root, root / "image/out/debs")
        self.accel = accel.detect(self.places.kernel, self.places.cache / "accel")
        self.folder = Path(tempfile.mkdtemp(prefix="aos-image-test-"))
        self.key = self.folder / "id_ed25519"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tests/image", "-f", str(self.key)], check=True)
        # Found nowhere by chance; letters and digits, so that a keyboard types them.
        self.provider_key = f"sk-test-{secrets.token_hex(24)}"
        self.password = f"pw{secrets.token_hex(6)}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def public_key(self):
        """The line that authorizes the run's key."""
        return self.key.with_suffix(".pub").read_text().strip()

    def password_hash(self):
        """The password as a credential carries it."""
        hashed = subprocess.run(["openssl", "passwd", "-6", "-stdin"], input=self.password, capture_output=True, text=True, check=True)
        return hashed.stdout.strip()

    def machine(self, name, credentials, **how):
        """A machine of the built image, not yet started."""
        return Machine(self.places.disk, self.accel, self.places.logs, name=name, credentials=credentials, ssh_key=self.key, **how)


def push_agents(machine):
    """Copy the test agents into the machine, once."""
    if machine.guest.run("test -d /root/agents", check=False).returncode != 0:
        machine.guest.push(AGENTS, "/root/agents")


def shown(guest, unit, *properties):
    """Properties of a unit, by name."""
    output = guest.run(["systemctl", "show", unit, *(f"--property={name}" for name in properties)]).stdout
    return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)


def journal(guest, unit, *options):
    """The messages of a unit, nothing else."""
    return guest.run(["journalctl", "--no-pager", "-o", "cat", "-u", unit, *options]).stdout


def until(guest, command, timeout_s):
    """Wait inside the machine until a shell command succeeds; true when it did."""
    line = f"for i in $(seq {timeout_s}); do if {command}; then exit 0; fi; sleep 1; done; exit 1"
    return guest.run(line, check=False, timeout_s=timeout_s * 4 + 60).returncode == 0
