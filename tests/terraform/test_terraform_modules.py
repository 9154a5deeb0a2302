"""`terraform test`, `fmt` and `validate`, and plans of terraform/lxd that must be refused. Nothing is ever applied."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TERRAFORM = REPOSITORY / "terraform"
LXD = TERRAFORM / "lxd"
WORKSPACE = "plan-test"

pytestmark = pytest.mark.skipif(shutil.which("terraform") is None, reason="no program terraform: make setup")


def terraform(*arguments: str, root: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run terraform in a folder, apart from the workspace that a user may have chosen."""
    clean = {name: value for name, value in os.environ.items() if name != "TF_WORKSPACE"}
    return subprocess.run(
        ["terraform", f"-chdir={root}", *arguments],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        env={**clean, "TF_IN_AUTOMATION": "1", "TF_INPUT": "0", **(env or {})},
    )  # fmt: skip


def test_tflint_has_nothing_to_say() -> None:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / "tflint.py")], capture_output=True, text=True, check=False
    )
    if done.returncode == 3:
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_topology_module(tmp_path: Path) -> None:
    root, env = TERRAFORM / "modules" / "topology", {"TF_DATA_DIR": str(tmp_path)}
    done = terraform("init", "-backend=false", "-no-color", root=root, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    done = terraform("test", "-no-color", root=root, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    # A folder without test files passes too.
    assert int(re.findall(r"(\d+) passed, 0 failed", done.stdout)[0]) >= 30


def test_format() -> None:
    done = terraform("fmt", "-check", "-recursive", "-diff", "-no-color", root=TERRAFORM)
    assert done.returncode == 0, done.stdout + done.stderr


def test_lxd_is_valid() -> None:
    if not (LXD / ".terraform" / "providers").is_dir():
        pytest.skip("terraform/lxd is not initialised: make setup")
    done = terraform("validate", "-no-color", root=LXD)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "path", sorted(TERRAFORM.rglob("*.tf")), ids=lambda path: str(path.relative_to(TERRAFORM)) if path else ""
)
def test_everything_public_is_described(path: Path) -> None:
    text = path.read_text()
    for kind, name, body in re.findall(r'^(variable|output) "(\w+)" \{\n(.*?)^\}', text, re.MULTILINE | re.DOTALL):
        assert re.search(r"^  description\s*=\s*\"\S", body, re.MULTILINE), f"{kind} {name} has no description"
        if kind == "variable":
            assert re.search(r"^  type\s*=", body, re.MULTILINE), f"variable {name} has no type"


# Plans of terraform/lxd


def client() -> str:
    """Return the container manager's client that answers; skips where there is none."""
    for program in ("lxc", "incus"):
        if shutil.which(program):
            try:
                asked = subprocess.run([program, "query", "/1.0"], capture_output=True, timeout=30, check=False)
            except subprocess.TimeoutExpired:
                continue
            if asked.returncode == 0:
                return program
    pytest.skip("neither lxc nor incus answers: make setup")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initialised copy of terraform/lxd, so that no state or workspace of the checkout is touched."""
    providers = LXD / ".terraform" / "providers"
    if not providers.is_dir():
        pytest.skip("terraform/lxd is not initialised: make setup")
    tree = tmp_path_factory.mktemp("plans") / "terraform"
    shutil.copytree(
        TERRAFORM, tree, ignore=shutil.ignore_patterns(".terraform", ".terraform.lock.hcl", "terraform.tfstate*")
    )
    done = terraform("init", "-no-color", f"-plugin-dir={providers}", root=tree / "lxd")
    assert done.returncode == 0, done.stdout + done.stderr
    return tree / "lxd"


def plan(root: Path, **variables: str) -> list[str]:
    """Plan in the scratch workspace; returns the texts of all errors, unwrapped."""
    options = [f"-var={name}={value}" for name, value in variables.items()]
    done = terraform("plan", "-json", "-lock=false", *options, root=root, env={"TF_WORKSPACE": WORKSPACE})
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    errors = [event["diagnostic"]["detail"] for event in events if event["@level"] == "error"]
    assert (done.returncode != 0) == bool(errors), done.stdout + done.stderr
    return errors


def a_taken_subnet() -> str:
    """Return a subnet that this machine has a route to already; skips where there is none."""
    routes = json.loads(subprocess.run(["ip", "-json", "-4", "route"], capture_output=True, check=True).stdout or "[]")
    for route in routes:
        if route["dst"] != "default" and route.get("type") != "blackhole":
            network = ipaddress.ip_network(route["dst"], strict=False)
            return str(network if network.prefixlen <= 24 else network.supernet(new_prefix=24))
    pytest.skip("this machine has no route but the default")


def test_plan_lists_all_that_is_wrong_at_once(root: Path, tmp_path: Path) -> None:
    program, subnet = client(), a_taken_subnet()
    topology = tmp_path / "wrong.yaml"
    topology.write_text(
        "nodes:\n"
        "  kafka-1: {groups: [kafka], vcpus: 9999, memory_mib: 128}\n"
        "  Kafka_2: {groups: [kafka, kafca], vcpus: 1, memory_mib: 99999999, disk: big}\n"
    )
    errors = plan(root, client=program, topology=str(topology), subnet=subnet)
    assert len(errors) == 1, "more than one message, or none"
    for text in (
        f"subnet {subnet} overlaps with the route to ",
        "node name 'Kafka_2' is no host name",
        "node Kafka_2 has an unknown key 'disk'",
        "node Kafka_2 is in an unknown group 'kafca'",
        "no node is in group postgres",
        "no node is in group submitter",
        "node kafka-1: memory_mib must be a whole number of at least 256",
        "node kafka-1 asks for 9999 vCPUs, the host has ",
        "the nodes ask for 100000127 MiB of memory",
    ):
        assert f"  - {text}" in errors[0]

    assert [
        path for path in root.rglob("terraform.tfstate*") if path.is_file() and ".terraform/" not in str(path)
    ] == []
    assert not (root.parents[1] / ".lab").exists()
    for path in ("instances", "networks", "storage-pools"):
        shown = subprocess.run([program, "query", f"/1.0/{path}"], capture_output=True, text=True, check=True).stdout
        assert not [entry for entry in json.loads(shown) if entry.split("/")[-1].startswith(WORKSPACE)]


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"lab_name": "Lab"}, "lab_name: use 1 to 12 of"),
        ({"lab_name": "thirteen-char"}, "lab_name: use 1 to 12 of"),
        ({"topology": "enormous"}, "topology: neither a topology of that name"),
        ({"subnet": "10.77.0.0"}, "subnet: give an IPv4 network"),
        ({"client": "docker"}, "client: must be lxc or incus"),
    ],
)
def test_wrong_variable_is_refused(root: Path, variables: dict[str, str], text: str) -> None:
    errors = plan(root, **variables)
    assert any(text in error for error in errors), errors


def test_plan_without_a_container_manager_says_what_to_do(root: Path) -> None:
    missing = next((program for program in ("incus", "lxc") if shutil.which(program) is None), None)
    if missing is None:
        pytest.skip("both lxc and incus are installed here")
    errors = plan(root, client=missing)
    assert len(errors) == 1
    assert f"the program {missing} is not there: `make setup` installs LXD" in errors[0]
