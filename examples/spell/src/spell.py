#!/usr/bin/python3
"""Reports the words among its arguments that are not in the list beside it."""

import sys
from pathlib import Path


def unknown(words, known):
    """The words that are not known, each once, in their order."""
    found = []
    for word in (word.strip(".,;:!?").lower() for word in words):
        if word and word not in known and word not in found:
            found.append(word)
    return found


def main():
    known = set((Path(__file__).parent / "words.txt").read_text(encoding="utf-8").split())
    wrong = unknown(sys.argv[1:], known)
    for word in wrong:
        print(word)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
