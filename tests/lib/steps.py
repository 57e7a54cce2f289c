"""The steps of tests/run, in the order in which they run: cheap and telling ones first.

What compiles shares one target directory: clippy and the tests use the development profile,
the packages and all that boots use the release profile, each compiled once.
"""

from dataclasses import dataclass, field

# Cargo tools and the version of each that is installed when there is none.
TOOLS = {"cargo-nextest": "0.9.151", "cargo-deny": "0.20.2"}

C_COMPILER = ["gcc", "libc6-dev", "pkg-config"]
DEB_TOOLS = ["build-essential", "debhelper", "dpkg-dev", "fakeroot"]
MACHINE = ["mmdebstrap", "systemd-container", "util-linux", "debian-archive-keyring"]


@dataclass
class Step:
    """One line of the summary."""

    name: str
    what: str
    command: list
    # Generous: CI may be several times slower than a quiet machine.
    timeout_s: int
    # Names of earlier steps without whose success this one cannot run.
    requires: list = field(default_factory=list)
    # Left out by --quick.
    boots: bool = False
    # Only with --all, or by name.
    long: bool = False
    # Debian packages and cargo tools it needs.
    apt: list = field(default_factory=list)
    cargo: list = field(default_factory=list)
    env: dict = field(default_factory=dict)


def bash(script):
    """A command that stops at its first failure."""
    return ["bash", "-euo", "pipefail", "-c", script]


STEPS = [
    Step("fmt", "every crate is formatted", ["cargo", "fmt", "--all", "--check"], 120),
    Step("scripts", "shell and Python files parse and pass shellcheck", ["tests/lib/check-scripts"], 120,
         apt=["shellcheck"]),
    Step("edges", "crates use only what crate-edges.toml allows", ["tests/lib/crate-edges.py"], 300),
    Step("docs", "links lead somewhere, sources say what they own", ["tests/lib/check-docs.py"], 120),
    Step("deny", "licences, duplicates, sources and advisories of dependencies", ["tests/lib/check-deny"], 300,
         cargo=["cargo-deny"]),
    Step("clippy", "no lint in any target",
         ["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"], 1500, apt=C_COMPILER),
    # A workspace of its own, with flags of its own when it runs: here it only has to compile, with stable.
    Step("fuzz", "the fuzz targets compile",
         ["cargo", "check", "--manifest-path", "fuzz/Cargo.toml", "--locked"], 900, apt=C_COMPILER + ["g++"],
         env={"CARGO_TARGET_DIR": "target/fuzz"}),
    Step("unit", "unit and property tests",
         # Also those that need root, other programs or a Debian mirror. Left out: processes that other tests start,
         # and the one that needs pypi.org.
         bash("AOS_TEST_MIRROR=$(tests/lib/debian-mirror | awk 'NR == 1 { print $2 }'); export AOS_TEST_MIRROR;"
              # Tests start programs of other crates; nextest makes only those of crates with tests of their own.
              " cargo build --workspace --locked --quiet --bins --examples --tests;"
              " cargo nextest run --workspace --locked --no-fail-fast --run-ignored all"
              " -E 'not test(/^(importer|starved|builder|pip_installs_through_the_proxy)$/)'"
              " && cargo test --workspace --locked --doc"), 1800,
         apt=C_COMPILER + ["skopeo", "umoci", "mmdebstrap", "busybox-static", "git"], cargo=["cargo-nextest"]),
    Step("release", "the release build", ["debian/rules", "programs"], 1800, apt=C_COMPILER + DEB_TOOLS),
    # The same units as nextest's, so that nothing is compiled again.
    Step("escape", "the escape corpus against the launcher that is shipped",
         bash("cargo test --workspace --locked --no-run --quiet; AOS_LAUNCH=$PWD/target/release/aos-launch target/debug/escape"),
         1800, requires=["release"]),
    Step("isolation", "every isolation backend keeps the contract",
         bash("cargo test --workspace --locked --no-run --quiet; tests/isolation/run"), 3000, requires=["release"],
         apt=C_COMPILER + ["crun", "runc", "qemu-system-x86", "git", "debian-archive-keyring"], cargo=["cargo-nextest"]),
    # Emulated, it takes some minutes for what the others do in seconds.
    Step("isolation-vm", "nothing of the escape corpus escapes from a virtual machine", ["tests/isolation/run", "--corpus", "vm"],
         1800, requires=["isolation"], long=True),
    Step("soak", "the store after workers are killed at random moments",
         bash("cargo test --workspace --locked --no-run --quiet; target/debug/examples/store-soak --kills 500"),
         600, apt=C_COMPILER),
    Step("soak-long", "the same, 2,000 times", ["target/debug/examples/store-soak", "--kills", "2000"],
         3600, requires=["soak"], long=True),
    Step("trust", "keys, signatures and decisions beside openssl and cosign", ["tests/trust/run"], 600,
         apt=C_COMPILER + ["openssl"]),
    Step("registry", "push, pull and faults with docker-registry, skopeo and umoci",
         bash("cargo test --workspace --locked --no-run --quiet; tests/registry/run --program target/debug/examples/registry"), 900,
         apt=C_COMPILER + ["docker-registry", "skopeo", "umoci", "apache2-utils", "openssl", "time"]),
    Step("cli", "packages on the command line, from build to gc", ["tests/cli/run", "--aos", "target/release/aos"], 900,
         requires=["release"], apt=["docker-registry", "skopeo", "umoci", "mmdebstrap", "openssl"]),
    Step("debs", "the Debian packages", ["tests/lib/build-debs"], 600, requires=["release"], apt=DEB_TOOLS),
    Step("lintian", "the packages follow Debian policy", ["tests/lib/check-lintian"], 300, requires=["debs"],
         apt=["lintian"]),
    Step("deb", "install, use, upgrade, remove, purge in a clean Debian 13",
         bash("cargo test --workspace --locked --no-run --quiet; tests/deb/run"), 1800, requires=["debs"], boots=True, apt=MACHINE),
    Step("image", "the appliance image, booted in QEMU", ["tests/image/run", "--debs", "target/debs"], 2700,
         requires=["debs"], boots=True),
    Step("stock", "a stock Debian 13 in QEMU: controllers, quotas, a full disk, the escape corpus on its kernel", ["tests/vm/run"], 3600,
         requires=["debs", "unit"], boots=True, long=True, apt=["mmdebstrap", "qemu-system-x86", "qemu-utils", "openssh-client"]),
    Step("debian13", "the packages build on Debian 13 with Debian's toolchain", ["tests/deb/build-on-debian13"], 3600,
         long=True, apt=["mmdebstrap", "util-linux", "debian-archive-keyring"]),
]
