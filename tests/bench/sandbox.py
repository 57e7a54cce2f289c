"""The launcher as it is packaged, and plans for it, for the benchmarks that start agents.

`AOS_LAUNCH` names another launcher to measure.
"""

import json
import os
import shutil
import subprocess
import sys

REPOSITORY = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
# The first of the users that agents have here; nobody else's.
UID = 1879113725


def cargo(*words):
    subprocess.run(["cargo", *words], cwd=REPOSITORY, check=True)


def target():
    metadata = subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=REPOSITORY, check=True, capture_output=True
    )
    return os.path.join(json.loads(metadata.stdout)["target_directory"], "release")


class Sandbox:
    """The built programs, copied to `scratch`, a folder that every user may search."""

    def __init__(self, scratch):
        os.chmod(scratch, 0o755)
        self.scratch = scratch
        cargo("build", "--quiet", "--release", "-p", "aos-sandbox", "--examples")
        built = os.environ.get("AOS_LAUNCH")
        if not built:
            cargo(
                "rustc", "--quiet", "--release", "-p", "aos-sandbox", "--bin", "aos-launch", "--",
                "-C", "target-feature=+crt-static",
            )
            built = os.path.join(target(), "aos-launch")
        self.launcher = shutil.copy(built, os.path.join(scratch, "aos-launch"))
        self.rootfs = os.path.join(scratch, "rootfs")
        self.app = os.path.join(self.rootfs, "app")
        os.makedirs(self.app)

    def static(self, name, source):
        """A static C program in the package's `/app`."""
        program = os.path.join(self.app, name)
        words = ["cc", "-O2", "-static", "-x", "c", "-", "-o", program]
        subprocess.run(words, input=source.encode(), check=True)
        return program

    def workspace(self, name, uid=UID):
        path = os.path.join(self.scratch, name)
        os.mkdir(path)
        os.chown(path, uid, uid)
        return path

    def plan(self, entrypoint, workspace, capabilities=()):
        """The plan of an agent on the host's root, as the launcher reads it."""
        agent = {
            "capabilities": list(capabilities), "limits": {}, "name": "bench", "version": "1.0.0", "root": "host",
            "run": {"entrypoint": entrypoint, "lifecycle": "oneshot", "workdir": "/workspace"},
        }
        file = os.path.join(self.scratch, "agent.json")
        with open(file, "w") as out:
            json.dump(agent, out)
        words = [self.example("derive-plan"), file, "bench", self.rootfs, workspace]
        return json.loads(subprocess.run(words, check=True, capture_output=True).stdout)

    def write(self, plan, name):
        path = os.path.join(self.scratch, name)
        with open(path, "w") as out:
            json.dump(plan, out)
        return path

    def example(self, name):
        return os.path.join(target(), "examples", name)


def processors():
    load = os.getloadavg()[0]
    return f"load {load:.1f} on {os.cpu_count()} processors"


def need_root():
    if os.geteuid():
        sys.exit("as root: each agent gets a user of its own")
