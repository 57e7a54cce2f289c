#!/usr/bin/env python3
"""Draws a console transcript as an SVG picture.

    docs/images/render.py docs/images/console.txt > docs/images/console.svg

The transcript is text as it was captured on the booted image, with lines and columns left out to fit; lines that start with `$ ` or `# ` are drawn as what a
person typed, and a few words are coloured. Nothing else is changed.
"""
import html
import re
import sys

CHAR_WIDTH, LINE_HEIGHT, MARGIN, BAR = 8.4, 19, 18, 34
BACKGROUND, FOREGROUND, TYPED, DIM = "#11151c", "#d7dde6", "#ffffff", "#7d8796"
WORDS = [
    (re.compile(r"\b(ok|yes|in force|running|active \(running\)|refused|stopped it|enforced)\b"), "#7ee0a1"),
    (re.compile(r"\b(failed|FAIL|escaped)\b"), "#ff8080"),
    (re.compile(r"\baos-agent@[a-z0-9-]+(?:\.service)?"), "#8ec7ff"),
]


def spans(line: str) -> str:
    """One line as tspans: prompts bright, table rules dim, known words coloured."""
    if line.startswith(("$ ", "# ")):
        return f'<tspan fill="{DIM}">{html.escape(line[:2])}</tspan><tspan fill="{TYPED}" font-weight="bold">{html.escape(line[2:])}</tspan>'
    hits = sorted((m.start(), m.end(), colour) for rule, colour in WORDS for m in rule.finditer(line))
    out, at = [], 0
    for start, end, colour in hits:
        if start < at:
            continue
        out.append(html.escape(line[at:start]))
        out.append(f'<tspan fill="{colour}">{html.escape(line[start:end])}</tspan>')
        at = end
    out.append(html.escape(line[at:]))
    return "".join(out)


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        lines = file.read().rstrip("\n").split("\n")
    width = max(len(line) for line in lines) * CHAR_WIDTH + 2 * MARGIN
    height = len(lines) * LINE_HEIGHT + BAR + 2 * MARGIN
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img" aria-label="console">')
    print(f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>')
    for index, colour in enumerate(("#ff5f57", "#febc2e", "#28c840")):
        print(f'<circle cx="{MARGIN + 6 + index * 20}" cy="20" r="6" fill="{colour}"/>')
    print('<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14" xml:space="preserve">')
    for index, line in enumerate(lines):
        y = BAR + MARGIN + index * LINE_HEIGHT
        print(f'<text x="{MARGIN}" y="{y}" fill="{FOREGROUND}">{spans(line)}</text>')
    print("</g></svg>")


if __name__ == "__main__":
    main()
