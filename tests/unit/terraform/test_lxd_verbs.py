"""The verbs of terraform/lxd/scripts/lxd.py against a container manager that keeps its state in a file."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Spec = dict[str, Any]
OWNER, STRANGER = "/srv/ann/lab", "/srv/bob/lab"
READY: dict[str, Any] = {}

# Routes to the lab count, but not the default route; what is left is refused.
RULES_ADDED = [
    "rule add to 10.77.0.0/24 lookup main suppress_prefixlength 0 pref 32700",
    "rule add to 10.77.0.0/24 blackhole pref 32701",
]


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    """What Terraform hands to the verbs, all keys in one."""
    return {
        "client": "lxc", "lab": "one", "owner": OWNER, "generation": "g1",
        "pool": "one", "volume": "state", "network": "one-br", "domain": "one.internal",
        "address": "10.77.0.11", "subnet": "10.77.0.0/24", "instance": "one-kafka-1", "name": "kafka-1",
        "vcpus": 2, "memory_mib": 1024, "path": str(tmp_path / "keys" / "id_ed25519"),
        "public_key": str(tmp_path / "keys" / "id_ed25519.pub"), "hosts_dir": str(tmp_path / "known_hosts.d"),
    }  # fmt: skip


@pytest.fixture
def network_spec(spec: Spec) -> Spec:
    return {**spec, "name": "one-br", "address": "10.77.0.1/24"}


@pytest.fixture
def verb(lxd: ModuleType, host: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, Spec], None]:
    monkeypatch.setenv("IMAGE", "csl-node-x")
    monkeypatch.setenv("VCPUS", "2")
    monkeypatch.setenv("MEMORY_MIB", "1024")
    monkeypatch.setenv("ARTIFACTS", str(tmp_path / "bundles"))
    assert host.things()

    def call(name: str, spec: Spec) -> None:
        lxd.VERBS[name](lxd.Client(spec["client"]), spec)

    return call


@pytest.fixture
def ready(verb: Callable[[str, Spec], None], spec: Spec, network_spec: Spec, host: Any) -> Any:
    """A lab with its network, its storage and one node, made by the verbs once and then remembered."""
    if not READY:
        verb("network-up", network_spec)
        verb("storage-up", spec)
        verb("node-up", spec)
        host.calls()
        READY.update(host.state)
    host.update(READY)
    return host


def strangers(host: Any) -> None:
    """Put things of another owner under the names that the lab wants."""
    foreign = {"user.csl.lab": "one", "user.csl.owner": STRANGER, "user.csl.generation": "g0", "user.csl.ready": "true"}
    host.update({
        "instances": {"one-kafka-1": {"name": "one-kafka-1", "config": foreign, "devices": {}, "status": "Running",
                                      "boot": ["running"], "pool": "one", "network": "one-br"}},
        "networks": {"one-br": {"name": "one-br", "config": {**foreign, "ipv4.address": "10.77.0.1/24"}}},
        "storage-pools": {"one": {"name": "one", "config": foreign, "volumes": ["state"]}},
    })  # fmt: skip


def test_network(verb: Callable[[str, Spec], None], network_spec: Spec, host: Any) -> None:
    verb("network-up", network_spec)
    config = host.state["networks"]["one-br"]["config"]
    assert config["ipv4.address"] == "10.77.0.1/24"
    assert (config["ipv4.nat"], config["ipv6.address"], config["dns.domain"]) == ("true", "none", "one.internal")
    assert config["user.csl.owner"] == OWNER
    assert config["user.csl.generation"] == "g1"
    assert host.ip_calls == RULES_ADDED


def test_node(ready: Any) -> None:
    node = ready.state["instances"]["one-kafka-1"]
    assert node["status"] == "Running"
    assert node["image"] == "csl-node-x"
    assert (node["pool"], node["network"]) == ("one", "one-br")
    assert node["devices"] == {
        "eth0": {"ipv4.address": "10.77.0.11"},
        "state": {"pool": "one", "source": "state", "path": "/srv/lab-state"},
        "artifacts": {
            "source": node["devices"]["artifacts"]["source"], "path": "/srv/lab-artifacts",
            "readonly": "true", "required": "false",
        },
    }  # fmt: skip
    assert Path(node["devices"]["artifacts"]["source"]).name == "bundles"
    config = node["config"]
    assert (config["limits.cpu"], config["limits.memory"]) == ("2", "1024MiB")
    assert (config["user.csl.lab"], config["user.csl.owner"]) == ("one", OWNER)
    assert (config["user.csl.generation"], config["user.csl.ready"]) == ("g1", "true")


def test_storage(ready: Any) -> None:
    pool = ready.state["storage-pools"]["one"]
    assert pool["volumes"] == ["state"]
    assert pool["config"]["user.csl.owner"] == OWNER


@pytest.mark.parametrize("name", ["network-up", "storage-up", "limits-up"])
def test_up_again_changes_nothing(
    name: str, verb: Callable[[str, Spec], None], spec: Spec, network_spec: Spec, ready: Any
) -> None:
    before = ready.things()
    verb(name, network_spec if name.startswith("network") else spec)
    assert ready.calls() == []
    assert ready.things() == before


def test_node_up_again_keeps_the_node(verb: Callable[[str, Spec], None], spec: Spec, ready: Any) -> None:
    before = ready.things()
    verb("node-up", spec)
    # That it is ready is written once more; nothing else.
    assert ready.calls() == ["config set one-kafka-1 user.csl.ready true"]
    assert ready.things() == before


def test_node_up_starts_a_stopped_node(verb: Callable[[str, Spec], None], spec: Spec, ready: Any) -> None:
    instances = ready.state["instances"]
    instances["one-kafka-1"]["status"] = "Stopped"
    ready.update({"instances": instances})
    verb("node-up", spec)
    assert ready.calls()[0] == "start one-kafka-1"
    assert ready.state["instances"]["one-kafka-1"]["status"] == "Running"


def test_storage_up_adds_a_missing_volume(verb: Callable[[str, Spec], None], spec: Spec, host: Any) -> None:
    host.update({"faults": {"storage volume create": 1}})
    with pytest.raises(Exception, match="fault injected"):
        verb("storage-up", spec)
    host.calls()
    verb("storage-up", spec)
    assert host.calls() == ["storage volume create one state"]


@pytest.mark.parametrize("fault", ["config device set", "config device add", "start", "config set"])
def test_half_made_node_is_made_anew(
    fault: str, lxd: ModuleType, verb: Callable[[str, Spec], None], spec: Spec, network_spec: Spec, host: Any
) -> None:
    verb("network-up", network_spec)
    verb("storage-up", spec)
    host.update({"faults": {fault: 1}})
    with pytest.raises(lxd.VerbError, match="fault injected"):
        verb("node-up", spec)
    assert "user.csl.ready" not in host.state["instances"]["one-kafka-1"]["config"]
    host.calls()
    verb("node-up", spec)
    assert host.calls()[0] == "delete --force one-kafka-1"
    node = host.state["instances"]["one-kafka-1"]
    assert node["status"] == "Running"
    assert set(node["devices"]) == {"eth0", "state", "artifacts"}
    assert node["config"]["user.csl.ready"] == "true"


def test_node_of_an_older_generation_is_made_anew(verb: Callable[[str, Spec], None], spec: Spec, ready: Any) -> None:
    verb("node-up", {**spec, "generation": "g2"})
    assert ready.calls()[0] == "delete --force one-kafka-1"
    assert ready.state["instances"]["one-kafka-1"]["config"]["user.csl.generation"] == "g2"


def test_node_that_never_boots(
    lxd: ModuleType, verb: Callable[[str, Spec], None], spec: Spec, ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    instances = ready.state["instances"]
    instances["one-kafka-1"]["boot"] = ["maintenance"]
    ready.update({"instances": instances})
    monkeypatch.setattr(lxd, "BOOT_TIMEOUT_S", 0.2)
    with pytest.raises(lxd.VerbError, match=r"one-kafka-1 did not finish booting .*maintenance.*console one-kafka-1"):
        verb("node-up", spec)


def test_limits_are_changed_on_the_running_node(verb: Callable[[str, Spec], None], spec: Spec, ready: Any) -> None:
    verb("limits-up", {**spec, "vcpus": 2, "memory_mib": 2048})
    assert ready.calls() == ["config set one-kafka-1 limits.memory=2048MiB"]
    config = ready.state["instances"]["one-kafka-1"]["config"]
    assert (config["limits.cpu"], config["limits.memory"]) == ("2", "2048MiB")


@pytest.mark.parametrize("name", ["network-down", "storage-down", "node-down"])
def test_down_leaves_a_strangers_things_alone(
    name: str, verb: Callable[[str, Spec], None], spec: Spec, network_spec: Spec, host: Any
) -> None:
    strangers(host)
    before = host.things()
    verb(name, network_spec if name.startswith("network") else spec)
    assert host.calls() == []
    assert host.things() == before


@pytest.mark.parametrize("name", ["network-up", "storage-up", "node-up"])
def test_up_refuses_a_strangers_name(
    name: str, lxd: ModuleType, verb: Callable[[str, Spec], None], spec: Spec, network_spec: Spec, host: Any
) -> None:
    strangers(host)
    before = host.things()
    with pytest.raises(lxd.VerbError, match=r"already exists|is there already"):
        verb(name, network_spec if name.startswith("network") else spec)
    assert host.things() == before


@pytest.mark.parametrize("name", ["network-down", "storage-down", "node-down", "access-down"])
def test_down_of_what_is_gone_succeeds(
    name: str, verb: Callable[[str, Spec], None], spec: Spec, network_spec: Spec, host: Any
) -> None:
    verb(name, network_spec if name.startswith("network") else spec)
    assert host.calls() == []


def test_everything_goes(verb: Callable[[str, Spec], None], spec: Spec, network_spec: Spec, ready: Any) -> None:
    for name in ("node-down", "storage-down"):
        verb(name, spec)
    verb("network-down", network_spec)
    assert ready.things() == {"instances": {}, "networks": {}, "storage-pools": {}, "images": {}}


@pytest.mark.parametrize("name", ["storage-down", "network-down"])
def test_leftovers_go_with_storage_and_network(
    name: str, verb: Callable[[str, Spec], None], spec: Spec, network_spec: Spec, ready: Any
) -> None:
    instances = ready.state["instances"]
    foreign = {**instances["one-kafka-1"], "name": "two-kafka-1", "pool": "two", "network": "two-br"}
    foreign["config"] = {**foreign["config"], "user.csl.owner": STRANGER}
    ready.update({"instances": {**instances, "two-kafka-1": foreign}})
    verb(name, network_spec if name.startswith("network") else spec)
    assert set(ready.state["instances"]) == {"two-kafka-1"}
    assert ready.state["networks" if name.startswith("network") else "storage-pools"] == {}


@pytest.mark.parametrize("fault", ["storage volume delete", "storage delete"])
def test_storage_down_waits_until_the_volume_is_let_go(
    fault: str, verb: Callable[[str, Spec], None], spec: Spec, ready: Any
) -> None:
    ready.update({"faults": {fault: 3}})
    verb("storage-down", spec)
    assert ready.state["storage-pools"] == {}


def test_node_down_waits_until_the_node_has_started(verb: Callable[[str, Spec], None], spec: Spec, ready: Any) -> None:
    ready.update({"faults": {"delete --force one-kafka-1": 3}})
    verb("node-down", spec)
    assert ready.state["instances"] == {}


def test_storage_down_gives_up_with_the_clients_words(
    lxd: ModuleType, verb: Callable[[str, Spec], None], spec: Spec, ready: Any
) -> None:
    ready.update({"faults": {"storage delete": 99}})
    with pytest.raises(lxd.VerbError, match="lxc storage delete one: Error: fault injected"):
        verb("storage-down", spec)


def test_ssh_key(verb: Callable[[str, Spec], None], spec: Spec) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("no program ssh-keygen: apt-get install openssh-client")
    private, public = Path(spec["path"]), Path(spec["public_key"])
    verb("ssh-key-up", spec)
    first = private.read_bytes()
    assert public.read_text().split()[0] == "ssh-ed25519"
    assert public.read_text().split()[2] == "g1"
    assert private.stat().st_mode & 0o077 == 0
    assert private.parent.stat().st_mode & 0o077 == 0

    verb("ssh-key-up", spec)
    assert private.read_bytes() == first
    public.unlink()
    verb("ssh-key-up", spec)
    assert private.read_bytes() != first
    second = private.read_bytes()
    verb("ssh-key-up", {**spec, "generation": "g2"})
    assert private.read_bytes() != second
    assert public.read_text().split()[2] == "g2"


def test_access(verb: Callable[[str, Spec], None], spec: Spec, ready: Any) -> None:
    public, known = Path(spec["public_key"]), Path(spec["hosts_dir"], "kafka-1")
    public.parent.mkdir(parents=True)
    public.write_text("ssh-ed25519 OURS g1\n")
    for _ in range(2):
        verb("access-up", spec)
        assert ready.state["instances"]["one-kafka-1"]["authorized_keys"] == "ssh-ed25519 OURS g1\n"
        assert known.read_text() == "10.77.0.11 ssh-ed25519 HOSTKEYOFone-kafka-1\n"
    assert ready.calls() == []
    verb("access-down", spec)
    assert not known.exists()


def test_blackhole_rules_go(verb: Callable[[str, Spec], None], spec: Spec, host: Any) -> None:
    verb("routes-down", spec)
    assert host.ip_calls == [call.replace(" add ", " del ") for call in RULES_ADDED]


def test_client_that_does_not_answer_is_no_absence(
    lxd: ModuleType, verb: Callable[[str, Spec], None], spec: Spec, ready: Any
) -> None:
    ready.update({"down": "cannot connect to the socket"})
    with pytest.raises(lxd.VerbError, match="cannot connect to the socket"):
        verb("storage-down", spec)


def test_command_line(
    lxd: ModuleType, spec: Spec, host: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPEC", json.dumps(spec))
    monkeypatch.setattr("sys.argv", ["lxd.py", "storage-up"])
    assert lxd.main() == 0
    assert host.state["storage-pools"]["one"]["volumes"] == ["state"]

    host.update({"down": "cannot connect to the socket"})
    assert lxd.main() == 1
    assert "storage-up of kafka-1: lxc query /1.0/storage-pools/one: Error: cannot connect" in capsys.readouterr().err

    monkeypatch.setattr("sys.argv", ["lxd.py", "explode"])
    assert lxd.main() == 2
    assert "network-up" in capsys.readouterr().err


def test_an_unanswered_question_at_boot_is_asked_again(lxd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([subprocess.TimeoutExpired(["lxc"], 10), subprocess.CompletedProcess([], 0, "running\n", "")])

    def run(*_: object, **options: object) -> object:
        assert options["timeout"] == lxd.EXEC_TIMEOUT_S
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(lxd.subprocess, "run", run)
    lxd._wait_for_boot(lxd.Client("lxc"), "lab-kafka-1")
    assert next(answers, None) is None
