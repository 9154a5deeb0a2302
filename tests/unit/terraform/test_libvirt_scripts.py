"""What terraform/libvirt/scripts say about a machine, and do on it, with a stand-in for virsh."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

QUERY = {
    "uri": "qemu:///system", "lab": "one", "bridge": "one-br", "subnet": "10.77.0.0/24", "network": "one-net",
    "network_uuid": "u-1", "pool": "one", "pool_path": "/nowhere/one", "virtualization": "", "image": "built",
    "image_sha512": "0" * 128,
}  # fmt: skip


class FakeVirsh:
    """Answers of virsh, by its first argument."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}

    def __call__(self, _uri: str, command: str, *arguments: str) -> str:
        return self.answers.get(" ".join([command, *arguments]), "")


@pytest.fixture
def state(libvirt_host_state: ModuleType, host: Any, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, on a host without routes where every program is there and no KVM."""
    host.set_routes([])
    monkeypatch.setattr(libvirt_host_state, "PROGRAMS", ())
    monkeypatch.setattr(libvirt_host_state, "has_kvm", lambda: False)
    return libvirt_host_state


@pytest.fixture
def virsh(state: ModuleType, monkeypatch: pytest.MonkeyPatch) -> FakeVirsh:
    fake = FakeVirsh()
    monkeypatch.setattr(state, "virsh", fake)
    return fake


def violations(state: ModuleType, **changes: str) -> list[str]:
    return list(json.loads(state.survey({**QUERY, **changes})["violations"]))


def test_free_host_has_nothing_against_it(state: ModuleType, virsh: FakeVirsh) -> None:
    virsh.answers = {
        "net-list --all --name": "default",
        "pool-list --all --name": "default",
        "list --all --name": "web",
    }
    assert violations(state) == []
    assert state.survey(QUERY)["virtualization"] == "qemu"


def test_own_things_are_no_strangers(state: ModuleType, virsh: FakeVirsh) -> None:
    virsh.answers = {
        "net-list --all --uuid": "u-0\nu-1", "net-list --all --name": "default\none-net",
        "pool-list --all --name": "one", "pool-dumpxml one": "<path>/nowhere/one</path>",
        "list --all --name": "one-kafka-1",
    }  # fmt: skip
    assert violations(state) == []


def test_everything_of_others_is_named_at_once(state: ModuleType, virsh: FakeVirsh) -> None:
    virsh.answers = {
        "net-list --all --uuid": "u-0", "net-list --all --name": "one-net", "pool-list --all --name": "one",
        "pool-dumpxml one": "<path>/else/where</path>", "list --all --name": "one-kafka-1\nother-1",
    }  # fmt: skip
    (text,) = violations(state)
    assert text.startswith("the network one-net, the storage pool one, the machine one-kafka-1: there already")


def test_kvm_that_is_asked_for_and_absent(state: ModuleType, virsh: FakeVirsh) -> None:
    assert virsh.answers == {}
    (text,) = violations(state, virtualization="kvm")
    assert "no usable KVM" in text
    assert violations(state, virtualization="qemu") == []


def test_silent_libvirt_is_reported_with_its_words(state: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: str) -> str:
        raise state.NoAnswerError("Connection refused")

    monkeypatch.setattr(state, "virsh", silent)
    (text,) = violations(state)
    assert "libvirt does not answer at qemu:///system (Connection refused)" in text


@pytest.mark.parametrize(
    ("device", "flags", "usable"),
    [(True, "fpu vmx sse", True), (True, "fpu svm", True), (True, "fpu sse vmxx", False), (False, "vmx", False)],
)
def test_kvm_needs_the_device_and_the_cpu(
    libvirt_host_state: ModuleType, tmp_path: Path, device: bool, flags: str, usable: bool
) -> None:
    if device:
        (tmp_path / "kvm").touch()
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\n")
    assert libvirt_host_state.has_kvm(tmp_path / "kvm", tmp_path / "cpuinfo") is usable


# The disk image


def test_image_is_named_after_what_it_is_made_of(vm: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert vm.image_name("debian", "ab" * 64) == "csl-vm-debian-abababababab"
    built = vm.image_name("built", "")
    recipe = vm.recipe()
    assert {"cloud-init", "openssh-server"} <= set(recipe["packages"])
    monkeypatch.setattr(vm, "recipe", lambda: {**recipe, "suite": "other"})
    assert vm.image_name("built", "") != built


def test_changed_image_is_found_with_both_sums(vm: ModuleType, tmp_path: Path) -> None:
    assert vm.faults(tmp_path / "none") == []
    disk = tmp_path / "disk.qcow2"
    disk.write_text("one")
    (tmp_path / vm.MANIFEST).write_text(json.dumps({"disk.qcow2": vm.sha512_of(disk)}))
    assert vm.faults(tmp_path) == []
    before = vm.sha512_of(disk)[:16]
    disk.write_text("two")
    (text,) = vm.faults(tmp_path)
    assert str(disk) in text
    assert before in text
    assert vm.sha512_of(disk)[:16] in text
    (tmp_path / vm.MANIFEST).unlink()
    assert "is not complete" in vm.faults(tmp_path)[0]


def test_debian_image_with_another_sum_is_refused(vm: ModuleType, tmp_path: Path) -> None:
    source, target = tmp_path / "image.qcow2", tmp_path / "image"
    source.write_text("an image")
    target.mkdir()
    with pytest.raises(vm.build.ImageError, match=f"has SHA-512 {vm.sha512_of(source)}, not {'0' * 128}"):
        vm.fetch(source.as_uri(), "0" * 128, target)
    vm.fetch(source.as_uri(), vm.sha512_of(source), target)
    with pytest.raises(vm.build.ImageError, match=r"cannot be fetched .*IMAGE=built"):
        vm.fetch((tmp_path / "missing").as_uri(), "0" * 128, target)


# The verbs


def test_state_directory_is_made_and_goes_with_its_content(nodes: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "one-state"
    spec = {"lab": "one", "path": str(path)}
    monkey = pytest.MonkeyPatch()
    monkey.setattr(nodes.os, "geteuid", lambda: 0)
    nodes.state_up(spec)
    (path / "spark").mkdir()
    nodes.state_up(spec)
    assert (path / "spark").is_dir()
    nodes.state_down(spec)
    nodes.state_down(spec)
    monkey.undo()
    assert not path.exists()
    with pytest.raises(nodes.VerbError, match="no folder that state-up makes"):
        nodes.state_down({"lab": "one", "path": str(tmp_path)})


def test_seed_image_holds_the_documents_under_the_names_that_cloud_init_looks_for(
    nodes: ModuleType, host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes.os, "geteuid", lambda: 0)
    # The documents one after another stand for the image: $3 is its label, $7 the file to make, $8 the folder.
    host.program("mkisofs", 'cd "$8" && for name in *; do echo "$name: $(cat "$name")"; done > "$7"; echo "$3" >> "$7"')
    # Longer than one environment variable may be, before it is packed.
    documents = {"USER_DATA": "#cloud-config" + "\nx" * 100_000, "META_DATA": "meta", "NETWORK_CONFIG": "network"}
    for name, text in documents.items():
        monkeypatch.setenv(name, base64.b64encode(gzip.compress(text.encode())).decode())
    spec = {"lab": "one", "name": "kafka-1", "path": str(tmp_path / "kafka-1-cloudinit.iso")}
    nodes.seed_up(spec)
    said = Path(spec["path"]).read_text()
    assert said == f"meta-data: meta\nnetwork-config: network\nuser-data: {documents['USER_DATA']}\ncidata\n"
    nodes.seed_down(spec)
    nodes.seed_down(spec)
    assert not Path(spec["path"]).exists()


def test_machine_that_does_not_answer_ends_with_its_console(
    nodes: ModuleType, host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes.time, "sleep", lambda _: None)
    host.program("ssh", "echo refused >&2; exit 255")
    console = tmp_path / "console.log"
    console.write_text("booting\nKernel panic\n")
    spec = {
        "lab": "one", "name": "kafka-1", "address": "10.77.0.11", "user": "lab", "private_key": "/key",
        "known_hosts_dir": str(tmp_path / "known"), "console": str(console), "timeout_s": 0.2,
    }  # fmt: skip
    with pytest.raises(
        nodes.VerbError, match=r"10\.77\.0\.11 does not answer after 0\.2 s \(refused\)[\s\S]*Kernel panic"
    ):
        nodes.access_up(spec)
    host.program("ssh", "echo 'status: error'; exit 1")
    with pytest.raises(nodes.VerbError, match="cloud-init has failed"):
        nodes.access_up({**spec, "timeout_s": 30})
    host.program("ssh", "exit 0")
    nodes.access_up({**spec, "timeout_s": 30})
    nodes.access_down(spec)
