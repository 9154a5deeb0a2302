#!/usr/bin/env python3
"""Write the tables of every Terraform root's and module's README.md from its code (`make docs`); --check only compares.

What stands outside of the two marks is written by hand and kept.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import hcl2

REPOSITORY = Path(__file__).resolve().parents[1]
TERRAFORM = REPOSITORY / "terraform"
BEGIN = "<!-- Written by tools/terraform_readmes.py from here -->"
END = "<!-- to here -->"


def folders() -> list[Path]:
    """Return the roots and modules: what has variables or outputs of its own."""
    places = [*TERRAFORM.iterdir(), *(TERRAFORM / "modules").iterdir()]
    return sorted(place for place in places if (place / "variables.tf").is_file() or (place / "outputs.tf").is_file())


def blocks(path: Path) -> dict[str, list[Any]]:
    """Return a file's blocks by kind; none where there is no file."""
    return hcl2.loads(path.read_text()) if path.is_file() else {}


def heads(folder: Path, kind: str, attribute: str) -> list[tuple[str, str]]:
    """Return the blocks of a kind in all files, as name and the text of one attribute.

    By the form that `terraform fmt` gives them: the parser does not know every expression that stands in them.
    """
    pattern = rf'^{kind} "(\w+)" \{{\n(?:  .*\n|\n)*?  {attribute}\s*= (".*")$'
    texts = [path.read_text() for path in sorted(folder.glob("*.tf"))]
    return sorted((name, plain(text)) for source in texts for name, text in re.findall(pattern, source, re.MULTILINE))


def plain(value: object) -> str:
    """Return a value as it would be written, without the parser's quotes and `${}` around expressions."""
    if isinstance(value, str):
        if value.startswith('"') and value.endswith('"'):
            return str(json.loads(value))
        return value.removeprefix("${").removesuffix("}") if value.startswith("${") else value
    return "null" if value is None else json.dumps(value)


def literal(value: object) -> str:
    """Return a default as it would be written."""
    if isinstance(value, list):
        return f"[{', '.join(literal(entry) for entry in value)}]"
    return value if isinstance(value, str) and value.startswith('"') else plain(value)


def named(entries: list[Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return blocks with one label, as name and body."""
    return [(plain(label), body) for entry in entries for label, body in entry.items() if label != "__comments__"]


def cell(text: str) -> str:
    """Return a text as it may stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")


def tables(folder: Path) -> str:
    """Return what is said about a module between the marks."""
    lines = ["", "### Requirements", "", "| name | version |", "|---|---|"]
    for settings in blocks(folder / "versions.tf").get("terraform", []):
        lines.append(f"| terraform | `{plain(settings['required_version'])}` |")
        for providers in settings.get("required_providers", []):
            lines += [
                f"| {plain(body['source'])} | `{plain(body['version'])}` |"
                for body in providers.values()
                if isinstance(body, dict)
            ]
    variables = named(blocks(folder / "variables.tf").get("variable", []))
    if variables:
        lines += ["", "### Inputs", "", "| name | description | type | default |", "|---|---|---|---|"]
        for name, body in sorted(variables, key=lambda entry: ("default" in entry[1], entry[0])):
            default = f"`{cell(literal(body['default']))}`" if "default" in body else "required"
            lines.append(f"| {name} | {cell(plain(body['description']))} | `{cell(plain(body['type']))}` | {default} |")
    outputs = heads(folder, "output", "description")
    if outputs:
        lines += ["", "### Outputs", "", "| name | description |", "|---|---|"]
        lines += [f"| {name} | {cell(description)} |" for name, description in outputs]
    modules = heads(folder, "module", "source")
    if modules:
        lines += ["", "### Modules", "", "| name | source |", "|---|---|"]
        lines += [f"| {name} | [{source}]({source}) |" for name, source in modules]
    text = "\n".join(path.read_text() for path in sorted(folder.glob("*.tf")))
    made = sorted(".".join(names) for names in re.findall(r'^resource "(\w+)" "(\w+)"', text, re.MULTILINE))
    if made:
        lines += ["", "### Resources", "", ", ".join(f"`{name}`" for name in made)]
    return "\n".join([*lines, ""])


def readme(folder: Path) -> str:
    """Return a README as it should be; ValueError where a mark is missing."""
    path = folder / "README.md"
    text = path.read_text() if path.is_file() else f"# {folder.relative_to(REPOSITORY)}\n\n{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path} lacks the lines '{BEGIN}' and '{END}'")
    return f"{before}{BEGIN}\n{tables(folder)}\n{END}{after}"


def main() -> int:
    """Return 1 when --check finds a README that is not current."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a README differs")
    check = parser.parse_args().check
    stale = 0
    for folder in folders():
        path, wanted = folder / "README.md", readme(folder)
        if check and (not path.is_file() or path.read_text() != wanted):
            print(f"{path.relative_to(REPOSITORY)} differs from the code beside it: make docs")
            stale = 1
        elif not check:
            path.write_text(wanted)
    return stale


if __name__ == "__main__":
    sys.exit(main())
