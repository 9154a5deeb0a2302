"""What the house tests read of the documents: commands, code, headings, links, tables."""

from __future__ import annotations

import re
from pathlib import Path

from house_files import REPOSITORY

ENGLISH = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
VIETNAMESE = REPOSITORY / "README.vi.md"
DOCUMENTS = [*ENGLISH, VIETNAMESE]
# A line of a block is a command when it begins like one; others are what a command prints.
COMMANDS = ("make", "ansible-playbook", "ssh", "psql", "pytest", "terraform", "kafka-topics", "tools/compare", "export")


def blocks(text: str) -> tuple[list[str], str]:
    """Return the lines of fenced and indented blocks, and the text without them."""
    lines: list[str] = []
    rest: list[str] = []
    fenced, indented, before = False, False, ""
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
            rest.append("")
        elif fenced:
            lines.append(line)
        elif line.startswith("    ") and (indented or not before.strip()):
            indented = True
            lines.append(line)
            continue
        else:
            rest.append(line)
        indented = indented and not line.strip()
        before = line
    return lines, "\n".join(rest)


def command(line: str) -> str:
    """Return a line of a block without its remark, or what is printed beside it."""
    return re.split(r" {2,}|\s# ", line.strip())[0]


def code(path: Path) -> list[str]:
    """Return the commands of a document's blocks, and what it sets in `code` between other words."""
    lines, rest = blocks(path.read_text())
    found = [command(line) for line in lines if re.match(rf"\s+(?:[A-Z_]+=\S+ )*(?:{'|'.join(COMMANDS)})\b", line)]
    for paragraph in re.split(r"\n\s*\n|\n(?=[-|#] ?)", rest):
        found += [re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", paragraph)]
    # A table's cell has no bare bar.
    return [span.replace("\\|", "|").strip() for span in found]


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings."""
    return {slug(heading) for heading in re.findall(r"^#{1,6} (.+)$", path.read_text(), re.MULTILINE)}


def section(path: Path, heading: str) -> str:
    """Return the text below a heading, down to the next one of its level or above; empty where there is none."""
    found = re.search(rf"^(#+) {re.escape(heading)}\n", path.read_text(), re.MULTILINE)
    if found is None:
        return ""
    return re.split(rf"^#{{1,{len(found[1])}}} ", path.read_text()[found.end() :], flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of a text's tables, without the headings' lines."""
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for table in tables
        for line in table.splitlines()[2:]
    ]
