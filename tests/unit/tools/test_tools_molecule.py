"""Which scenarios tests/molecule.py chooses, in which order, and the table that it writes."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
ROLES = {"kafka", "spark", "java"}
KNOWN = [
    ("java", "default"), ("kafka", "alternative"), ("kafka", "cluster"), ("kafka", "default"), ("kafka", "upgrade"),
    ("spark", "cluster"), ("spark", "default"),
]  # fmt: skip
SECONDS = {("kafka", "alternative"): 100.0, ("kafka", "cluster"): 200.0, ("kafka", "upgrade"): 150.0,
           ("kafka", "default"): 70.0, ("spark", "default"): 110.0, ("java", "default"): 60.0}  # fmt: skip


@pytest.fixture
def molecule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module of another name than the package's, in a repository of its own."""
    spec = importlib.util.spec_from_file_location("run_molecule", REPOSITORY / "tests" / "molecule.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "REPOSITORY", tmp_path)
    return module


def git(folder: Path, *arguments: str) -> str:
    """Run git as a user of this test's own; returns what it prints."""
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder: Path, name: str) -> str:
    """Add a file and commit it; returns the commit."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("text\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", f"add {name}")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository on its branch main, with one commit and no remote."""
    git(tmp_path, "init", "-q", "-b", "main")
    commit(tmp_path, "README.md")
    return tmp_path


def test_names(molecule: Any) -> None:
    assert molecule.named(["kafka/cluster", "java"], KNOWN) == [("kafka", "cluster"), ("java", "default")]
    assert molecule.named([], KNOWN) == []
    with pytest.raises(SystemExit, match="no scenario kafka/none"):
        molecule.named(["kafka/none"], KNOWN)


def test_base_of_a_clone_of_one_commit(molecule: Any, clone: Path) -> None:
    assert git(clone, "rev-list", "--count", "HEAD") == "1"
    assert molecule.base_commit("") is None
    assert molecule.changed_files(None) is None


def test_base_without_git(molecule: Any, tmp_path: Path) -> None:
    assert not (tmp_path / ".git").exists()
    assert molecule.base_commit("") is None


def test_base_on_main_is_the_commit_before(molecule: Any, clone: Path) -> None:
    first = git(clone, "rev-parse", "HEAD")
    head = commit(clone, "a")
    assert molecule.base_commit("") == first
    git(clone, "update-ref", "refs/remotes/origin/main", head)
    assert molecule.base_commit("") == first


def test_base_on_a_branch_is_where_it_left_main(molecule: Any, clone: Path) -> None:
    left = git(clone, "rev-parse", "HEAD")
    git(clone, "update-ref", "refs/remotes/origin/main", left)
    git(clone, "switch", "-q", "-c", "work")
    commit(clone, "a")
    commit(clone, "b")
    assert molecule.base_commit("") == left


def test_base_that_is_asked_for(molecule: Any, clone: Path) -> None:
    first = git(clone, "rev-parse", "HEAD")
    commit(clone, "a")
    commit(clone, "b")
    assert molecule.base_commit(first[:8]) == first
    with pytest.raises(SystemExit, match="no commit nowhere"):
        molecule.base_commit("nowhere")


def test_changed_files_are_also_those_that_are_not_committed(molecule: Any, clone: Path) -> None:
    base = git(clone, "rev-parse", "HEAD")
    commit(clone, "committed")
    (clone / "README.md").write_text("changed\n")
    (clone / "new").write_text("new\n")
    assert sorted(molecule.changed_files(base)) == ["README.md", "committed", "new"]


@pytest.mark.parametrize(
    ("files", "roles"),
    [
        (["ansible/roles/kafka/tasks/main.yml", "docs/operations.md"], {"kafka"}),
        (["ansible/roles/kafka/README.md"], set()),
        (["ansible/roles/artifacts/files/kafka/pom.xml"], {"kafka"}),
        (["ansible/roles/gone/tasks/main.yml", "apps/spark/x.py"], set()),
        (["ansible/molecule/converge.yml"], ROLES),
        (["ansible/conftest.py"], ROLES),
        ([".config/molecule/config.yml"], ROLES),
        (None, ROLES),
    ],
)
def test_changed_roles(molecule: Any, files: list[str] | None, roles: set[str]) -> None:
    assert molecule.changed_roles(files, ROLES) == roles


def test_defaults_are_always_run(molecule: Any) -> None:
    chosen, left = molecule.bounded(KNOWN, set(), SECONDS, jobs=2, extra_s=300)
    assert chosen == [("java", "default"), ("kafka", "default"), ("spark", "default")]
    assert left == []


def test_changed_roles_others_are_run_as_far_as_they_fit(molecule: Any) -> None:
    chosen, left = molecule.bounded(KNOWN, {"kafka"}, SECONDS, jobs=2, extra_s=300)
    assert sorted(chosen) == [scenario for scenario in KNOWN if scenario != ("spark", "cluster")]
    assert left == []
    # 100 + 150 s are within 2 x 130 s, 200 s more are not.
    chosen, left = molecule.bounded(KNOWN, {"kafka"}, SECONDS, jobs=2, extra_s=130)
    assert [name for role, name in chosen if role == "kafka"] == ["default", "alternative", "upgrade"]
    assert left == [("kafka", "cluster")]
    # One that was never timed counts as a long one.
    assert molecule.bounded(KNOWN, {"spark"}, SECONDS, jobs=1, extra_s=170)[1] == [("spark", "cluster")]


def test_longest_first(molecule: Any) -> None:
    assert molecule.longest_first(KNOWN, SECONDS) == [
        ("kafka", "cluster"), ("spark", "cluster"), ("kafka", "upgrade"), ("spark", "default"),
        ("kafka", "alternative"), ("kafka", "default"), ("java", "default"),
    ]  # fmt: skip


def test_record_keeps_what_was_not_run_and_drops_what_is_gone(
    molecule: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, page = tmp_path / "seconds.json", tmp_path / "page.md"
    seconds.write_text('{"java/default": 60, "gone/default": 1, "spark/default": 110}')
    page.write_text("Before\n\n| role | default |\n|---|---|\n| old | 1 |\n\nAfter\n")
    for name, value in {"SECONDS": seconds, "CONTRIBUTING": page, "scenarios": lambda: KNOWN}.items():
        monkeypatch.setattr(molecule, name, value)
    molecule.record([(("kafka", "cluster"), 201.4, True), (("spark", "default"), 999.0, False)])
    assert molecule.read_seconds() == {("java", "default"): 60, ("kafka", "cluster"): 201, ("spark", "default"): 110}
    assert page.read_text() == (
        "Before\n\n| role | default | alternative | cluster | upgrade |\n|---|---|---|---|---|\n"
        "| java | 60 |  |  |  |\n| kafka |  |  | 201 |  |\n| spark | 110 |  |  |  |\n\nAfter\n"
    )


def test_every_scenario_has_its_seconds_and_the_table_shows_them() -> None:
    spec = importlib.util.spec_from_file_location("run_molecule", REPOSITORY / "tests" / "molecule.py")
    assert spec is not None
    assert spec.loader is not None
    molecule: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(molecule)
    seconds = molecule.read_seconds()
    assert sorted(seconds) == molecule.scenarios(), "tests/molecule.py --record"
    assert {name for _, name in seconds} <= set(molecule.NAMES)
    assert molecule.table(seconds) in (REPOSITORY / "CONTRIBUTING.md").read_text(), "tests/molecule.py --record"
