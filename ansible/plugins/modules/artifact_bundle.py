#!/usr/bin/python
"""Ansible module: one tar file with everything that a component needs on a node, fetched once, pinned and verified."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: artifact_bundle
short_description: Build a component's bundle in the controller's cache
description:
  - Fetches jars by Maven from a pinned POM and Python packages by pip from a lock file with hashes, adds files of this
    repository, and packs all of it into one reproducible tar file named after the SHA-256 of everything that went in.
  - A bundle that is in the cache already is verified and left alone.
  - Mirrors and air gaps are Maven's and pip's own settings.
options:
  name: {description: Name of the component., type: str, required: true}
  version: {description: Version of the component, part of the bundle's name., type: str, required: true}
  cache: {description: Folder of the cache., type: path, required: true}
  maven:
    description: Jars to put into the folder C(into).
    type: dict
    suboptions:
      pom: {description: POM that pins the jars., type: path, required: true}
      checksums: {description: File in the format of sha256sum that names every jar., type: path, required: true}
      into: {description: Folder inside the bundle., type: str, default: jars}
  python:
    description: Lock files (pip, with hashes) whose packages go into the folder C(python).
    type: list
    elements: dict
    suboptions:
      requirements: {description: The lock file., type: path, required: true}
      source:
        description: Packages that are published as source only (and run without being compiled).
        type: list
        elements: str
        default: []
      only:
        description: Take only these packages of the lock file; all by default.
        type: list
        elements: str
        default: []
      exclude:
        description: Leave out these packages of the lock file.
        type: list
        elements: str
        default: []
  python_version: {description: Python of the nodes., type: str, default: "3.11"}
  platforms: {description: Wheel platforms that the nodes take., type: list, elements: str}
  files:
    description: Files and folders of this repository to add.
    type: list
    elements: dict
    suboptions:
      src: {description: File or folder., type: path, required: true}
      dest: {description: Path inside the bundle., type: str, required: true}
  maven_build:
    description: A Maven project of this repository whose one jar goes into the bundle.
    type: dict
    suboptions:
      project: {description: Folder of the project., type: path, required: true}
      jar: {description: The jar that C(package) makes, relative to the project., type: str, required: true}
      dest: {description: Path inside the bundle., type: str, required: true}
author: crypto-stream-lab
"""

RETURN = r"""
bundle: {description: Path of the tar file., type: str, returned: success}
tree: {description: Folder with the same content., type: str, returned: success}
release: {description: "Version and fingerprint, the name of the folder on the nodes.", type: str, returned: success}
sha256: {description: Sum of the tar file., type: str, returned: success}
"""

IGNORED = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", "target"}


class BundleError(Exception):
    """What stops the build, in words for the user."""


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_checksums(path: Path) -> dict[str, str]:
    """Read a file in sha256sum's format; returns file name => hexadecimal sum."""
    sums = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = line.split()
        if len(parts) != 2 or len(parts[0]) != 64:
            raise BundleError(f"{path}:{number}: expected '<sha256>  <file name>'")
        sums[parts[1]] = parts[0]
    return sums


def verify_checksums(directory: Path, checksums: Path) -> None:
    """Compare a folder with its list of sums; BundleError names every file that differs, with both sums."""
    expected = read_checksums(checksums)
    found = {path.name: sha256_of(path) for path in sorted(directory.iterdir()) if path.is_file()}
    problems = [
        f"{directory / name}: expected SHA-256 {expected[name]}, found {found[name]}"
        for name in sorted(expected.keys() & found.keys())
        if expected[name] != found[name]
    ]
    problems += [
        f"{directory / name}: missing, {checksums} lists it" for name in sorted(expected.keys() - found.keys())
    ]
    problems += [f"{directory / name}: not listed in {checksums}" for name in sorted(found.keys() - expected.keys())]
    if problems:
        raise BundleError(
            "these artifacts are not what the repository pins:\n  "
            + "\n  ".join(problems)
            + f"\nRemove {directory} to fetch them again; after a wanted change of versions: make checksums"
        )


def walk(root: Path) -> list[Path]:
    """Return a file, or all files below a folder in a fixed order, without caches and build results."""
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise BundleError(f"{root} is not there")
    return sorted(
        path
        for path in root.rglob("*")
        if path.is_file()
        and not (IGNORED & set(path.relative_to(root).parts))
        and not any(part.endswith(".egg-info") for part in path.parts)
    )


def fingerprint(parameters: dict[str, Any]) -> str:
    """Return 12 hex digits that change with any input of the bundle: options, lock files, sources."""
    digest = hashlib.sha256()
    described = {key: parameters[key] for key in ("name", "version", "python_version", "platforms")}
    described["layout"] = [
        (parameters["maven"] or {}).get("into"),
        [entry["dest"] for entry in parameters["files"] or []],
        (parameters["maven_build"] or {}).get("dest"),
        [{key: entry[key] for key in ("source", "only", "exclude")} for entry in parameters["python"] or []],
    ]
    digest.update(json.dumps(described, sort_keys=True).encode())
    inputs: list[Path] = []
    if parameters["maven"]:
        inputs += [Path(parameters["maven"]["pom"]), Path(parameters["maven"]["checksums"])]
    inputs += [Path(entry["requirements"]) for entry in parameters["python"] or []]
    inputs += [Path(entry["src"]) for entry in parameters["files"] or []]
    if parameters["maven_build"]:
        project = Path(parameters["maven_build"]["project"])
        inputs += [project / "pom.xml", project / "src"]
    for root in inputs:
        for path in walk(root):
            digest.update(str(path.relative_to(root.parent)).encode() + b"\0")
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def run(command: list[str], what: str) -> None:
    """Run a program; BundleError with the end of its output when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
        raise BundleError(f"{what} failed: {' '.join(command)}\n{tail}")


def fetch_jars(maven: dict[str, Any], cache: Path, name: str) -> Path:
    """Return the folder with the POM's jars, fetched unless they are there, and verified in any case."""
    key = hashlib.sha256(Path(maven["pom"]).read_bytes()).hexdigest()[:12]
    directory = cache / "maven" / f"{name}-{key}"
    if not directory.is_dir():
        partial = directory.with_name(directory.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        run(
            [
                "mvn", "-q", "-B", "-f", maven["pom"], "dependency:copy-dependencies", "-DincludeScope=runtime",
                f"-DoutputDirectory={partial}",
            ],
            f"fetching the jars of {name}",
        )  # fmt: skip
        partial.rename(directory)
    verify_checksums(directory, Path(maven["checksums"]))
    return directory


def lock_entries(text: str) -> dict[str, str]:
    """Split a lock file into its entries; returns package name => the lines of its entry."""
    entries: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if line and not line.startswith((" ", "#", "-")):
            current = entries.setdefault(line.split("==", 1)[0].strip().lower(), [])
        if line.strip() and not line.lstrip().startswith("#"):
            current.append(line)
    return {name: "\n".join(lines) + "\n" for name, lines in entries.items()}


def install_python(entry: dict[str, Any], target: Path, parameters: dict[str, Any]) -> None:
    """Install a lock file's packages into a folder, for the nodes' Python whatever this one is."""
    entries = lock_entries(Path(entry["requirements"]).read_text())
    for option in ("source", "only", "exclude"):
        unknown = set(entry[option]) - entries.keys()
        if unknown:
            raise BundleError(f"{entry['requirements']} does not pin {', '.join(sorted(unknown))}, named in '{option}'")
    wanted = set(entry["only"] or entries) - set(entry["exclude"])
    binary = ["--only-binary=:all:", "--implementation=cp", f"--python-version={parameters['python_version']}"]
    binary += [f"--platform={platform}" for platform in parameters["platforms"] or []]
    for names, options in ((wanted - set(entry["source"]), binary), (wanted & set(entry["source"]), [])):
        if not names:
            continue
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as lock:
            lock.write("".join(entries[name] for name in sorted(names)))
            lock.flush()
            run(
                [
                    sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input",
                    "--no-compile", "--no-deps", "--require-hashes", "--no-warn-conflicts",
                    "--root-user-action=ignore", "--upgrade", "--target", str(target), "-r", lock.name, *options,
                ],
                f"installing from {entry['requirements']}",
            )  # fmt: skip


def copy_files(entry: dict[str, Any], stage: Path) -> None:
    """Copy a file or the files of a folder into the stage."""
    source = Path(entry["src"])
    for path in walk(source):
        relative = "" if source.is_file() else path.relative_to(source)
        target = stage / entry["dest"] / relative if relative else stage / entry["dest"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)


def pack(tree: Path, bundle: Path) -> None:
    """Write a tar file that depends on nothing but the files' names, modes and contents."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.mtime = 0
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry

    with tarfile.open(bundle, "w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(tree.rglob("*")):
            archive.add(path, arcname=str(path.relative_to(tree)), recursive=False, filter=plain)


def build(parameters: dict[str, Any], tree: Path, bundle: Path, cache: Path) -> None:
    """Make the tree and the tar file; neither gets its name before it is complete."""
    tree.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{tree.name}-", dir=tree.parent))
    try:
        if parameters["maven"]:
            jars = fetch_jars(parameters["maven"], cache, parameters["name"])
            shutil.copytree(jars, stage / parameters["maven"]["into"])
        for entry in parameters["python"] or []:
            install_python(entry, stage / "python", parameters)
        for entry in parameters["files"] or []:
            copy_files(entry, stage)
        if parameters["maven_build"]:
            project = Path(parameters["maven_build"]["project"])
            run(["mvn", "-q", "-B", "-f", str(project / "pom.xml"), "-DskipTests", "package"], f"building {project}")
            target = stage / parameters["maven_build"]["dest"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(project / parameters["maven_build"]["jar"], target)
        stage.chmod(0o755)
        partial = bundle.with_name(bundle.name + ".partial")
        pack(stage, partial)
        shutil.rmtree(tree, ignore_errors=True)
        stage.rename(tree)
        bundle.with_suffix(".sha256").write_text(sha256_of(partial) + "\n")
        partial.rename(bundle)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def main() -> None:
    """Entry point of the module."""
    file_spec = {
        "type": "list",
        "elements": "dict",
        "options": {"src": {"type": "path", "required": True}, "dest": {"type": "str", "required": True}},
    }
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "cache": {"type": "path", "required": True},
            "maven": {
                "type": "dict",
                "options": {
                    "pom": {"type": "path", "required": True},
                    "checksums": {"type": "path", "required": True},
                    "into": {"type": "str", "default": "jars"},
                },
            },
            "python": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "requirements": {"type": "path", "required": True},
                    "source": {"type": "list", "elements": "str", "default": []},
                    "only": {"type": "list", "elements": "str", "default": []},
                    "exclude": {"type": "list", "elements": "str", "default": []},
                },
            },
            "python_version": {"type": "str", "default": "3.11"},
            "platforms": {"type": "list", "elements": "str"},
            "files": file_spec,
            "maven_build": {
                "type": "dict",
                "options": {
                    "project": {"type": "path", "required": True},
                    "jar": {"type": "str", "required": True},
                    "dest": {"type": "str", "required": True},
                },
            },
        },
        supports_check_mode=True,
    )
    parameters = module.params
    cache = Path(parameters["cache"])
    try:
        release = f"{parameters['version']}-{fingerprint(parameters)}"
        bundle = cache / "bundles" / f"{parameters['name']}-{release}.tar"
        tree = cache / "trees" / parameters["name"] / release
        recorded = bundle.with_suffix(".sha256")
        changed = not (bundle.is_file() and recorded.is_file() and tree.is_dir())
        if changed and not module.check_mode:
            os.umask(0o022)
            bundle.parent.mkdir(parents=True, exist_ok=True)
            build(parameters, tree, bundle, cache)
        total = ""
        if bundle.is_file():
            total = sha256_of(bundle)
            expected = recorded.read_text().strip()
            if total != expected:
                raise BundleError(
                    f"{bundle}: expected SHA-256 {expected}, found {total}. The cached bundle has changed since it was "
                    f"built: remove it to build it again"
                )
            current = tree.parent / "current"
            if not module.check_mode and (not current.is_symlink() or current.readlink() != Path(release)):
                current.unlink(missing_ok=True)
                current.symlink_to(release)
    except (BundleError, OSError) as error:
        module.fail_json(msg=f"{parameters['name']}: {error}")
    module.exit_json(changed=changed, bundle=str(bundle), tree=str(tree), release=release, sha256=total)


if __name__ == "__main__":
    main()
