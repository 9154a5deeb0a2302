"""The diagram and the table of docs/architecture.md are the topology's, the playbook's and the pages'."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from house_documents import rows, section
from house_files import BLOCKS, REPOSITORY, ROLES, contract, read

DOCUMENT = REPOSITORY / "docs" / "architecture.md"
CHAPTER = section(DOCUMENT, "Nodes, groups and flows")
PLAYBOOKS = REPOSITORY / "ansible" / "playbooks"
PAGES = json.loads((REPOSITORY / "terraform" / "modules" / "inventory" / "pages.json").read_text())
EVERYWHERE, CONTROLLER = "every node", "the controller"
NODE = re.compile(r"^ *(\w+)[\[(]+\"([^\"]+)\"", re.MULTILINE)


def diagram() -> str:
    """Return the Mermaid diagram."""
    (found,) = re.findall(r"^```mermaid\n(.*?)^```", CHAPTER, re.MULTILINE | re.DOTALL)
    return str(found)


def boxes() -> dict[str, str]:
    """Return box of the diagram => its lines."""
    found = re.findall(r'^ *subgraph (\w+)\["(\w+)"\]\n(.*?)^ *end$', diagram(), re.MULTILINE | re.DOTALL)
    assert [name for name, shown, _ in found if name != shown] == []
    return {name: lines for name, _, lines in found}


def groups() -> set[str]:
    """Return the groups of the topology `small`."""
    nodes = read(REPOSITORY / "terraform" / "topologies" / "small.yaml")["nodes"]
    return {group for node in nodes.values() for group in node["groups"]}


def table() -> dict[str, list[str]]:
    """Return first cell without its code marks => the other cells."""
    return {row[0].strip("`"): row[1:] for row in rows(CHAPTER)}


def installed() -> dict[str, set[str]]:
    """Return role => the groups on whose nodes site.yml runs it."""

    def where(task: dict[str, Any], hosts: str) -> set[str]:
        condition = str(task.get("when", ""))
        named = set(re.findall(r"'(\w+)' in group_names", condition))
        named |= {
            name for listed in re.findall(r"group_names \| intersect\(\[([^]]+)\]", condition)
            for name in re.findall(r"\w+", listed)
        }  # fmt: skip
        return named or ({EVERYWHERE} if hosts == "all" else set(hosts.split(":")))

    found: dict[str, set[str]] = {}
    for play in read(PLAYBOOKS / "site.yml"):
        tasks = [*play.get("tasks", [])]
        while tasks:
            task = tasks.pop()
            tasks += [inner for key in BLOCKS for inner in task.get(key, [])]
            role = task.get("ansible.builtin.include_role", {})
            # A role's other files check, verify or prepare what its main one installs.
            if role and "tasks_from" not in role:
                found.setdefault(role["name"], set()).update(where(task, play["hosts"]))
    for play in read(PLAYBOOKS / "artifacts.yml"):
        for role in play["roles"]:
            found.setdefault(role["role"], set()).add(CONTROLLER)
    return found


def test_diagram_has_a_box_for_every_group() -> None:
    assert boxes().keys() == groups()


def test_table_has_a_row_for_every_group() -> None:
    assert table().keys() == groups() | {EVERYWHERE, CONTROLLER}


def test_table_has_the_roles_that_the_playbook_runs_there() -> None:
    shown: dict[str, set[str]] = {}
    for group, cells in table().items():
        for role in re.findall(r"`(\w+)`", cells[1]):
            shown.setdefault(role, set()).add(group)
    assert shown == installed()
    assert shown.keys() == {role.name for role in ROLES}


def test_table_has_the_web_pages() -> None:
    shown = {(group, int(port)) for group, cells in table().items() for port in re.findall(r"\d+", cells[2])}
    assert shown == {(page["group"], page["port"]) for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page["name"])
def test_diagram_has_the_web_page(page: dict[str, Any]) -> None:
    labels = [label for _, label in NODE.findall(boxes()[page["group"]])]
    assert [label for label in labels if f":{page['port']}" in label], f"no {page['name']} in the box {page['group']}"


def test_ports_of_the_diagram_are_the_contracts() -> None:
    known = {*contract()["contract_ports"].values()} | {page["port"] for page in PAGES}
    assert {int(port) for port in re.findall(r":(\d+)", diagram())} - known == set()


def test_diagram_has_what_the_lab_consists_of() -> None:
    text = diagram()
    for part in ("Coinbase", "Kafka UI", "Prometheus", "Dashboard", "Airflow", "node_exporter", "postgres_exporter"):
        assert part in text, part
    # Everything else that Prometheus asks shows metrics of its own.
    metrics = {name: port for name, port in contract()["contract_ports"].items() if name.endswith("_metrics")}
    assert {name for name, port in metrics.items() if f":{port}" not in text} == set()


def test_arrows_are_between_parts_of_the_diagram() -> None:
    arrows = re.findall(r'^ *(\w+) -\.?->(?:\|"[^"]*"\|)? (\w+)$', diagram(), re.MULTILINE)
    known = [name for name, _ in NODE.findall(diagram()) if name != "subgraph"]
    assert len(known) == len(set(known))
    assert len(arrows) == len(re.findall(r"->", diagram()))
    assert {end for arrow in arrows for end in arrow} - set(known) == set()
    assert set(known) - {end for arrow in arrows for end in arrow} == set(), "a part that nothing leads to"
