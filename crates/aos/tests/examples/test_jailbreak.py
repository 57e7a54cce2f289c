"""jailbreak outside a sandbox: it must tell what is not stopped. The network is not touched."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ["EXAMPLES"]) / "jailbreak/src"
LOCAL = ("files", "programs", "processes")
NOBODY = 65534


def as_nobody(program):
    """Runs Python code beside a copy of the example, as an unprivileged user."""
    with tempfile.TemporaryDirectory() as top:
        home = pathlib.Path(top) / "home"
        home.mkdir()
        for file in SOURCE.glob("*.py"):
            (home / file.name).write_bytes(file.read_bytes())
        os.chmod(top, 0o755)
        identity = {}
        if os.getuid() == 0:
            os.chown(home, NOBODY, NOBODY)
            identity = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        # The interpreter of the system: another one may lie where nobody may look.
        return subprocess.run(
            ["/usr/bin/python3", "-B", "-c", program],
            env={"HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(home)},
            cwd=home,
            capture_output=True,
            text=True,
            timeout=120,
            **identity,
        )


class Jailbreak(unittest.TestCase):
    def test_outside_a_sandbox_it_gets_out_and_says_so(self):
        program = f"""
import sys, attempts, main
attempts.ATTEMPTS = [group for group in attempts.ATTEMPTS if group[0] in {LOCAL}]
sys.exit(main.main())
"""
        done = as_nobody(program)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertRegex(done.stdout, r"run a shell +NOT STOPPED")
        self.assertRegex(done.stdout, r"run a program from memory +NOT STOPPED")
        self.assertRegex(done.stdout, r"read the password hashes +EACCES")
        self.assertRegex(done.stdout, r"write and read its workspace +works")

    def test_an_unexpected_failure_is_not_a_success(self):
        program = """
import main
def broken(): raise ValueError("odd")
def other(): raise OSError(5, "I/O")
def killed():
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)
print(main.judge(broken, {"EPERM"})[0], main.judge(other, {"EPERM"})[0], main.judge(killed, {"EPERM"})[0])
print(main.judge(other, {"EIO"})[0], main.judge(killed, {"SIGKILL"})[0], main.judge(lambda: None, {"EPERM"})[0])
"""
        done = as_nobody(program)
        self.assertEqual(done.stdout, "unclear unclear unclear\nstopped stopped succeeded\n", done.stderr)

    @unittest.skipUnless(os.getuid() == 0, "root only")
    def test_root_outside_is_refused(self):
        done = subprocess.run([sys.executable, "-B", SOURCE / "main.py"], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 2)
        self.assertIn("aos run ./jailbreak", done.stdout)


if __name__ == "__main__":
    unittest.main()
