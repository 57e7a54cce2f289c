"""Tests of the program, run by the build."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from spell import unknown  # noqa: E402


class Unknown(unittest.TestCase):
    def test_each_unknown_word_once(self):
        self.assertEqual(unknown(["Teh", "fox,", "teh"], {"fox"}), ["teh"])


if __name__ == "__main__":
    unittest.main()
