"""Every role has the same shape: see docs and the roles themselves; this is what keeps them from drifting."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from house_files import (
    BLOCKS,
    REPOSITORY,
    ROLES,
    defaults,
    entry_points,
    environment,
    lab,
    options,
    read,
    task_files,
    tasks,
)

# Roles that put something on the controller, where nothing runs that could be unhealthy.
WITHOUT_VERIFY = {"artifacts"}
UNITS = sorted(path for role in ROLES for path in role.glob("templates/*.service.j2"))
# What a Java process ends with after SIGTERM is no failure.
JAVA_UNITS = {"kafka", "spark", "flink", "spark_job", "flink_job"}
BASELINE = {
    "NoNewPrivileges": "true", "LockPersonality": "true", "RestrictSUIDSGID": "true", "CapabilityBoundingSet": "",
    "RestrictAddressFamilies": None, "Restart": None, "TimeoutStopSec": None, "LimitNOFILE": None, "User": None,
    "StartLimitIntervalSec": None, "StartLimitBurst": None, "RestartSec": None,
}  # fmt: skip
SANDBOX = {
    "ProtectSystem": "strict", "ProtectHome": "true", "PrivateTmp": "true", "PrivateDevices": "true",
    "ProtectKernelTunables": "true", "ProtectKernelModules": "true", "ProtectKernelLogs": "true",
    "ProtectControlGroups": "true",
}  # fmt: skip

every_role = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
every_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.parents[1].name)


def test_roles_are_found() -> None:
    assert {role.name for role in ROLES} >= {"kafka", "postgres", "spark", "flink", "producer"}
    assert {unit.parents[1].name for unit in UNITS} >= {"kafka", "spark", "flink", "producer", "spark_job", "flink_job"}


@every_role
def test_skeleton(role: Path) -> None:
    wanted = ["tasks/main.yml", "meta/argument_specs.yml"]
    if role.name not in WITHOUT_VERIFY:
        wanted.append("tasks/verify.yml")
    assert [name for name in wanted if not (role / name).is_file()] == []
    assert "main" in entry_points(role)


@every_role
def test_main_only_includes(role: Path) -> None:
    for task in tasks(role / "tasks" / "main.yml"):
        included = task.get("ansible.builtin.include_tasks") or task.get("ansible.builtin.import_tasks")
        assert included, f"'{task.get('name')}' belongs into a file of its own"
        file = included["file"] if isinstance(included, dict) else included
        assert (role / "tasks" / file).is_file()


@every_role
def test_preflight_comes_before_any_change(role: Path) -> None:
    first = next(tasks(role / "tasks" / "main.yml"))
    included = first.get("ansible.builtin.import_tasks") or first["ansible.builtin.include_tasks"]
    assert (included if isinstance(included, str) else included["file"]) == "preflight.yml"
    assert first["tags"] == "always"


@every_role
def test_every_default_has_a_spec(role: Path) -> None:
    assert sorted(defaults(role).keys() - options(role).keys()) == []


@every_role
def test_specs_and_defaults_say_the_same(role: Path) -> None:
    drift = []
    for name, spec in options(role).items():
        if "default" in spec:
            if name not in defaults(role):
                drift.append(f"{name}: the spec has a default, defaults/main.yml has none")
            elif defaults(role)[name] != spec["default"]:
                drift.append(f"{name}: {spec['default']!r} in the spec, {defaults(role)[name]!r} in defaults/main.yml")
        elif spec.get("required"):
            if name in defaults(role):
                drift.append(f"{name}: required, and yet it has a default")
        elif name not in defaults(role):
            drift.append(f"{name}: neither required nor with a default")
        elif "{{" not in str(defaults(role)[name]):
            drift.append(f"{name}: its default {defaults(role)[name]!r} is not in the spec")
    assert drift == []


@every_role
def test_every_option_is_described_and_typed(role: Path) -> None:
    for name, spec in options(role).items():
        assert spec.get("description"), name
        assert spec.get("type"), name
        assert spec["type"] != "list" or spec.get("elements"), f"{name}: a list of what?"


@every_role
def test_public_names_start_with_the_roles_name(role: Path) -> None:
    names = [*defaults(role), *options(role)]
    assert [name for name in names if not name.startswith(f"{role.name}_")] == []


def public_of(included: str, name: str) -> bool:
    """Tell whether a name is an option of another role, which may be given to it."""
    return any(role.name == included and name in options(role) for role in ROLES)


@every_role
def test_private_names(role: Path) -> None:
    private, wrong = f"__{role.name}_", []
    wrong += [name for name in read(role / "vars" / "main.yml") or {} if not name.startswith(private)]
    for path in task_files(role):
        for task in tasks(path):
            names = [task["register"]] if "register" in task else []
            if "loop_var" in task.get("loop_control", {}):
                names.append(task["loop_control"]["loop_var"])
            included = task.get("ansible.builtin.include_role") or task.get("ansible.builtin.import_role")
            names += [name for name in task.get("vars", {}) if not (included and public_of(included["name"], name))]
            wrong += [f"{path.name}: {name}" for name in names if not name.startswith(private)]
            # A fact outlives the role: other roles may read it by the role's public name.
            facts = [name for name in task.get("ansible.builtin.set_fact", {}) if name != "cacheable"]
            wrong += [f"{path.name}: {name}" for name in facts if not name.startswith((private, f"{role.name}_"))]
    assert wrong == []


@every_role
def test_private_names_stay_inside(role: Path) -> None:
    others = [other.name for other in ROLES if other != role]
    for path in [*task_files(role), *role.glob("templates/*"), *role.glob("defaults/*.yml"), *role.glob("vars/*.yml")]:
        for name in re.findall(r"\b__([a-z]\w*)", path.read_text()):
            # The longest role's name that fits is the owner: __spark_job_x is not the role spark's.
            owner = max((other for other in [*others, role.name] if name.startswith(f"{other}_")), key=len, default="")
            assert owner == role.name, f"{path.name} uses __{name}, which is not its own"


@every_role
def test_modules_have_their_full_names(role: Path) -> None:
    keywords = {
        "name", "when", "loop", "loop_control", "register", "vars", "become", "become_user", "notify", "changed_when",
        "failed_when", "check_mode", "diff", "no_log", "retries", "delay", "until", "environment", "tags",
        "delegate_to", "run_once", "args", "listen", "ignore_unreachable", *BLOCKS,
    }  # fmt: skip
    for path in task_files(role):
        for task in tasks(path):
            modules = [key for key in task if key not in keywords and "." not in key]
            assert modules in ([], ["artifact_bundle"]), f"{path.name}: {task.get('name')}"


@pytest.mark.parametrize("role", [unit.parents[1] for unit in UNITS], ids=lambda role: role.name)
def test_verify_shows_the_journal_and_fails(role: Path) -> None:
    rescues = [task["rescue"] for task in tasks(role / "tasks" / "verify.yml") if "rescue" in task]
    assert rescues, "an unhealthy service must say why"
    for rescue in rescues:
        assert "journalctl" in str(rescue[0])
        assert "ansible.builtin.fail" in rescue[-1]
        assert "inventory_hostname" in rescue[-1]["ansible.builtin.fail"]["msg"]


@every_role
def test_what_can_be_stopped_can_be_started(role: Path) -> None:
    stop, start = (role / "tasks" / name for name in ("stop.yml", "start.yml"))
    assert stop.is_file() == start.is_file()
    if start.is_file():
        assert "verify.yml" in str(list(tasks(start))[-1])


@every_role
def test_notified_handlers_exist(role: Path) -> None:
    handlers = {handler["name"] for handler in read(role / "handlers" / "main.yml") or []}
    for path in task_files(role):
        for task in tasks(path):
            notified = [task.get("notify", []), task.get("vars", {}).get("artifacts_push_notify", [])]
            for name in [name for entry in notified for name in ([entry] if isinstance(entry, str) else entry)]:
                assert name in handlers or "{{" in name, f"{path.name} notifies '{name}'"


@every_role
def test_secrets_are_neither_logged_nor_readable(role: Path) -> None:
    for path in task_files(role):
        for task in tasks(path):
            if not any(key in task for key in BLOCKS) and re.search(r"password'?: |_password \}\}", str(task)):
                if "ansible.builtin.assert" in task:
                    continue
                assert task.get("no_log") is True, f"{path.name}: {task['name']}"
                module = task.get("ansible.builtin.copy") or task.get("ansible.builtin.template")
                assert module is None or module["mode"] in {"0600", "0640"}


@every_role
def test_packages_are_in_the_node_image(role: Path) -> None:
    """A node of a new image has no lists of packages, though they look fresh: others cannot be installed there."""
    recipe = read(REPOSITORY / "terraform" / "node_image" / "recipe.json")
    for path in task_files(role):
        for task in tasks(path):
            wanted = task.get("ansible.builtin.apt", {}).get("name", [])
            wanted = [wanted] if isinstance(wanted, str) else wanted
            names = {environment().from_string(name).render(defaults(role)) for name in wanted}
            assert names - set(recipe["packages"]) == set(), path.name


# Scenarios


@every_role
def test_every_role_has_its_scenarios(role: Path) -> None:
    scenarios = {path.parent.name: read(path) for path in role.glob("molecule/*/molecule.yml")}
    assert "default" in scenarios
    if any(role.glob("templates/*.service.j2")):
        given = scenarios["alternative"]["provisioner"]["inventory"]["group_vars"]["all"]
        assert given[f"{role.name}_systemd_sandbox"] is False, "the switch is tried both ways"
    if role.name in {"kafka", "spark", "flink"}:
        assert "cluster" in scenarios


@every_role
def test_every_scenario_begins_with_check_mode_on_a_fresh_node(role: Path) -> None:
    for path in role.glob("molecule/*/molecule.yml"):
        sequence = read(path).get("scenario", {}).get("test_sequence")
        if sequence is not None:
            order = [sequence.index(action) for action in ("check", "converge", "idempotence", "verify")]
            assert order == sorted(order), path.parent.name


def test_every_scenario_has_a_lab_of_its_own() -> None:
    """Two run at a time; see `molecule_lab` in .config/molecule/config.yml."""
    labs = []
    for path in (scenario for role in ROLES for scenario in role.glob("molecule/*/molecule.yml")):
        role, scenario = path.parents[2].name, path.parent.name
        short = role if len(role) < 8 else role[:4] + hashlib.sha1(role.encode()).hexdigest()[:3]  # noqa: S324 - a name
        labs.append(f"{short.replace('_', '-')}-{scenario[:4]}")
    assert len(labs) == len(set(labs))
    assert [lab for lab in labs if not re.fullmatch(r"[a-z][a-z0-9-]{0,11}", lab)] == []


def test_every_time_limit_grows_with_the_labs_patience() -> None:
    """An emulated node is as slow at one thing as at another."""
    limits = {
        name: value for role in ROLES for name, value in defaults(role).items()
        if re.search(r"_(timeout|watchdog)_s$", name)
    }  # fmt: skip
    assert len(limits) > 20
    scaled = {name: f"{{{{ {value} * lab_patience | default(1) | int }}}}" for name, value in limits.items()}
    assert {name: lab().get(name) for name in limits} == scaled


# Units


def directives(text: str) -> dict[str, str]:
    """Return a unit's directives; of those that are there more than once the last value that is no `~` list."""
    return dict(re.findall(r"^([A-Z]\w+)=(.*)$", text, re.MULTILINE))


def render(unit: Path, *, sandbox: bool) -> str:
    """Render a unit with its role's defaults and placeholders for what is required or computed."""
    role = unit.parents[1]
    context: dict[str, Any] = {name: f"<{name}>" for name in options(role)}
    context |= {name: value for name, value in defaults(role).items() if "{{" not in str(value)}
    context |= {"ansible_managed": "managed", "inventory_hostname": "node-1"}
    for name in re.findall(rf"\b(__{role.name}_\w+)", unit.read_text()):
        context[name] = f"<{name}>"
    context[f"{role.name}_systemd_sandbox"] = sandbox
    return environment().from_string(unit.read_text()).render(context)


@every_unit
@pytest.mark.parametrize("sandbox", [True, False])
def test_unit_baseline(unit: Path, sandbox: bool) -> None:
    found = directives(render(unit, sandbox=sandbox))
    wrong = {
        name: found.get(name) for name, value in BASELINE.items()
        if name not in found or (value is not None and found[name] != value) or (value is None and not found[name])
    }  # fmt: skip
    assert wrong == {}
    assert found["Restart"] in {"always", "on-failure"}
    assert found["Type"] in {"notify", "exec"}
    assert found["User"] != "root"
    assert "MemoryDenyWriteExecute" not in found, "a JVM, and Python's ctypes, make code at run time"


# With these systemd mounts /proc anew, without lxcfs's files, and the machine would be measured instead of the node.
FRESH_PROC = {"ProtectKernelTunables", "ProtectControlGroups"}
MEASURES_THE_NODE = {"prometheus_node_exporter"}


@every_unit
def test_unit_sandbox_is_a_switch(unit: Path) -> None:
    on, off = (directives(render(unit, sandbox=sandbox)) for sandbox in (True, False))
    wanted = SANDBOX
    if unit.parents[1].name in MEASURES_THE_NODE:
        wanted = {name: value for name, value in SANDBOX.items() if name not in FRESH_PROC}
        assert not on.keys() & FRESH_PROC
    assert {name: on.get(name) for name in wanted} == wanted
    assert [name for name in off if re.match(r"Protect|Private|ReadWrite|RestrictNamespaces|SystemCall", name)] == []


@pytest.mark.parametrize(
    "unit", [unit for unit in UNITS if unit.parents[1].name in JAVA_UNITS], ids=lambda unit: unit.parents[1].name
)
def test_unit_of_java_knows_its_exit_code(unit: Path) -> None:
    assert directives(render(unit, sandbox=True))["SuccessExitStatus"] == "143"


@every_unit
def test_unit_holds_no_secret(unit: Path) -> None:
    for line in unit.read_text().splitlines():
        assert not re.search(r"password|secret|token", line, re.IGNORECASE), line


@every_unit
def test_unit_is_templated_by_its_role_and_restarts_it(unit: Path) -> None:
    role = unit.parents[1]
    found = [
        task for path in task_files(role) for task in tasks(path)
        if task.get("ansible.builtin.template", {}).get("src") == unit.name
    ]  # fmt: skip
    assert len(found) == 1
    assert found[0]["notify"] == f"Restart {role.name}"
