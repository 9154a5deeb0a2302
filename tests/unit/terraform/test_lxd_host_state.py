"""What terraform/lxd/scripts/host_state.py says about a machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

OWNER, STRANGER = "/srv/ann/lab", "/srv/bob/lab"


def labels(owner: str, lab: str = "one", **more: str) -> dict[str, str]:
    return {"user.csl.lab": lab, "user.csl.owner": owner, "user.csl.generation": "g7", **more}


@pytest.fixture
def query(tmp_path: Path) -> dict[str, str]:
    return {
        "client": "lxc", "lab": "one", "owner": OWNER, "bridge": "one-br", "subnet": "10.77.0.0/24",
        "lab_dir": str(tmp_path / "lab"),
    }  # fmt: skip


@pytest.fixture
def survey(host_state: ModuleType, host: Any, query: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the survey on the fake host; returns (violations, generations, the whole answer)."""
    assert host.things()
    monkeypatch.setattr(host_state, "inotify_shortage", lambda _: [])

    def ask(**changes: str) -> tuple[list[str], dict[str, str], dict[str, str]]:
        answer = host_state.survey({**query, **changes})
        return json.loads(answer["violations"]), json.loads(answer["generations"]), answer

    return ask


@pytest.mark.parametrize(
    ("subnet", "routes", "conflicts"),
    [
        ("10.77.0.0/24", [], 0),
        ("10.77.0.0/24", [{"dst": "default", "dev": "eth0"}], 0),
        ("10.77.0.0/24", [{"dst": "10.77.1.0/24", "dev": "eth0"}], 0),
        ("10.77.0.0/24", [{"dst": "10.77.0.0/24", "dev": "eth0"}], 1),
        ("10.77.0.0/24", [{"dst": "10.77.0.128/25", "dev": "eth0"}], 1),
        ("10.77.0.0/24", [{"dst": "10.0.0.0/8", "dev": "tun0"}], 1),
        ("10.77.0.0/24", [{"dst": "10.77.0.9", "dev": "eth0"}], 1),
        ("10.77.0.0/24", [{"dst": "10.77.0.0/24", "dev": "one-br"}], 0),
        ("10.77.0.0/24", [{"type": "blackhole", "dst": "10.77.0.0/24"}], 0),
        ("10.77.0.0/24", [{"dst": "10.77.0.0/25", "dev": "a"}, {"dst": "10.77.0.128/25", "dev": "b"}], 2),
    ],
)
def test_subnet_conflicts(host_state: ModuleType, subnet: str, routes: list[dict[str, str]], conflicts: int) -> None:
    found = host_state.subnet_conflicts(subnet, "one-br", routes)
    assert len(found) == conflicts
    for text, route in zip(found, routes, strict=False):
        assert subnet in text
        assert route["dst"] in text
        assert route["dev"] in text


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"CSL_CACHE": "/cache", "XDG_CACHE_HOME": "/other"}, "/cache"),
        ({"XDG_CACHE_HOME": "/other"}, "/other/crypto-stream-lab"),
        ({"CSL_CACHE": "", "XDG_CACHE_HOME": ""}, str(Path.home() / ".cache" / "crypto-stream-lab")),
    ],
)
def test_nodes_mount_the_artifacts_of_the_cache(
    host_state: ModuleType, environment: dict[str, str], folder: str
) -> None:
    assert host_state.cache(environment) == Path(folder)


@pytest.mark.parametrize("subnet", ["10.77.0.1/24", "10.77.0/24", "nonsense"])
def test_subnet_that_is_none(host_state: ModuleType, subnet: str) -> None:
    found = host_state.subnet_conflicts(subnet, "one-br", [{"dst": "10.0.0.0/8", "dev": "eth0"}])
    assert len(found) == 1
    assert subnet in found[0]
    assert "e.g. 10.77.0.0/24" in found[0]


def test_memory(host_state: ModuleType) -> None:
    assert host_state.memory_mib("MemFree:  1 kB\nMemTotal:       16384000 kB\n") == 16000
    with pytest.raises(ValueError, match="MemTotal"):
        host_state.memory_mib("MemFree: 1 kB\n")


def test_inotify(host_state: ModuleType) -> None:
    enough = host_state.MIN_INOTIFY_INSTANCES
    assert host_state.inotify_shortage(enough) == []
    assert len(host_state.inotify_shortage(enough - 1)) == 1
    assert f"max_user_instances={enough}" in host_state.inotify_shortage(128)[0]


def test_empty_host(survey: Any, node_image: ModuleType) -> None:
    violations, generations, answer = survey()
    assert violations == []
    assert generations == {}
    assert int(answer["memory_mib"]) > 0
    assert int(answer["vcpus"]) > 0
    assert answer["image"] == node_image.image_name(json.loads(node_image.RECIPE.read_text()))
    # Terraform's external data source takes strings only.
    assert all(isinstance(value, str) for value in answer.values())


def test_own_things_have_their_generations(survey: Any, host: Any, query: dict[str, str]) -> None:
    _, _, empty = survey()
    host.update({
        "instances": {
            "one-kafka-1": {"name": "one-kafka-1", "config": labels(OWNER, **{"user.csl.ready": "true"})},
            "other": {"name": "other", "config": {}},
        },
        "networks": {"one-br": {"name": "one-br", "config": labels(OWNER)}, "eth0": {"name": "eth0", "config": {}}},
        "storage-pools": {"one": {"name": "one", "config": labels(OWNER)}},
        "images": {"x": {"aliases": [{"name": empty["image"]}], "properties": {"generation": "g3"}}},
    })  # fmt: skip
    keys = Path(query["lab_dir"])
    keys.mkdir()
    (keys / "id_ed25519").write_text("private")
    (keys / "id_ed25519.pub").write_text("ssh-ed25519 AAAA g5\n")
    violations, generations, _ = survey()
    assert violations == []
    assert generations == {"node/kafka-1": "g7", "network": "g7", "storage": "g7", "image": "g3", "ssh-key": "g5"}


def test_public_key_alone_is_no_key(survey: Any, query: dict[str, str]) -> None:
    keys = Path(query["lab_dir"])
    keys.mkdir()
    (keys / "id_ed25519.pub").write_text("ssh-ed25519 AAAA g5\n")
    assert survey()[1] == {}


def test_half_made_node_has_no_generation(survey: Any, host: Any) -> None:
    host.update({"instances": {"one-kafka-1": {"name": "one-kafka-1", "config": labels(OWNER)}}})
    violations, generations, _ = survey()
    assert violations == []
    assert generations == {}


def test_image_of_another_recipe_does_not_count(survey: Any, host: Any) -> None:
    host.update({"images": {"x": {"aliases": [{"name": "csl-node-0"}], "properties": {"generation": "g3"}}}})
    assert survey()[1] == {}


def test_lab_of_another_folder(survey: Any, host: Any) -> None:
    host.update({
        "instances": {"one-kafka-1": {"name": "one-kafka-1", "config": labels(STRANGER, **{"user.csl.ready": "true"})}},
        "networks": {"one-br": {"name": "one-br", "config": labels(STRANGER)}},
        "storage-pools": {"one": {"name": "one", "config": {}}},
    })  # fmt: skip
    violations, generations, _ = survey()
    assert generations == {}
    assert len(violations) == 1
    for text in ("one-kafka-1", STRANGER, "the network one-br", "the storage pool one", "make lab LAB="):
        assert text in violations[0]


def test_another_lab_is_nobodys_business(survey: Any, host: Any) -> None:
    host.update({
        "instances": {"two-kafka-1": {"name": "two-kafka-1", "config": labels(STRANGER, "two")}},
        "networks": {"two-br": {"name": "two-br", "config": labels(STRANGER, "two")}},
        "storage-pools": {"two": {"name": "two", "config": labels(STRANGER, "two")}},
    })  # fmt: skip
    violations, generations, _ = survey()
    assert (violations, generations) == ([], {})


def test_client_is_missing(survey: Any) -> None:
    violations, generations, _ = survey(client="no-such-client")
    assert len(violations) == 1
    assert "the program no-such-client is not there: `make setup`" in violations[0]
    assert generations == {}


def test_client_does_not_answer(survey: Any, host: Any) -> None:
    host.update({"down": "dial unix: connect: no such file"})
    violations, _, _ = survey()
    assert len(violations) == 1
    assert "does not answer lxc (Error: dial unix: connect: no such file)" in violations[0]


def test_all_at_once(survey: Any, host: Any) -> None:
    host.update({"down": "no daemon"})
    host.set_routes([{"dst": "10.77.0.0/24", "dev": "eth0"}])
    violations, _, _ = survey()
    assert len(violations) == 2
    assert "does not answer" in violations[0]
    assert "overlaps" in violations[1]


def test_generation_is_new_every_time(survey: Any) -> None:
    assert survey()[2]["new_generation"] != survey()[2]["new_generation"]


@pytest.mark.skipif(shutil.which("ip") is None, reason="no program ip: apt-get install iproute2")
def test_routes_are_read_from_this_machine(survey: Any, host: Any) -> None:
    (host.bin / "ip").unlink()
    violations, _, _ = survey(subnet="127.0.0.0/8")
    assert isinstance(violations, list)
