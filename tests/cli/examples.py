"""The examples build, the same twice, and what depends on what works."""

import shutil
from pathlib import Path

from bench import Bench

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def section(checks, place, aos):
    ours = Bench(place, aos)
    # A copy: the lock is written beside the Agentfile.
    copied = ours.place / "examples"
    shutil.copytree(EXAMPLES, copied)
    # A skill before the agent that needs it.
    for name in ("sitewatch", "jailbreak", "spell", "plain-reports", "briefing"):
        built = ours.run("build", copied / name, "--check-reproducible", "--json")
        checks.check(f"{name} builds, and is reproducible", built.code == 0 and built.json["reproducible"], built.text)
    ours.run("unpack", "briefing", ours.place / "briefing")
    template = ours.place / "briefing/app/skills/plain-reports/template.txt"
    checks.check("briefing carries the skill's files", template.is_file())
    ours.run("unpack", "spell", ours.place / "spell")
    words = ours.place / "spell/app/words.txt"
    checks.check("spell carries its list, without short words", words.is_file() and words.read_text().split()[0] == "brown", words.is_file() and words.read_text())
    checks.check("and neither its tests nor what they need", not (ours.place / "spell/app/test_spell.py").exists())
    (copied / "spell/tests/test_spell.py").write_text("import unittest\n\n\nclass No(unittest.TestCase):\n    def test_no(self):\n        self.fail()\n")
    failed = ours.run("build", copied / "spell")
    checks.check("a program that fails its tests is no package", failed.code == 1 and "unittest" in failed.err, failed.text)
