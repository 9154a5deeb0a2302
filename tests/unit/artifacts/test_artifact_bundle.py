"""The module artifact_bundle: pinned, verified, reproducible; and what it says when something is wrong."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
MODULE = REPOSITORY / "ansible" / "plugins" / "modules" / "artifact_bundle.py"
LOCK_FILES = sorted((REPOSITORY / "apps").glob("*/requirements.txt"))
PACKAGE = "alpha==1.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:ab\n    # via beta\n"

Parameters = dict[str, Any]


@pytest.fixture
def bundle() -> ModuleType:
    """The module, imported by its path."""
    spec = importlib.util.spec_from_file_location("artifact_bundle", MODULE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def parameters(tmp_path: Path) -> Parameters:
    """A bundle with one of everything, in a small repository of its own."""
    repository = tmp_path / "repository"
    jvm = repository / "jvm"
    (jvm / "src").mkdir(parents=True)
    (jvm / "pom.xml").write_text("<project/>")
    (jvm / "src" / "Main.java").write_text("class Main {}")
    app = repository / "app"
    app.mkdir()
    (app / "run.py").write_text("print(1)\n")
    (app / "data.txt").write_text("data\n")
    (repository / "pom.xml").write_text("<project>jars</project>")
    (repository / "SHA256SUMS").write_text(f"{hashlib.sha256(b'jar').hexdigest()}  thing-1.0.jar\n")
    (repository / "requirements.txt").write_text(PACKAGE + "beta==2.0 \\\n    --hash=sha256:bb\n")
    return {
        "name": "thing", "version": "1.0", "cache": str(tmp_path / "cache"), "python_version": "3.11",
        "platforms": ["manylinux_2_28_x86_64"],
        "maven": {"pom": str(repository / "pom.xml"), "checksums": str(repository / "SHA256SUMS"), "into": "jars"},
        "python": [{"requirements": str(repository / "requirements.txt"), "source": [], "only": [], "exclude": []}],
        "files": [{"src": str(app), "dest": "app"}],
        "maven_build": {"project": str(jvm), "jar": "target/built.jar", "dest": "jars/built.jar"},
    }  # fmt: skip


# Checksums


def test_checksums_are_read(bundle: ModuleType, tmp_path: Path) -> None:
    listing = tmp_path / "SHA256SUMS"
    listing.write_text(f"# jars\n\n{'a' * 64}  one.jar\n{'b' * 64}  two.jar\n")
    assert bundle.read_checksums(listing) == {"one.jar": "a" * 64, "two.jar": "b" * 64}


@pytest.mark.parametrize("line", ["one.jar", f"{'a' * 63}  one.jar", f"{'a' * 64}", f"{'a' * 64}  one.jar two.jar"])
def test_wrong_line_of_checksums_is_named(bundle: ModuleType, tmp_path: Path, line: str) -> None:
    listing = tmp_path / "SHA256SUMS"
    listing.write_text(f"{'a' * 64}  good.jar\n{line}\n")
    with pytest.raises(bundle.BundleError, match=r"SHA256SUMS:2: expected '<sha256>  <file name>'"):
        bundle.read_checksums(listing)


def test_every_wrong_file_is_named_with_both_sums(bundle: ModuleType, tmp_path: Path) -> None:
    jars, listing = tmp_path / "jars", tmp_path / "SHA256SUMS"
    jars.mkdir()
    for name in ("good", "changed", "altered", "unlisted"):
        (jars / f"{name}.jar").write_text(name)
    good = hashlib.sha256(b"good").hexdigest()
    listing.write_text(f"{good}  good.jar\n{'1' * 64}  changed.jar\n{'2' * 64}  altered.jar\n{'3' * 64}  lost.jar\n")
    with pytest.raises(bundle.BundleError) as caught:
        bundle.verify_checksums(jars, listing)
    text = str(caught.value)
    for name, expected in (("changed", "1" * 64), ("altered", "2" * 64)):
        found = hashlib.sha256(name.encode()).hexdigest()
        assert f"{jars / name}.jar: expected SHA-256 {expected}, found {found}" in text
    assert f"{jars / 'lost.jar'}: missing" in text
    assert f"{jars / 'unlisted.jar'}: not listed" in text
    assert "good.jar" not in text
    assert f"Remove {jars}" in text


def test_right_files_pass(bundle: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / "good.jar").write_text("good")
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(b'good').hexdigest()}  good.jar\n")
    bundle.verify_checksums(tmp_path / "jars", tmp_path / "SHA256SUMS")


# Fingerprint


def write(name: str, text: str) -> Callable[[Parameters, Path], None]:
    """Return a change that writes a file of the repository."""

    def change(_: Parameters, repository: Path) -> None:
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(text)

    return change


def option(*path: str | int, value: object) -> Callable[[Parameters, Path], None]:
    """Return a change that sets an option."""

    def change(parameters: Parameters, _: Path) -> None:
        place: Any = parameters
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def rename(parameters: Parameters, _: Path) -> None:
    app = Path(parameters["files"][0]["src"])
    (app / "run.py").rename(app / "start.py")


@pytest.mark.parametrize(
    "change",
    [
        option("name", value="other"),
        option("version", value="1.1"),
        option("python_version", value="3.12"),
        option("platforms", value=["any"]),
        option("maven", "into", value="libs"),
        option("maven", value=None),
        option("python", 0, "only", value=["alpha"]),
        option("python", 0, "exclude", value=["alpha"]),
        option("python", 0, "source", value=["alpha"]),
        option("files", 0, "dest", value="elsewhere"),
        option("maven_build", "dest", value="jars/other.jar"),
        write("pom.xml", "<project>newer jars</project>"),
        write("SHA256SUMS", f"{'0' * 64}  thing-1.0.jar\n"),
        write("requirements.txt", PACKAGE),
        write("app/run.py", "print(2)\n"),
        write("app/more/new.py", ""),
        write("jvm/pom.xml", "<project>2</project>"),
        write("jvm/src/Main.java", "class Main { }"),
        rename,
    ],
)
def test_fingerprint_changes_with_every_input(
    bundle: ModuleType, parameters: Parameters, tmp_path: Path, change: Callable[[Parameters, Path], None]
) -> None:
    before = bundle.fingerprint(parameters)
    change(parameters, tmp_path / "repository")
    assert bundle.fingerprint(parameters) != before


@pytest.mark.parametrize(
    "change",
    [
        option("cache", value="/elsewhere"),
        write("app/__pycache__/run.cpython-311.pyc", "x"),
        write("app/thing.egg-info/PKG-INFO", "x"),
        write("app/.mypy_cache/x.json", "x"),
        write("jvm/target/built.jar", "x"),
        lambda _, repository: os.utime(repository / "app" / "run.py", (1, 1)),
    ],
)
def test_fingerprint_does_not_change_with_caches(
    bundle: ModuleType, parameters: Parameters, tmp_path: Path, change: Callable[[Parameters, Path], None]
) -> None:
    before = bundle.fingerprint(parameters)
    change(parameters, tmp_path / "repository")
    assert bundle.fingerprint(parameters) == before


def test_fingerprint_does_not_depend_on_the_place_of_the_checkout(
    bundle: ModuleType, parameters: Parameters, tmp_path: Path
) -> None:
    before = bundle.fingerprint(parameters)
    (tmp_path / "repository").rename(tmp_path / "moved")
    moved = json.loads(json.dumps(parameters).replace(str(tmp_path / "repository"), str(tmp_path / "moved")))
    assert bundle.fingerprint(moved) == before


def test_missing_input_is_named(bundle: ModuleType, parameters: Parameters, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "repository" / "app")
    with pytest.raises(bundle.BundleError, match=r"app is not there"):
        bundle.fingerprint(parameters)


# Lock files


@pytest.mark.parametrize("path", LOCK_FILES, ids=lambda path: path.parent.name)
def test_lock_file_falls_into_its_entries(bundle: ModuleType, path: Path) -> None:
    text = path.read_text()
    entries = bundle.lock_entries(text)
    assert len(entries) == text.count("==") > 0
    for name, entry in entries.items():
        assert entry.lower().startswith(f"{name}==")
        assert "--hash=sha256:" in entry
        assert not entry.rstrip().endswith("\\"), f"{name}: cut off"
        assert "#" not in entry
    assert sum(entry.count("--hash=") for entry in entries.values()) == text.count("--hash=")


def test_real_lock_files_are_there() -> None:
    assert {path.parent.name for path in LOCK_FILES} >= {"producer", "coinbase_replay", "spark", "flink", "schema"}


@pytest.fixture
def installed(bundle: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], str]]:
    """The command lines of pip, each with the lock file it got."""
    calls: list[tuple[list[str], str]] = []

    def run(command: list[str], _what: str) -> None:
        calls.append((command, Path(command[command.index("-r") + 1]).read_text()))

    monkeypatch.setattr(bundle, "run", run)
    return calls


def test_packages_are_installed_by_hash_for_the_nodes_python(
    bundle: ModuleType, parameters: Parameters, installed: list[tuple[list[str], str]], tmp_path: Path
) -> None:
    bundle.install_python(parameters["python"][0], tmp_path / "python", parameters)
    ((command, lock),) = installed
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:", "--python-version=3.11"} <= set(command)
    assert "--platform=manylinux_2_28_x86_64" in command
    assert "alpha==1.0" in lock
    assert "beta==2.0" in lock
    assert lock.count("--hash=") == 3


def test_source_packages_are_installed_apart(
    bundle: ModuleType, parameters: Parameters, installed: list[tuple[list[str], str]], tmp_path: Path
) -> None:
    bundle.install_python({**parameters["python"][0], "source": ["beta"]}, tmp_path / "python", parameters)
    (binary, binary_lock), (source, source_lock) = installed
    assert "--only-binary=:all:" in binary
    assert "--only-binary=:all:" not in source
    assert "--require-hashes" in source
    assert ("alpha" in binary_lock, "beta" in binary_lock) == (True, False)
    assert ("alpha" in source_lock, "beta" in source_lock) == (False, True)


@pytest.mark.parametrize(("choice", "wanted"), [({"only": ["beta"]}, "beta"), ({"exclude": ["beta"]}, "alpha")])
def test_only_and_exclude(
    bundle: ModuleType,
    parameters: Parameters,
    installed: list[tuple[list[str], str]],
    tmp_path: Path,
    choice: dict[str, list[str]],
    wanted: str,
) -> None:
    bundle.install_python({**parameters["python"][0], **choice}, tmp_path / "python", parameters)
    assert [lock.split("==")[0] for _, lock in installed] == [wanted]


@pytest.mark.parametrize("key", ["only", "exclude", "source"])
def test_package_that_is_not_pinned(
    bundle: ModuleType, parameters: Parameters, installed: list[tuple[list[str], str]], tmp_path: Path, key: str
) -> None:
    with pytest.raises(bundle.BundleError, match=rf"requirements.txt does not pin gamma, named in '{key}'"):
        bundle.install_python({**parameters["python"][0], key: ["gamma"]}, tmp_path / "python", parameters)
    assert installed == []


# Packing


def tree(root: Path, *names: str, mtime: int, mode: int) -> Path:
    """Make a folder with files, in the order of the names."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        path.chmod(mode)
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(mode | 0o100)
    for path in [*root.rglob("*"), root]:
        os.utime(path, (mtime, mtime))
    return root


def test_packing_is_deterministic(bundle: ModuleType, tmp_path: Path) -> None:
    one = tree(tmp_path / "one", "b/c.txt", "a.txt", mtime=1_000_000, mode=0o600)
    two = tree(tmp_path / "two", "a.txt", "b/c.txt", mtime=2_000_000, mode=0o664)
    bundle.pack(one, tmp_path / "one.tar")
    bundle.pack(two, tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as archive:
        assert [(entry.name, oct(entry.mode), entry.uname, entry.mtime) for entry in archive] == [
            ("a.txt", "0o644", "root", 0),
            ("b", "0o755", "root", 0),
            ("b/c.txt", "0o644", "root", 0),
            ("run.sh", "0o755", "root", 0),
        ]


# The whole module


class ModuleExit(Exception):  # noqa: N818 - not every end is an error
    """How a module ends, with what it returned."""

    def __init__(self, *, failed: bool, result: dict[str, Any]) -> None:
        super().__init__(result)
        self.failed, self.result = failed, result


@pytest.fixture
def call(
    bundle: ModuleType, parameters: Parameters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """Run the module with Ansible's part and the programs mvn and pip replaced; returns its result."""

    class FakeModule:
        """As much of AnsibleModule as the module uses."""

        def __init__(self, argument_spec: dict[str, Any], supports_check_mode: bool) -> None:
            assert supports_check_mode
            assert set(parameters) == set(argument_spec)
            self.params, self.check_mode = parameters, check_mode

        def fail_json(self, **result: object) -> NoReturn:
            raise ModuleExit(failed=True, result=dict(result))

        def exit_json(self, **result: object) -> NoReturn:
            raise ModuleExit(failed=False, result=dict(result))

    check_mode = False
    commands: list[str] = []

    def run(command: list[str], what: str) -> None:
        commands.append(what)
        if "dependency:copy-dependencies" in command:
            target = Path(command[-1].removeprefix("-DoutputDirectory="))
            target.mkdir(parents=True)
            (target / "thing-1.0.jar").write_text("jar")
        elif "package" in command:
            built = Path(parameters["maven_build"]["project"], "target", "built.jar")
            built.parent.mkdir(exist_ok=True)
            built.write_text("built")
        else:
            installed = Path(command[command.index("--target") + 1])
            installed.mkdir(parents=True, exist_ok=True)
            (installed / "alpha.py").write_text("")

    monkeypatch.setattr(bundle, "AnsibleModule", FakeModule)
    monkeypatch.setattr(bundle, "run", run)

    def main(*, check: bool = False) -> dict[str, Any]:
        nonlocal check_mode
        check_mode = check
        commands.clear()
        umask = os.umask(0o077)
        try:
            with pytest.raises(ModuleExit) as ended:
                bundle.main()
        finally:
            os.umask(umask)
        return {**ended.value.result, "failed": ended.value.failed, "commands": list(commands)}

    assert not (tmp_path / "cache").exists()
    return main


def test_bundle_is_built_once(call: Callable[..., dict[str, Any]]) -> None:
    first = call()
    assert (first["failed"], first["changed"]) == (False, True)
    assert first["commands"] == [
        "fetching the jars of thing",
        *[text for text in first["commands"] if text.startswith("installing from")],
        *[text for text in first["commands"] if text.startswith("building")],
    ]
    with tarfile.open(first["bundle"]) as archive:
        names = {entry.name for entry in archive if entry.isfile()}
        assert all(entry.mode & 0o444 == 0o444 for entry in archive)
    assert names == {"app/data.txt", "app/run.py", "jars/built.jar", "jars/thing-1.0.jar", "python/alpha.py"}
    assert first["release"].startswith("1.0-")
    assert Path(first["bundle"]).name == f"thing-{first['release']}.tar"
    assert first["sha256"] == hashlib.sha256(Path(first["bundle"]).read_bytes()).hexdigest()
    assert (Path(first["tree"]).parent / "current").resolve() == Path(first["tree"]).resolve()

    second = call()
    assert (second["failed"], second["changed"], second["commands"]) == (False, False, [])
    assert {key: second[key] for key in ("bundle", "sha256", "release")} == {
        key: first[key] for key in ("bundle", "sha256", "release")
    }


def test_check_mode_builds_nothing(call: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    result = call(check=True)
    assert (result["failed"], result["changed"], result["commands"]) == (False, True, [])
    assert not (tmp_path / "cache").exists()
    call()
    assert call(check=True)["changed"] is False


def test_changed_source_makes_a_new_release_beside_the_old(call: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    first = call()
    (tmp_path / "repository" / "app" / "run.py").write_text("print(2)\n")
    second = call()
    assert second["changed"] is True
    assert second["release"] != first["release"]
    # Jars are fetched once for a POM.
    assert "fetching the jars of thing" not in second["commands"]
    assert Path(first["bundle"]).is_file()
    assert (Path(first["tree"]).parent / "current").readlink() == Path(second["release"])


def test_corrupted_cached_bundle_stops(call: Callable[..., dict[str, Any]]) -> None:
    first = call()
    damaged = Path(first["bundle"])
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    result = call()
    assert result["failed"]
    found = hashlib.sha256(damaged.read_bytes()).hexdigest()
    assert f"thing: {damaged}: expected SHA-256 {first['sha256']}, found {found}" in result["msg"]
    assert "remove it to build it again" in result["msg"]
    damaged.unlink()
    assert call()["sha256"] == first["sha256"]


def test_jar_that_is_not_what_the_repository_pins_stops(
    call: Callable[..., dict[str, Any]], parameters: Parameters, tmp_path: Path
) -> None:
    Path(parameters["maven"]["checksums"]).write_text(f"{'0' * 64}  thing-1.0.jar\n")
    for _ in range(2):
        result = call()
        assert result["failed"]
        found = hashlib.sha256(b"jar").hexdigest()
        assert f"thing-1.0.jar: expected SHA-256 {'0' * 64}, found {found}" in result["msg"]
    assert list((tmp_path / "cache" / "bundles").iterdir()) == []
    assert list((tmp_path / "cache" / "trees" / "thing").iterdir()) == []


def test_interrupted_build_leaves_nothing_that_looks_finished(
    bundle: ModuleType, call: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_tree: Path, target: Path) -> None:
        target.write_text("half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(bundle, "pack", interrupted)
        result = call()
    assert result["failed"]
    assert "thing: " in result["msg"]
    assert "No space left on device" in result["msg"]
    assert list((tmp_path / "cache" / "bundles").glob("*.tar")) == []
    assert list((tmp_path / "cache" / "trees" / "thing").iterdir()) == []
    assert call()["changed"] is True


def test_program_that_fails_is_quoted(bundle: ModuleType) -> None:
    with pytest.raises(bundle.BundleError, match=r"(?s)fetching failed: sh -c .*the reason"):
        bundle.run(["sh", "-c", "echo the reason >&2; exit 3"], "fetching")


def test_jars_of_an_interrupted_download_are_fetched_anew(
    bundle: ModuleType, call: Callable[..., dict[str, Any]], parameters: Parameters, tmp_path: Path
) -> None:
    key = hashlib.sha256(Path(parameters["maven"]["pom"]).read_bytes()).hexdigest()[:12]
    partial = tmp_path / "cache" / "maven" / f"thing-{key}.partial"
    partial.mkdir(parents=True)
    (partial / "half.jar").write_text("half")
    call()
    jars = bundle.fetch_jars(parameters["maven"], tmp_path / "cache", "thing")
    assert [path.name for path in jars.iterdir()] == ["thing-1.0.jar"]
    assert not partial.exists()
