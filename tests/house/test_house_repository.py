"""The repository as a whole: nothing of one developer's machine, no secrets, commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from house_files import REPOSITORY, relative, tracked

MAKEFILE = REPOSITORY / "Makefile"
# Sums of Go modules name every host that a module path begins with.
NO_TEXT = {".tar", ".gz", ".png", ".svg", ".jar", ".parquet", ".zst", ".sum"}
# /home/lab is on the nodes: the image makes that user.
HOMES = re.compile(r"/(?:home|Users)/(?!lab/)[A-Za-z]|/(?:root|work)/\w|[A-Z]:\\\\Users")
REGISTRIES = re.compile(
    r"(?:files\.pythonhosted|(?:test\.)?pypi|repo1?\.maven(?:\.apache)?|registry\.npmjs|proxy\.golang)\.org"
    r"|artifactory|nexus3?\.|--(?:extra-)?index-url|trusted-host"
)
CREDENTIALS = re.compile(r"://[^/\s:@{}$'\"]+:[^/\s:@{}$'\"]+@|BEGIN (?:[A-Z]+ )?PRIVATE KEY|AKIA[0-9A-Z]{16}")


def texts() -> list[tuple[Path, str]]:
    """Return the tracked files that are texts."""
    return [(path, path.read_text(errors="replace")) for path in tracked() if path.suffix not in NO_TEXT]


def found(pattern: re.Pattern[str]) -> list[str]:
    """Return file, line and text of every match in a tracked file, other than these tests with their patterns."""
    return [
        f"{relative(path)}:{number}: {line.strip()[:100]}"
        for path, text in texts()
        if path.parent != Path(__file__).resolve().parent
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_path_of_a_developers_machine() -> None:
    assert found(HOMES) == []


def test_no_path_of_this_checkout() -> None:
    assert found(re.compile(re.escape(str(REPOSITORY)) + r"\b")) == []


def test_no_package_registry() -> None:
    """Where packages come from is said in pip's, Maven's and Go's own settings, so that a mirror is set once."""
    assert found(REGISTRIES) == []


def test_no_credentials() -> None:
    assert found(CREDENTIALS) == []


def test_no_inventory_variable_with_a_comma() -> None:
    """Ansible splits the variable at commas: after the last one stands this folder, and it would run every program."""
    assert found(re.compile(r"ANSIBLE_INVENTORY\W{1,4}[^#\n]*,[\"'\s]")) == []


def test_patterns_find_what_they_are_for() -> None:
    assert HOMES.search("/home/ann/lab")
    assert HOMES.search("cd /" + "root/lab")
    assert REGISTRIES.search("https://pypi.org/simple")
    assert REGISTRIES.search("--index-url=x")
    assert CREDENTIALS.search("https://ann:secret@mirror.example/simple")
    assert not CREDENTIALS.search("https://mirror.example:8080/simple")


def test_nothing_generated_is_tracked() -> None:
    wrong = re.compile(
        r"\.tfstate|(^|/)\.terraform/|__pycache__|\.egg-info|(^|/)(\.lab|\.venv|target)/|id_ed25519|\.pem$"
    )
    assert [relative(path) for path in tracked() if wrong.search(relative(path))] == []


def test_no_names_of_tests_twice() -> None:
    """Pytest imports by name: a second file of a name hides the first in reports."""
    names = [path.name for path in tracked() if path.name.startswith("test_") and path.suffix == ".py"]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_scripts_are_executable_and_start_with_a_shebang() -> None:
    wrong = []
    for path, text in texts():
        starts, executable = text.startswith("#!"), bool(path.stat().st_mode & 0o100)
        if executable and not starts:
            wrong.append(f"{relative(path)} is executable without a #! line")
        # An Ansible module starts with #! and is not called by its path.
        if starts and not executable and "plugins" not in path.parts and path.suffix != ".j2":
            wrong.append(f"{relative(path)} has a #! line and is not executable")
    assert wrong == []


def targets() -> set[str]:
    """Return the Makefile's targets."""
    return set(re.findall(r"^([a-z][a-z0-9-]*):", MAKEFILE.read_text(), re.MULTILINE))


def test_every_make_command_that_is_named_exists() -> None:
    """In docs, messages and comments; `make X` in quotes, code, or at the beginning of a line of code."""
    named = re.compile(
        r"(?:`|\$ |[\"'] {2})make ([a-z][a-z0-9-]+)\b"  # quoted
        r"|^ *make ([a-z][a-z0-9-]+)(?= *(?:$|#| [A-Z]+=))"  # a line of its own
        r"|(?:: |\()make ([a-z][a-z0-9-]+)(?=[`\"'.,;)]|$| [A-Z]+=)",  # what to do, at the end of a message
        re.MULTILINE,
    )
    missing = [
        f"{relative(path)}: make {name}"
        for path, text in texts()
        for name in ("".join(groups) for groups in named.findall(text))
        if path != MAKEFILE and path != Path(__file__).resolve() and name not in targets()
    ]
    assert missing == []


def test_makefile_explains_and_declares_its_targets() -> None:
    text = MAKEFILE.read_text()
    phony = set(" ".join(re.findall(r"\.PHONY:((?:.*\\\n)*.*)", text)).replace("\\", " ").split())
    assert targets() - phony == set()
    explained = set(re.findall(r"^([a-z][a-z0-9-]*):.*## \S", text, re.MULTILINE))
    assert targets() - explained <= {"require-python"}


def test_makefile_calls_programs_that_exist() -> None:
    for name in re.findall(r"\b((?:tools|tests)/[\w./-]+)", MAKEFILE.read_text()):
        assert (REPOSITORY / name).exists(), f"the Makefile calls {name}"


def test_links_of_the_docs_lead_somewhere() -> None:
    broken = [
        f"{relative(path)}: {target}"
        for path, text in texts()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
        if "://" not in target and not target.startswith("mailto:") and not (path.parent / target).exists()
    ]
    assert broken == []


@pytest.mark.parametrize("name", ["site.yml", "ansible.cfg", "pyproject.toml", ".gitignore", "Makefile"])
def test_entry_points_are_there(name: str) -> None:
    assert (REPOSITORY / name).is_file()
