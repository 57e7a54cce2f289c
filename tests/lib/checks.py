"""Counting checks: each prints one line, `ok ...` or `FAIL ...`; the end prints the count.

A section that raises is one failed check and does not keep the others from running.
"""

import time
import traceback


class Checks:
    """The checks of one run."""

    def __init__(self):
        self.passed = self.failed = 0
        self.started = time.monotonic()

    def check(self, name, good, detail=""):
        """Records one check; `detail` is shown when it failed."""
        if good:
            self.passed += 1
            print(f"ok   {name}", flush=True)
        else:
            self.failed += 1
            print(f"FAIL {name}", flush=True)
            for line in str(detail).rstrip().splitlines()[-40:]:
                print(f"       {line}", flush=True)
        return bool(good)

    def succeeds(self, name, result, *expected):
        """The command ended with 0 and its output has every expected text."""
        missing = [text for text in expected if text not in result.text]
        return self.check(name, result.code == 0 and not missing, self._detail(result, missing))

    def refused(self, name, result, *expected):
        """The command failed, not by a signal or a time-out (124), and said every expected text on stderr."""
        missing = [text for text in expected if text.lower() not in result.err.lower()]
        good = 0 < result.code < 126 and result.code != 124 and result.err.strip() and not missing
        return self.check(name, good, self._detail(result, missing))

    @staticmethod
    def _detail(result, missing):
        wanted = f"\nexpected but missing: {missing}" if missing else ""
        return f"exit status {result.code}\n{result.out}{result.err}{wanted}"

    def section(self, title, function, *arguments):
        """Runs one section."""
        print(f"-- {title} ({time.monotonic() - self.started:.0f} s)", flush=True)
        try:
            function(*arguments)
        except Exception:  # a broken test is a failed check, and its cause is shown
            self.check(f"{title}: ran to its end", False, traceback.format_exc())

    def close(self):
        """Prints the closing line; returns the exit status."""
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed or not self.passed else 0
