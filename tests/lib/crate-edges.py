#!/usr/bin/env python3
"""Checks the workspace against crate-edges.toml.

Input: `cargo metadata` (all features, locked) and the crates' manifests and sources.
Output: one line per violation on stderr and exit status 1; else one line of counts.
Dependencies of kind `dev` are not counted: tests may use what the code may not.

    tests/lib/crate-edges.py [--root DIR]
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

# Addresses are data; these are the network.
SOCKETS = re.compile(r"\b(TcpStream|TcpListener|UdpSocket|ToSocketAddrs)\b")
POLICY_KEYS = {"uses", "reaches", "unsafe", "std_denied"}


def metadata(root):
    """The workspace as cargo resolves it."""
    out = subprocess.run(
        ["cargo", "metadata", "--format-version=1", "--locked", "--all-features"],
        cwd=root, check=True, stdout=subprocess.PIPE,
    ).stdout
    return json.loads(out)


def shipped_dependencies(meta):
    """Package id -> ids of its normal and build dependencies."""
    graph = {}
    for node in meta["resolve"]["nodes"]:
        graph[node["id"]] = [
            dep["pkg"] for dep in node["deps"]
            if any(kind["kind"] != "dev" for kind in dep["dep_kinds"])
        ]
    return graph


def path_to(graph, start, goal_ids):
    """A shortest chain of ids from start to one of goal_ids, or None."""
    chains, seen = [[start]], {start}
    for chain in chains:
        if chain[-1] in goal_ids:
            return chain
        for following in graph.get(chain[-1], []):
            if following not in seen:
                seen.add(following)
                chains.append(chain + [following])
    return None


def shipped_lines(text):
    """(number, line) of what ships: comments and a trailing test module are left out."""
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*#\[cfg\((all\()?test\b", line):
            return
        yield number, line.split("//", 1)[0]


def std_violations(source, denied):
    """(line, module) for each denied module of std that a source file names."""
    text = source.read_text(encoding="utf-8")
    for number, line in shipped_lines(text):
        named = set(re.findall(r"\bstd::([a-z_]+)\b", line))
        for group in re.findall(r"\bstd::\{(.*)", line):
            named |= {part.strip().split("::")[0] for part in group.strip("};").split(",")}
        for module in sorted(named & set(denied)):
            if module != "net" or SOCKETS.search(text):
                yield number, module


def check_crate(name, package, policy, meta, graph, names, authorities, root):
    """Violations of one crate of ours."""
    ours = set(meta["workspace_members"])
    unknown = set(policy) - POLICY_KEYS
    if unknown:
        yield f"crate-edges.toml: [crate.{name}]: unknown key {', '.join(sorted(unknown))}"

    for used in graph[package["id"]]:
        if used in ours and names[used] not in policy.get("uses", []):
            yield f"{name} -> {names[used]}: not an allowed edge"

    for authority, carriers in authorities.items():
        if authority in policy.get("reaches", []):
            continue
        goals = {key for key, value in names.items() if value in carriers}
        chain = path_to(graph, package["id"], goals)
        if chain:
            yield f"{name} may not reach {authority}: " + " -> ".join(names[step] for step in chain)

    manifest_path = Path(package["manifest_path"])
    lints = tomllib.loads(manifest_path.read_text(encoding="utf-8")).get("lints", {})
    if not lints.get("workspace") and not policy.get("unsafe"):
        yield f"{name}: [lints] must be `workspace = true` (unsafe_code is forbidden there)"

    test_only = {p for p in manifest_path.parent.rglob("*.rs") if "tests" in p.parts or p.stem == "tests"}
    for source in sorted((manifest_path.parent / "src").rglob("*.rs")):
        if source in test_only:
            continue
        for number, module in std_violations(source, policy.get("std_denied", [])):
            yield f"{source.relative_to(root)}:{number}: {name} may not use std::{module}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2])
    root = parser.parse_args().root
    policy = tomllib.loads((root / "crate-edges.toml").read_text(encoding="utf-8"))
    meta = metadata(root)
    graph = shipped_dependencies(meta)
    names = {package["id"]: package["name"] for package in meta["packages"]}
    members = {names[key]: key for key in meta["workspace_members"]}
    packages = {package["id"]: package for package in meta["packages"]}

    problems = [f"{name}: not listed in crate-edges.toml" for name in members if name not in policy["crate"]]
    problems += [f"crate-edges.toml: [crate.{name}] is no crate here" for name in policy["crate"] if name not in members]
    edges = 0
    for name, key in sorted(members.items()):
        if name in policy["crate"]:
            edges += sum(1 for used in graph[key] if used in set(meta["workspace_members"]))
            problems += check_crate(
                name, packages[key], policy["crate"][name], meta, graph, names, policy["authority"], root
            )
    for problem in problems:
        print(f"crate-edges: {problem}", file=sys.stderr)
    print(f"crate-edges: {len(members)} crates, {edges} edges, {len(problems)} violations")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
