"""What the documents tell people to type exists, and the translation tells them nothing else."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import get_args

import crypto_producer.config
import pytest
from house_documents import DOCUMENTS, ENGLISH, VIETNAMESE, anchors, blocks, code, command, rows, section
from house_files import REPOSITORY, ROLES, defaults, lab, options, read, relative, tracked

MAKEFILE = (REPOSITORY / "Makefile").read_text()
PLAYBOOKS = REPOSITORY / "ansible" / "playbooks"
TROUBLESHOOTING = REPOSITORY / "docs" / "troubleshooting.md"
README = REPOSITORY / "README.md"
FOLDERS = "ansible|apps|docs|inventories|requirements|terraform|tests|tools"
# Files that a user makes, or that hold for a moment only.
NOT_TRACKED = {"terraform/aws/*.auto.tfvars"}
# Units of Debian's, on nodes or on the machine itself.
UNITS_OF_DEBIAN = {
    "postgresql@15-main", "systemd-timesyncd", "prometheus-node-exporter", "prometheus-postgres-exporter",
}  # fmt: skip
# The seed's cases, as docs/troubleshooting.md calls them.
CASES = (
    "Producer sends nothing", "Spark writes nothing", "Flink job failed", "Database errors", "Topic problems",
    "Recreate the topic",
)  # fmt: skip
CASES_IN_VIETNAMESE = (
    "Producer không gửi dữ liệu", "Spark không ghi vào database", "Flink job bị lỗi", "Lỗi kết nối database",
    "Lỗi Kafka topic", "Tạo lại topic",
)  # fmt: skip
# Words of other programs than ours: Spark's scheduler, Java, psql, PostgreSQL, Kafka's tools, Flink, systemd.
FOREIGN = {
    "Lost executor", "Initial job has not accepted any resources", "Connection refused", "failed",
    "connection to server on socket",
    "password authentication failed for user", "Did not find any relations", "\\dt", "kafka-topics",
    "Timed out waiting for a node assignment", "Isr", "Replicas", "--list", "crypto_prices", "inactive", "make topics",
}  # fmt: skip

every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
every_case = pytest.mark.parametrize("case", CASES)


@cache
def constant(path: Path, name: str) -> object:
    """Return a literal that a Python file assigns at its top."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets):
            return ast.literal_eval(node.value)
    pytest.fail(f"{relative(path)} has no constant {name}")


def values() -> dict[str, set[str]]:
    """Return variable of make => what it may be."""
    tools = REPOSITORY / "tools" / "lab"
    return {
        "SERVICE": set(constant(tools / "reset.py", "SERVICES")),  # type: ignore[call-overload]
        "TARGET": set(constant(tools / "context.py", "TARGETS")),  # type: ignore[call-overload]
        "SOURCE": set(get_args(crypto_producer.config.SourceKind)),
        "TOPOLOGY": {path.stem for path in (REPOSITORY / "terraform" / "topologies").glob("*.yaml")} | {"file"},
        "FEED": {"auto", "coinbase", "replay"},
        "MONITORING": {"on", "off"},
        "AIRFLOW": {"on", "off"},
    }


def nodes() -> set[str]:
    """Return the names of the topologies' nodes."""
    return {name for path in (REPOSITORY / "terraform" / "topologies").glob("*.yaml") for name in read(path)["nodes"]}


def units() -> set[str]:
    """Return the names of the units that nodes run."""
    screen = constant(REPOSITORY / "tools" / "lab" / "screen.py", "UNITS")
    assert isinstance(screen, dict)
    own = {path.name.removesuffix(".service.j2") for role in ROLES for path in role.glob("templates/*.service.j2")}
    return own | UNITS_OF_DEBIAN | {unit for group in screen.values() for unit in group}


def test_commands_and_code_are_found() -> None:
    assert [path for path in DOCUMENTS if not path.is_file()] == []
    found = {span for path in DOCUMENTS for span in code(path)}
    assert {"make lab", "make report", "make reset SERVICE=kafka CONFIRM=lab", "ansible-playbook site.yml"} <= found


@every_document
def test_paths_that_are_named_exist(path: Path) -> None:
    named = re.compile(rf"(?<![\w./~<>*-])((?:{FOLDERS})/[\w./*<>{{}},@-]+|[a-z][\w-]*\.yml)")
    missing = []
    for span in code(path):
        for name in named.findall(span):
            pattern = re.sub(r"<[^>]*>", "*", name.rstrip("./,"))
            wanted = [pattern]
            if "/" not in pattern:
                wanted = [f"**/{pattern}"]
            elif braces := re.search(r"\{([^}]+)\}", pattern):
                wanted = [pattern.replace(braces[0], choice) for choice in braces[1].split(",")]
            missing += [name for one in wanted if name not in NOT_TRACKED and not any(REPOSITORY.glob(one))]
    assert missing == []


@every_document
def test_variables_that_are_named_exist(path: Path) -> None:
    """Those of make are in the Makefile, or read by a tool from the environment."""
    tools = "\n".join(found.read_text(errors="replace") for found in tracked() if found.suffix in {".py", ".tf"})
    named = {
        name: span
        for span in code(path)
        if re.match(r"(?:make|export|[A-Z_]+=)", span)
        for name in re.findall(r"(?:^| )([A-Z][A-Z_]+)=", span)
    }
    unknown = {name for name in named if not re.search(rf"\b{name}\b", MAKEFILE)}
    assert {name: named[name] for name in unknown if not re.search(rf"[\"']{name}[\"']", tools)} == {}


@every_document
def test_values_of_variables_exist(path: Path) -> None:
    wrong = [
        f"{name}={value} in `{span}`"
        for span in code(path)
        for name, known in values().items()
        for listed in re.findall(rf"\b{name}=([\w|./-]+)", span)
        for value in listed.split("|")
        if value not in known and value.strip(".")
    ]
    assert wrong == []


@every_document
def test_playbooks_are_called_with_variables_they_know(path: Path) -> None:
    services = {"restart": set(lab()["lab_services"]), "reset": values()["SERVICE"]}
    roles = {name for role in ROLES for name in (*defaults(role), *options(role))} | set(lab())
    wrong = []
    for span in code(path):
        called = re.match(r"ansible-playbook (?:-i \S+ )?(\S+\.yml)", span)
        if not called:
            continue
        text = (REPOSITORY / called[1]).read_text() if (REPOSITORY / called[1]).is_file() else ""
        for name, value in re.findall(r"-e (\w+)=(\S+)", span):
            if not re.search(rf"\b{name}\b", text) and name not in roles:
                wrong.append(f"{name} in `{span}`")
            known = services.get(Path(called[1]).stem, set())
            if name == "service" and value != "..." and value not in known:
                wrong.append(f"service={value} in `{span}`")
    assert wrong == []


@every_document
def test_nodes_and_units_that_are_named_exist(path: Path) -> None:
    wrong = []
    for span in code(path):
        found = re.findall(r"\bNODE=([\w-]+)|ssh (?:-N )?-F \S+ (?:ui-)?([a-z][\w-]*)", span)
        wrong += [f"node {name} in `{span}`" for name in ("".join(groups) for groups in found) if name not in nodes()]
        named = re.findall(r"journalctl -u '?([\w@*-]+)|systemctl (?:re)?st(?:art|op|atus) ([\w@ -]+)", span)
        for name in " ".join("".join(groups) for groups in named).split():
            if name not in units() | {"UNIT"} and not any(unit.startswith(name.rstrip("*")) for unit in units()):
                wrong.append(f"unit {name} in `{span}`")
    assert wrong == []


@every_document
def test_journals_are_read_as_root(path: Path) -> None:
    """The nodes' user is in no group that may: without sudo a journal looks empty."""
    assert [span for span in code(path) if re.search(r"(?<!sudo )journalctl", span)] == []


def test_links_lead_to_headings() -> None:
    broken = []
    for path in tracked():
        if path.suffix != ".md":
            continue
        for target, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)]+)\)", path.read_text()):
            to = path.parent / target if target else path
            if to.is_file() and anchor not in anchors(to):
                broken.append(f"{relative(path)}: {target}#{anchor}")
    assert broken == []


# The translation


def english() -> set[str]:
    return {span for path in ENGLISH for span in code(path)}


def test_readmes_lead_to_each_other() -> None:
    assert f"]({VIETNAMESE.name})" in README.read_text().split("\n## ")[0]
    assert f"]({README.name})" in VIETNAMESE.read_text().split("\n## ")[0]


def test_translation_has_no_command_of_its_own() -> None:
    typed = re.compile(r"(?:make|ssh|psql|ansible-playbook|terraform|pytest|sudo|kafka-[\w-]+|tools/\w+) ")
    assert [span for span in code(VIETNAMESE) if typed.match(f"{span} ") and span not in english()] == []


def test_translation_has_every_check() -> None:
    checks, seed = set(), section(README, "Check it")
    for cell in (row[1] for row in rows(seed)):
        checks |= {span.replace("\\|", "|") for span in re.findall(r"`([^`]+)`", cell)}
    checks |= {command(line) for line in blocks(seed)[0] if line.strip().startswith("psql")}
    assert len(checks) > 15
    assert checks - set(code(VIETNAMESE)) == set()


def test_translation_has_every_web_page() -> None:
    pages = set(re.findall(r"http://localhost:\d+", section(README, "Web pages")))
    assert pages - set(re.findall(r"http://localhost:\d+", VIETNAMESE.read_text())) == set()


@pytest.mark.parametrize("case", CASES_IN_VIETNAMESE)
def test_case_goes_from_symptom_to_cure_in_translation_too(case: str) -> None:
    text = section(VIETNAMESE, case)
    steps = ("**Triệu chứng:**", "**Xem:**", "**Nguyên nhân:**", "**Cách chữa:**")
    assert [step for step in steps if step not in text] == []


# The seed's cases


def test_every_case_is_provoked_by_a_test_of_the_lab() -> None:
    tests = REPOSITORY / "tests"
    table = ast.get_docstring(ast.parse((tests / "lab" / "test_lab_troubleshooting.py").read_text())) or ""
    assert [case for case in CASES if f"\n{case} " not in table] == []
    named = re.findall(r"\b(test_lab_\w+)::(test_\w+)|\s(test_(?!lab_)\w+)$", table, re.MULTILINE)
    assert len(named) > len(CASES)
    for file, elsewhere, here in named:
        text = (tests / "lab" / f"{file or 'test_lab_troubleshooting'}.py").read_text()
        assert f"def {elsewhere or here}(" in text, elsewhere or here


@every_case
def test_case_goes_from_symptom_to_cure(case: str) -> None:
    places = [section(TROUBLESHOOTING, case).find(f"- **{step}:**") for step in ("Symptom", "Look", "Cause", "Cure")]
    assert -1 not in places
    assert places == sorted(places)


@every_case
def test_case_has_one_command_that_cures_it(case: str) -> None:
    cure = section(TROUBLESHOOTING, case).partition("- **Cure:** ")[2]
    assert re.match(r"`(?:make|ansible-playbook ansible/playbooks)[ /]", cure)


def words() -> str:
    """Return every text that our programs may print, one a line."""
    texts = set()
    for path in tracked():
        if path.suffix == ".py" and ("src" in path.parts or path.is_relative_to(REPOSITORY / "tools" / "lab")):
            texts |= {
                node.value
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
    return "\n".join(sorted(texts))


def messages() -> set[str]:
    """Return what the first columns of the cases' tables quote."""
    cells = (row[0] for case in CASES for row in rows(section(TROUBLESHOOTING, case)))
    return {span for cell in cells for span in re.findall(r"`([^`]+)`", cell)}


def test_messages_that_are_quoted_are_those_of_the_programs() -> None:
    said = words()
    wrong = [
        f"{message}: nobody says '{part}'"
        for message in messages() - FOREIGN
        # Numbers, pairs and dots stand for what differs from time to time.
        for part in re.split(r"\d+(?:/\d+)?|[A-Z]+-USD|\.\.\.", message)
        if part.strip() and part.strip() not in said
    ]
    assert wrong == []


def test_words_of_other_programs_are_still_quoted() -> None:
    assert FOREIGN - messages() == set()
