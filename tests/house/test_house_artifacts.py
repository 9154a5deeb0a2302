"""Everything that is downloaded is pinned and has its checksum, and a version is the same wherever it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from house_files import REPOSITORY, read, relative, resolve

ROLE = REPOSITORY / "ansible" / "roles" / "artifacts"
POMS = sorted(ROLE.glob("files/*/pom.xml"))
# Of older releases, from which a scenario upgrades.
OLD_POMS = sorted(REPOSITORY.glob("ansible/roles/*/molecule/*/files/pom.xml"))
ALL_POMS = sorted([*POMS, *REPOSITORY.glob("apps/*/jvm/pom.xml")])
LOCK_FILES = sorted([*REPOSITORY.glob("apps/*/requirements.txt"), *REPOSITORY.glob("requirements/*.txt")])
MAVEN = "{http://maven.apache.org/POM/4.0.0}"

every_pom = pytest.mark.parametrize("pom", [*POMS, *OLD_POMS], ids=relative)
every_lock = pytest.mark.parametrize("lock", LOCK_FILES, ids=relative)


def dependencies(pom: Path) -> Iterator[tuple[str, str]]:
    """Give artifact and version of a POM's direct dependencies, with its properties filled in."""
    root = ET.parse(pom).getroot()  # noqa: S314 - a file of this repository
    properties = {
        entry.tag.removeprefix(MAVEN): entry.text or "" for group in root.iter(f"{MAVEN}properties") for entry in group
    }
    for found in root.findall(f"{MAVEN}dependencies/{MAVEN}dependency"):
        version = found.findtext(f"{MAVEN}version", "")
        yield (
            found.findtext(f"{MAVEN}artifactId", ""),
            re.sub(r"\$\{(.+?)\}", lambda match: properties[match[1]], version),
        )


def sums(pom: Path) -> list[tuple[str, str]]:
    """Return (sum, file name) of the list beside a POM."""
    lines = pom.with_name("SHA256SUMS").read_text().splitlines()
    return [(line.split()[0], line.split()[1]) for line in lines]


def locked(lock: Path) -> dict[str, str]:
    """Return package => version of a lock file."""
    return {
        match[1].lower().replace("_", "-"): match[2]
        for match in re.finditer(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", lock.read_text(), re.MULTILINE)
    }


def definitions() -> dict[str, dict[str, object]]:
    """Return what each bundle is made of, with the paths filled in."""
    found = resolve({
        **read(ROLE / "vars" / "main.yml"), "role_path": str(ROLE), "artifacts_repository": str(REPOSITORY),
    })  # fmt: skip
    return dict(found["__artifacts_definitions"])


def test_poms_and_locks_are_found() -> None:
    assert {pom.parent.name for pom in POMS} == {"kafka", "spark", "flink", "dashboard"}
    assert len(ALL_POMS) >= 5
    assert {lock.parent.name for lock in LOCK_FILES} >= {"producer", "coinbase_replay", "spark", "flink", "schema"}


@every_pom
def test_every_direct_dependency_has_a_checksum(pom: Path) -> None:
    names = {name for _, name in sums(pom)}
    missing = [f"{artifact}-{version}.jar" for artifact, version in dependencies(pom)]
    assert missing
    assert [name for name in missing if name not in names] == [], "make checksums"


@every_pom
def test_checksums_are_well_formed(pom: Path) -> None:
    found = sums(pom)
    assert [entry for entry in found if not re.fullmatch(r"[0-9a-f]{64}", entry[0])] == []
    names = [name for _, name in found]
    assert all(name.endswith(".jar") for name in names)
    assert names == sorted(set(names)), "sorted, so that a change of versions is easy to read"


@pytest.mark.parametrize("pom", [*ALL_POMS, *OLD_POMS], ids=relative)
def test_versions_are_pinned(pom: Path) -> None:
    for artifact, version in dependencies(pom):
        assert re.fullmatch(r"[0-9][0-9A-Za-z.-]*", version), f"{artifact}: '{version}' is no fixed version"
        assert "SNAPSHOT" not in version
    for plugin in ET.parse(pom).getroot().iter(f"{MAVEN}plugin"):  # noqa: S314 - a file of this repository
        assert plugin.findtext(f"{MAVEN}version"), f"{plugin.findtext(f'{MAVEN}artifactId')} has no version"


def test_an_artifact_has_one_version_everywhere() -> None:
    versions: dict[str, set[str]] = {}
    for pom in ALL_POMS:
        for artifact, version in dependencies(pom):
            versions.setdefault(artifact, set()).add(version)
    assert {artifact: found for artifact, found in versions.items() if len(found) > 1} == {}
    jars: dict[str, set[str]] = {}
    for pom in POMS:
        for digest, name in sums(pom):
            jars.setdefault(name, set()).add(digest)
    assert {name: found for name, found in jars.items() if len(found) > 1} == {}


def test_versions_of_the_bundles_are_those_of_the_software() -> None:
    found = definitions()
    poms = {pom.parent.name: dict(dependencies(pom)) for pom in ALL_POMS if pom in POMS}
    assert found["kafka"]["version"] == poms["kafka"]["kafka_2.13"] == poms["kafka"]["kafka-tools"]
    assert found["spark"]["version"] == poms["spark"]["spark-sql-kafka-0-10_2.13"]
    assert found["spark"]["version"] == locked(REPOSITORY / "apps" / "spark" / "requirements.txt")["pyspark"]
    flink = locked(REPOSITORY / "apps" / "flink" / "requirements.txt")
    assert found["flink"]["version"] == flink["apache-flink"] == flink["apache-flink-libraries"]
    agent = f"jmx_prometheus_javaagent-{poms['kafka']['jmx_prometheus_javaagent']}.jar"
    assert read(ROLE.parent / "kafka" / "vars" / "main.yml")["__kafka_jmx_exporter"] == agent
    assert found["airflow"]["version"] == locked(REPOSITORY / "apps" / "airflow" / "requirements.txt")["apache-airflow"]
    jvm = {pom.parents[1].name: dict(dependencies(pom)) for pom in ALL_POMS if pom not in POMS}
    assert jvm["flink"]["flink-streaming-java"] == found["flink"]["version"]
    assert jvm["spark"]["spark-sql-api_2.13"] == found["spark"]["version"]


@every_lock
def test_every_locked_package_has_hashes(lock: Path) -> None:
    text = lock.read_text()
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)
    packages = [entry for entry in entries if entry.strip() and not entry.startswith("#")]
    assert packages
    for entry in packages:
        name = entry.split()[0]
        assert "==" in name, f"{name} is not pinned"
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), f"{name} has no hash"
    # Where packages come from is pip's own business.
    assert not re.search(r"^\s*-(-index-url|-extra-index-url|-find-links|-trusted-host|i|f)\b", text, re.MULTILINE)


@every_lock
def test_lock_holds_what_is_asked_for(lock: Path) -> None:
    asked = lock.with_suffix(".in")
    assert asked.is_file(), f"{relative(asked)} is missing"
    for line in asked.read_text().splitlines():
        wanted = re.match(r"^([A-Za-z0-9._-]+)", line)
        if wanted and not line.startswith("-"):
            assert wanted[1].lower().replace("_", "-") in locked(lock), f"{wanted[1]}: make lock"


def test_every_bundle_is_defined_and_provided() -> None:
    provided = read(ROLE / "defaults" / "main.yml")["artifacts_bundles"]
    assert sorted(provided) == sorted(definitions())


def test_sources_of_bundles_exist() -> None:
    def paths(value: object) -> Iterator[Path]:
        if isinstance(value, dict):
            for entry in value.values():
                yield from paths(entry)
        elif isinstance(value, list):
            for entry in value:
                yield from paths(entry)
        elif isinstance(value, str) and value.startswith("/"):
            yield Path(value)

    found = list(paths(definitions()))
    assert len(found) > 10
    assert [str(path) for path in found if not path.exists()] == []


def test_bundles_name_packages_that_their_lock_files_pin() -> None:
    for name, definition in definitions().items():
        for entry in definition.get("python", []):  # type: ignore[attr-defined]
            pinned = locked(Path(entry["requirements"]))
            for key in ("only", "exclude", "source"):
                assert [package for package in entry.get(key, []) if package not in pinned] == [], f"{name}: {key}"
