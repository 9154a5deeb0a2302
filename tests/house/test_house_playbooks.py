"""What the playbooks and the roles must agree about, and in which order things come."""

from __future__ import annotations

from typing import Any

from house_files import GROUP_VARS, ROLES, lab, read, tasks

PLAYBOOKS = GROUP_VARS.parents[1]
AIRFLOW = next(role for role in ROLES if role.name == "airflow")


def site_task(name: str) -> dict[str, Any]:
    """Return a task of site.yml."""
    (found,) = [task for play in read(PLAYBOOKS / "site.yml") for task in play.get("tasks", []) if task["name"] == name]
    return dict(found)


def test_monitoring_that_is_not_wanted_is_stopped_whole() -> None:
    services = lab()["lab_monitoring_services"]
    assert services == [
        name for name, group in lab()["lab_services"].items() if group == "monitoring" or name.startswith("prometheus")
    ]
    assert site_task("Stop monitoring that is not wanted")["loop"] == (
        "{{ lab_monitoring_services | map('replace', '_', '-') }}"
    )
    for role in ROLES:
        if role.name in services:
            assert [path.name for path in role.glob("templates/*.service.j2")] == [
                f"{role.name.replace('_', '-')}.service.j2"
            ]


def test_airflow_that_is_not_wanted_is_stopped_whole() -> None:
    stopped = site_task("Stop Airflow that is not wanted")["loop"]
    assert sorted(stopped) == sorted(read(AIRFLOW / "vars" / "main.yml")["__airflow_components"])


def test_airflow_does_not_run_while_its_database_is_migrated() -> None:
    (block,) = [task["block"] for task in tasks(AIRFLOW / "tasks" / "database.yml") if "block" in task]
    assert block[0]["ansible.builtin.import_tasks"] == "stop.yml"
    assert block[1]["ansible.builtin.command"].endswith("airflow db migrate")
    stages = [task["ansible.builtin.import_tasks"] for task in list(tasks(AIRFLOW / "tasks" / "main.yml"))[1:]]
    assert stages == ["install.yml", "configure.yml", "database.yml", "service.yml"], "which starts it again"


def test_airflows_release_is_brought_once_in_a_run() -> None:
    """By the play that brings all releases; by the role itself, where that play has not run."""
    install = next(
        task for task in tasks(AIRFLOW / "tasks" / "main.yml")
        if task.get("ansible.builtin.import_tasks") == "install.yml"
    )  # fmt: skip
    assert install["when"] == "not __airflow_installed | default(false)"
    # Last of all: not where something before it has failed.
    assert list(tasks(AIRFLOW / "tasks" / "install.yml"))[-1]["ansible.builtin.set_fact"] == {
        "__airflow_installed": True
    }
    early = site_task("Bring Airflow's release")["ansible.builtin.include_role"]
    assert early["apply"]["tags"] == install["tags"]
