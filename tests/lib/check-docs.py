#!/usr/bin/env python3
"""Checks what is written beside the code.

- every relative link and anchor in a Markdown page leads to a file and a heading;
- every Rust source opens with `//!` and has at most 600 lines;
- no file names the folder in which it happens to be checked out.

Each finding is a line `FAIL file:line: ...`; the last line is "N passed, N failed", counting files.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 600
LINK = re.compile(r"(?<!\\)!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$")


def project_files():
    """Tracked files, and new ones that git does not ignore."""
    out = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, stdout=subprocess.PIPE,
    ).stdout.decode()
    return [ROOT / name for name in sorted(set(out.split("\0"))) if name and (ROOT / name).is_file()]


def prose(text):
    """(number, line) outside of fenced code."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("    "):
            yield number, re.sub(r"`[^`]*`", "", line)


def anchors(page):
    """The fragment ids that a forge gives a page's headings."""
    found = set()
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        match = None if fenced else HEADING.match(line)
        if match:
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match[1]).lower()
            found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


def markdown_problems(page, text):
    """Links of one page that lead nowhere."""
    for number, line in prose(text):
        for target in LINK.findall(line):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, fragment = target.partition("#")
            goal = (page.parent / path).resolve() if path else page
            if not goal.exists():
                yield f"{number}: link to {target}: no such file"
            elif fragment and goal.suffix == ".md" and fragment not in anchors(goal):
                yield f"{number}: link to {target}: no such heading"


def rust_problems(text):
    """What the house style asks of every Rust file."""
    lines = text.splitlines()
    first = next((line for line in lines if line.strip() and not line.startswith("#!")), "")
    if not first.startswith("//!"):
        yield "1: opens without a //! header"
    if len(lines) > MAX_LINES:
        yield f"{MAX_LINES + 1}: has {len(lines)} lines, more than {MAX_LINES}"


def problems(file):
    """Every finding in one file, or None for a file that is not text."""
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None
    found = []
    if file.suffix == ".md":
        found += markdown_problems(file, text)
    if file.suffix == ".rs":
        found += rust_problems(text)
    for number, line in enumerate(text.splitlines(), 1):
        if f"{ROOT}/" in line:
            found.append(f"{number}: names the checkout's folder {ROOT}")
    return found


def main():
    passed = failed = 0
    for file in project_files():
        found = problems(file)
        if found is None:
            continue
        for problem in found:
            print(f"FAIL {file.relative_to(ROOT)}:{problem}")
        passed, failed = (passed, failed + 1) if found else (passed + 1, failed)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
