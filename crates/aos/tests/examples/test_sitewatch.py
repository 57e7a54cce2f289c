"""sitewatch on folders that are made for the test."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

MAIN = pathlib.Path(os.environ["EXAMPLES"]) / "sitewatch/src/main.py"


class Sitewatch(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        top = pathlib.Path(folder.name)
        self.workspace, self.data = top / "workspace", top / "data"
        self.workspace.mkdir()
        self.data.mkdir()

    def run_it(self, *arguments, status=0):
        command = [sys.executable, "-B", MAIN, "--workspace", self.workspace, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def report(self):
        return (self.workspace / "report.md").read_text()

    def test_first_run_records_a_baseline(self):
        (self.data / "a").write_text("1\n")
        said = self.run_it(self.data)
        self.assertIn("first run: a baseline is recorded", said)
        self.assertIn("First run", self.report())
        self.assertIn("no change since", self.run_it(self.data, "--exit-code"))

    def test_what_changes_is_reported(self):
        for name in ("stays", "changes", "goes", "binary"):
            (self.data / name).write_text(f"{name}\nline\n")
        self.run_it(self.data)
        (self.data / "changes").write_text("changes\nother line\n")
        (self.data / "binary").write_bytes(b"\0\1\2")
        (self.data / "goes").unlink()
        (self.data / "new").write_text("")
        os.chmod(self.data / "stays", 0o600)
        said = self.run_it(self.data, "--exit-code", status=3)
        self.assertIn("+1 -1 lines", said)
        self.assertRegex(said, r"removed +\S+/goes")
        self.assertRegex(said, r"added +\S+/new")
        self.assertRegex(said, r"changed +\S+/binary +\(12 -> 3 bytes, sha256 ")
        self.assertRegex(said, r"changed +\S+/stays +\(mode 0644 -> 0600\)")
        self.assertIn("5 changes since", said)
        self.assertIn("-line\n+other line", self.report())
        self.assertIn("no change", self.run_it(self.data))
        self.assertIn("-line\n+other line", self.report(), "the last difference stays in the report")

    def test_a_diff_of_a_file_without_an_end_of_line(self):
        (self.data / "a").write_text("one")
        self.run_it(self.data)
        (self.data / "a").write_text("one\n")
        self.assertIn("changed", self.run_it(self.data))

    def test_links_are_compared_and_not_followed(self):
        (self.data / "link").symlink_to("/etc/hostname")
        (self.data / "loop").symlink_to(self.data)
        self.run_it(self.data)
        state = json.loads((self.workspace / "state.json").read_text())
        self.assertEqual(len(state["files"]), 2)
        (self.data / "link").unlink()
        (self.data / "link").symlink_to("/etc/shadow")
        self.assertIn("link to /etc/hostname -> link, link to /etc/shadow", self.run_it(self.data))

    def test_names_cannot_write_to_the_terminal(self):
        self.run_it(self.data)
        (self.data / "a\n\x1b[2Jb").write_text("x")
        pathlib.Path(os.fsdecode(os.fsencode(self.data) + b"/\xff")).write_text("y")
        (self.data / "``` tick").write_text("z")
        said = self.run_it(self.data)
        self.assertIn("3 changes", said)
        self.assertNotIn("\x1b", said)
        self.assertNotIn("\x1b", self.report())
        self.assertIn("no change", self.run_it(self.data))

    @unittest.skipIf(os.getuid() == 0 and not hasattr(os, "setresuid"), "root reads everything")
    def test_what_cannot_be_read_is_reported(self):
        (self.data / "open").write_text("x")
        os.mkfifo(self.data / "fifo")
        said = self.run_it(self.data, "/nonexistent/folder")
        self.assertIn("not there, or not granted: /nonexistent/folder", said)
        self.assertIn("## Could not be read", self.report())

    def test_nothing_to_read_is_a_failure(self):
        said = self.run_it("/nonexistent/folder", status=1)
        self.assertIn("nothing that it watches can be read", said)
        self.assertFalse((self.workspace / "state.json").exists())

    def test_a_new_path_is_no_change(self):
        (self.data / "a").write_text("1")
        other = self.data.parent / "other"
        other.mkdir()
        (other / "b").write_text("2")
        self.run_it(self.data)
        self.assertIn("no change", self.run_it(self.data, other))
        self.assertIn("no change", self.run_it(other))

    def test_damaged_state_is_not_overwritten(self):
        (self.workspace / "state.json").write_text("{")
        said = self.run_it(self.data, status=1)
        self.assertIn("damaged", said)
        self.assertEqual((self.workspace / "state.json").read_text(), "{")
        (self.workspace / "state.json").write_text('{"version": 99}')
        self.assertIn("another version", self.run_it(self.data, status=1))

    def test_a_workspace_that_cannot_be_written(self):
        (self.workspace / "texts").write_text("in the way")
        (self.data / "a").write_text("1")
        self.assertIn("cannot write", self.run_it(self.data, status=1))

    def test_wrong_arguments(self):
        self.assertIn("pages need the network", self.run_it("https://example.org/", status=2))
        self.assertIn("a path starts with /", self.run_it("relative", status=2))

    def test_texts_that_nothing_refers_to_are_removed(self):
        (self.data / "a").write_text("1")
        self.run_it(self.data)
        (self.data / "a").write_text("2")
        self.run_it(self.data)
        self.assertEqual(len(list((self.workspace / "texts").iterdir())), 1)

    def test_its_own_watch_list_is_granted(self):
        text = (MAIN.parent / "watch.txt").read_text()
        paths = [line for line in text.splitlines() if line and not line.startswith("#")]
        agentfile = (MAIN.parent.parent / "Agentfile.yaml").read_text()
        for path in paths:
            self.assertIn(f'"file_read: {path}/**"', agentfile)


if __name__ == "__main__":
    unittest.main()
