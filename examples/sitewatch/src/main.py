"""sitewatch: reports what changed in files and folders since its last run.

What it watches: the paths named as arguments, else those in watch.txt beside this file. It needs no model and no
network, and sees only what its Agentfile grants.

What it keeps, in its workspace:
    state.json      what every file looked like at the last run
    texts/          the texts at the last run, for showing differences, named by their SHA-256
    report.md       the report of the last run that found a difference, or of the first one

Exit status: 0 the report is up to date; 1 it could not do its work; 2 wrong arguments; 3 something changed, when
--exit-code is given.
"""

import argparse
import difflib
import hashlib
import json
import os
import stat
import sys
import time

STATE_VERSION = 1
MAX_FILES = 50_000
MAX_HASHED = 256 * 1024 * 1024  # a larger file is compared by size and time
MAX_TEXT = 256 * 1024  # a larger file is compared without a diff
MAX_LINES = 5_000  # difflib takes time with the square of it
MAX_DIFF = 200  # lines of one diff in the report
MAX_SHOWN = 40  # changes listed on standard output; the report has all of them


class Failure(Exception):
    """A reason to stop, for the operator."""


def main(argv):
    options = parse(argv)
    try:
        return watch(options)
    except Failure as failure:
        print(f"sitewatch: {failure}", file=sys.stderr)
        return 1


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="sitewatch", description="Report what changed in files and folders since the last run."
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="what to watch, in place of watch.txt")
    parser.add_argument("--exit-code", action="store_true", help="exit with 3 when something changed")
    parser.add_argument("--workspace", default="/workspace", help=argparse.SUPPRESS)
    parser.add_argument("--list", default=os.path.join(os.path.dirname(__file__), "watch.txt"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    for path in options.paths:
        if "://" in path:
            parser.error(f"{path}: pages need the network, which this version of AOS does not give to agents")
        if not os.path.isabs(path):
            parser.error(f"{path}: a path starts with /")
    return options


def watch(options):
    """Compares, reports, remembers; in this order, so that an interrupted run is simply repeated."""
    roots = sorted({os.path.normpath(path) for path in options.paths or read_list(options.list)})
    if not roots:
        raise Failure(f"there is nothing to watch: name paths as arguments or in {options.list}")
    workspace = options.workspace
    before = load_state(workspace)
    scan = Scan(roots)
    if scan.files and all(entry["kind"] in ("missing", "unreadable") for entry in scan.files.values()):
        for path, entry in scan.files.items():
            print(f"  {entry['kind']:<10}  {show(path)}  ({entry['why']})")
        raise Failure("nothing that it watches can be read: is it granted by file_read in the Agentfile?")
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    changes = compare(before, scan, workspace) if before else []
    if changes or not before:
        write_atomically(os.path.join(workspace, "report.md"), report(before, scan, changes, now).encode())
    summarise(before, scan, changes, workspace)
    save_state(workspace, scan, now)
    return 3 if changes and options.exit_code else 0


def read_list(path):
    try:
        with open(path, encoding="utf-8") as lines:
            paths = [line.strip() for line in lines]
    except OSError as error:
        raise Failure(f"cannot read the watch list {path}: {error.strerror}") from error
    paths = [path for path in paths if path and not path.startswith("#")]
    for line in paths:
        if not os.path.isabs(line):
            raise Failure(f"{path}: {line}: a path starts with /")
    return paths


class Scan:
    """What the watched files look like now. `texts` has the contents that a diff may need later."""

    def __init__(self, roots):
        self.roots = roots
        self.files = {}
        self.texts = {}
        for root in roots:
            self._root(root)

    def _root(self, root):
        # Only the path that somebody named may be a link; links below it are compared, not followed.
        real = os.path.realpath(root)
        if not os.path.lexists(real):
            self._add(root, {"kind": "missing", "why": "it does not exist, or is not granted"})
        else:
            self._entry(root, real)

    def _entry(self, name, path):
        try:
            found = os.lstat(path)
            if stat.S_ISDIR(found.st_mode):
                self._folder(name, path)
            elif stat.S_ISLNK(found.st_mode):
                self._add(name, {"kind": "link", "target": os.readlink(path)})
            elif stat.S_ISREG(found.st_mode):
                self._file(name, path, found)
            else:
                self._add(name, {"kind": "special"})
        except OSError as error:
            self._add(name, {"kind": "unreadable", "why": error.strerror or str(error)})

    def _folder(self, name, path):
        for child in sorted(os.listdir(path)):
            self._entry(os.path.join(name, child), os.path.join(path, child))

    def _file(self, name, path, found):
        entry = {"kind": "file", "size": found.st_size, "mode": stat.S_IMODE(found.st_mode)}
        if found.st_size > MAX_HASHED:
            entry["mtime"] = found.st_mtime_ns
        else:
            contents = self._hash(path, entry)
            if is_text(contents):
                self.texts[entry["sha256"]] = contents
        self._add(name, entry)

    def _hash(self, path, entry):
        """Fills in the digest and the size that was read; returns the contents if they are short."""
        digest, size, head = hashlib.sha256(), 0, b""
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
                if len(head) <= MAX_TEXT:
                    head += block
                if size > 2 * MAX_HASHED:
                    raise OSError(0, "it grows while it is read")
        entry.update(size=size, sha256=digest.hexdigest())
        return head if size <= MAX_TEXT else None

    def _add(self, name, entry):
        if len(self.files) >= MAX_FILES:
            raise Failure(f"there are more than {MAX_FILES} files to watch: name fewer")
        self.files[name] = entry

    def count(self, kind):
        return sum(entry["kind"] == kind for entry in self.files.values())


def is_text(contents):
    if contents is None or b"\0" in contents:
        return False
    try:
        contents.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def compare(before, scan, workspace):
    """The changes, in the order of the paths. What was not watched before is no change."""
    old, new = before["files"], scan.files
    changes = []
    for path in sorted(old.keys() | new.keys()):
        then, now = old.get(path), new.get(path)
        if then == now:
            continue
        if then is None:
            if not is_below(path, before["roots"]):
                continue
            changes.append({"what": "added", "path": path, "detail": describe(now)})
        elif now is None:
            if not is_below(path, scan.roots):
                continue
            changes.append({"what": "removed", "path": path, "detail": describe(then)})
        else:
            changes.append({"what": "changed", "path": path, **difference(then, now, scan, workspace)})
    return changes


def is_below(path, roots):
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)


def describe(entry):
    if entry["kind"] == "file":
        return f"{entry['size']} bytes"
    if entry["kind"] == "link":
        return f"link to {show(entry['target'])}"
    return entry.get("why", "special file")


def difference(then, now, scan, workspace):
    """What differs in two states of one path: a sentence, and a diff where both are known texts."""
    if then["kind"] != now["kind"] or now["kind"] != "file":
        return {"detail": f"{then['kind']}, {describe(then)} -> {now['kind']}, {describe(now)}"}
    facts = []
    if then["mode"] != now["mode"]:
        facts.append(f"mode {then['mode']:04o} -> {now['mode']:04o}")
    if then.get("sha256") == now.get("sha256") and "sha256" in now:
        return {"detail": ", ".join(facts)}
    diff = text_diff(load_text(workspace, then.get("sha256")), scan.texts.get(now.get("sha256")))
    if diff is None:
        facts.append(f"{then['size']} -> {now['size']} bytes")
        facts.append(f"sha256 {short(then)} -> {short(now)}")
        return {"detail": ", ".join(facts)}
    plus = sum(line.startswith("+") for line in diff[2:])
    minus = sum(line.startswith("-") for line in diff[2:])
    facts.insert(0, f"+{plus} -{minus} lines")
    return {"detail": ", ".join(facts), "diff": diff}


def short(entry):
    return entry.get("sha256", "unknown")[:12]


def text_diff(then, now):
    """The unified diff as lines, or None when there is none to show."""
    if then is None or now is None:
        return None
    old, new = then.decode("utf-8").split("\n"), now.decode("utf-8").split("\n")
    if max(len(old), len(new)) > MAX_LINES:
        return None
    lines = list(difflib.unified_diff(old, new, "before", "after", lineterm=""))
    return lines or None


def report(before, scan, changes, now):
    lines = ["# sitewatch", "", f"Run at {now}. Watching {', '.join(code(root) for root in scan.roots)}.", ""]
    if not before:
        lines += [f"First run: a baseline of {len(scan.files)} files. The next run reports what changed since.", ""]
    else:
        lines += [f"{plural(len(changes), 'change')} since {before['time']}.", ""]
    for change in changes:
        lines += [f"## {change['what']}: {code(change['path'])}", "", change["detail"], ""]
        if "diff" in change:
            lines += fenced(change["diff"]) + [""]
    problems = [(path, entry) for path, entry in scan.files.items() if entry["kind"] in ("unreadable", "missing")]
    if problems:
        lines += ["## Could not be read", ""]
        lines += [f"- {code(path)}: {entry['why']}" for path, entry in problems] + [""]
    return "\n".join(lines)


def fenced(diff):
    shown = [show(line, keep_tabs=True) for line in diff[:MAX_DIFF]]
    if len(diff) > MAX_DIFF:
        shown.append(f"... and {len(diff) - MAX_DIFF} lines more")
    longest = max((len(run) for line in shown for run in backtick_runs(line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence + "diff", *shown, fence]


def backtick_runs(line):
    run = ""
    for character in line + " ":
        if character == "`":
            run += character
        elif run:
            yield run
            run = ""


def code(path):
    """A path as code in Markdown, whatever its characters."""
    text = show(path)
    fence = "`" * (max((len(run) for run in backtick_runs(text)), default=0) + 1)
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def show(text, keep_tabs=False):
    """Text without control characters and undecodable bytes: a file's name must not write to the terminal."""
    kept = []
    for character in text:
        printable = character.isprintable() or (keep_tabs and character == "\t")
        kept.append(character if printable else ascii(character)[1:-1])
    return "".join(kept)


def plural(count, word):
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def summarise(before, scan, changes, workspace):
    total = sum(entry.get("size", 0) for entry in scan.files.values())
    print(f"sitewatch: {', '.join(show(root) for root in scan.roots)}: {plural(len(scan.files), 'file')}, {total} bytes")
    for change in changes[:MAX_SHOWN]:
        print(f"  {change['what']:<8}  {show(change['path'])}  ({change['detail']})")
    if len(changes) > MAX_SHOWN:
        print(f"  ... and {len(changes) - MAX_SHOWN} more, all in the report")
    for kind, words in (("unreadable", "could not be read"), ("missing", "not there, or not granted")):
        if count := scan.count(kind):
            first = next(path for path, entry in scan.files.items() if entry["kind"] == kind)
            others = f" and {count - 1} more" if count > 1 else ""
            print(f"  {words}: {show(first)}{others}")
    path = os.path.join(workspace, "report.md")
    if not before:
        print("first run: a baseline is recorded; the next run reports what changed")
    elif changes:
        print(f"{plural(len(changes), 'change')} since {before['time']}; report: {path}")
    else:
        print(f"no change since {before['time']}")


def load_state(workspace):
    """What the last run saw; None at the first run."""
    path = os.path.join(workspace, "state.json")
    advice = f"remove {path} to begin with a new baseline"
    try:
        with open(path, encoding="ascii") as file:
            state = json.load(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise Failure(f"{path} is damaged ({error}); {advice}") from error
    if not isinstance(state, dict) or state.get("version") != STATE_VERSION:
        raise Failure(f"{path} was written by another version of sitewatch; {advice}")
    return state


def save_state(workspace, scan, now):
    """Texts first, then the state that refers to them, then what nothing refers to is removed."""
    folder = os.path.join(workspace, "texts")
    try:
        os.makedirs(folder, exist_ok=True)
        kept = set(os.listdir(folder))
        for name, contents in scan.texts.items():
            if name not in kept:
                write_atomically(os.path.join(folder, name), contents)
        state = {"version": STATE_VERSION, "time": now, "roots": scan.roots, "files": scan.files}
        write_atomically(os.path.join(workspace, "state.json"), json.dumps(state, indent=1).encode("ascii"))
        for name in kept - scan.texts.keys():
            os.unlink(os.path.join(folder, name))
    except OSError as error:
        raise Failure(f"cannot write {error.filename or workspace}: {error.strerror}") from error


def load_text(workspace, digest):
    """A text of the last run, or None; a damaged one is none."""
    if not digest:
        return None
    try:
        with open(os.path.join(workspace, "texts", digest), "rb") as file:
            contents = file.read(MAX_TEXT + 1)
    except OSError:
        return None
    return contents if hashlib.sha256(contents).hexdigest() == digest else None


def write_atomically(path, contents):
    temporary = f"{path}.new"
    try:
        with open(temporary, "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise Failure(f"cannot write {path}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
