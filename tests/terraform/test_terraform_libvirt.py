"""Plans of terraform/libvirt that must be refused, in words and all at once. Nothing is ever applied."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TERRAFORM = REPOSITORY / "terraform"
LIBVIRT = TERRAFORM / "libvirt"
WORKSPACE = "plan-test"

pytestmark = pytest.mark.skipif(shutil.which("terraform") is None, reason="no program terraform: make setup")

sys.path.insert(0, str(REPOSITORY / "terraform" / "scripts"))
from lab_host import has_kvm  # noqa: E402 - found on the path set above


def terraform(*arguments: str, root: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "TF_WORKSPACE"}
    return subprocess.run(
        ["terraform", f"-chdir={root}", *arguments],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        env={**clean, "TF_IN_AUTOMATION": "1", "TF_INPUT": "0", **(env or {})},
    )  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initialised copy of terraform/libvirt, so that no state or workspace of the checkout is touched."""
    providers = LIBVIRT / ".terraform" / "providers"
    if not providers.is_dir():
        pytest.skip("terraform/libvirt is not initialised: make setup TARGET=libvirt")
    asked = subprocess.run(["virsh", "-c", "qemu:///system", "version"], capture_output=True, check=False)
    if asked.returncode != 0:
        pytest.skip("libvirt does not answer: make setup TARGET=libvirt")
    tree = tmp_path_factory.mktemp("plans") / "terraform"
    shutil.copytree(
        TERRAFORM, tree, ignore=shutil.ignore_patterns(".terraform", ".terraform.lock.hcl", "terraform.tfstate*")
    )
    done = terraform("init", "-no-color", f"-plugin-dir={providers}", root=tree / "libvirt")
    assert done.returncode == 0, done.stdout + done.stderr
    return tree / "libvirt"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "id.pub"
    path.write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHb0zT0yX9m0T3pV7w6n1mR2kq3c4d5e6f7a8b9c0d1e tests\n")
    return path


def plan(root: Path, **variables: str) -> tuple[list[str], list[dict[str, object]]]:
    """Plan in the scratch workspace; returns the texts of all errors, unwrapped, and the planned changes."""
    options = [f"-var={name}={value}" for name, value in variables.items()]
    done = terraform("plan", "-json", "-lock=false", *options, root=root, env={"TF_WORKSPACE": WORKSPACE})
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    errors = [
        f"{event['diagnostic']['summary']}\n{event['diagnostic']['detail']}"
        for event in events
        if event["@level"] == "error"
    ]
    assert (done.returncode != 0) == bool(errors), done.stdout + done.stderr
    return errors, [event["change"] for event in events if event["type"] == "planned_change"]


def test_valid() -> None:
    if not (LIBVIRT / ".terraform" / "providers").is_dir():
        pytest.skip("terraform/libvirt is not initialised: make setup TARGET=libvirt")
    done = terraform("validate", "-no-color", root=LIBVIRT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_good_plan_makes_every_node(root: Path, key: Path) -> None:
    errors, changes = plan(root, topology="mini", image="built", ssh_public_key_file=str(key))
    assert errors == []
    made = {str(change["resource"]["addr"]) for change in changes}  # type: ignore[index]
    assert {'libvirt_domain.node["lab-1"]', 'libvirt_volume.node["lab-1"]', "libvirt_network.lab"} <= made


def test_plan_lists_all_that_is_wrong_at_once(root: Path, tmp_path: Path) -> None:
    routes = json.loads(subprocess.run(["ip", "-json", "-4", "route"], capture_output=True, check=True).stdout)
    taken = next(route["dst"] for route in routes if "/" in route["dst"])
    topology = tmp_path / "wrong.yaml"
    topology.write_text("nodes:\n  kafka-1: {groups: [kafca], vcpus: 9999, memory_mib: 99999999}\n")
    pool = tmp_path / "pool"
    (pool / "precious").mkdir(parents=True)
    kvm = {} if has_kvm() else {"virtualization": "kvm"}
    errors, changes = plan(
        root, topology=str(topology), subnet=taken, pool_path=str(pool), ssh_public_key_file=str(tmp_path / "no.pub"),
        network="default", image="built", **kvm,
    )  # fmt: skip
    assert changes == []
    assert len(errors) == 1, errors
    wanted = [
        f"subnet {taken} overlaps with the route to ",
        f"the folder {pool}, which is not empty",
        f"there is no SSH key {tmp_path / 'no.pub'}",
        "node kafka-1 is in an unknown group 'kafca'",
        "node kafka-1 asks for 9999 vCPUs, the host has ",
        "MiB of memory, the host has ",
    ]
    if kvm:
        wanted.append("virtualization is kvm, and this machine has no usable KVM")
    names = subprocess.run(
        ["virsh", "-c", "qemu:///system", "net-list", "--all", "--name"], capture_output=True, text=True, check=True
    ).stdout.split()
    if "default" in names:
        wanted.append("the network default")
    for text in wanted:
        assert text in errors[0]


def test_libvirt_that_does_not_answer_is_named(root: Path, key: Path) -> None:
    uri = "qemu+unix:///system?socket=/nowhere/libvirt-sock"
    errors, _ = plan(root, topology="mini", image="built", ssh_public_key_file=str(key), libvirt_uri=uri)
    assert any(f"libvirt does not answer at {uri}" in error for error in errors), errors


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"lab_name": "Lab"}, "lab_name: use 1 to 12 of"),
        ({"topology": "enormous"}, "topology: neither a topology of that name"),
        ({"subnet": "10.77.0.0"}, "subnet: give an IPv4 network"),
        ({"libvirt_uri": "xen:///"}, "libvirt_uri: give a connection to this machine's QEMU"),
        ({"libvirt_uri": "qemu+ssh://elsewhere/system"}, "libvirt_uri: give a connection to this machine's QEMU"),
        ({"virtualization": "vmware"}, "virtualization: must be kvm or qemu"),
        ({"network": "a b"}, "network: use letters"),
        ({"pool": "a/b"}, "pool: use letters"),
        ({"pool_path": "relative"}, "pool_path: give an absolute path"),
        ({"image": "ubuntu"}, "image: must be debian or built"),
        ({"disk_gib": "4"}, "disk_gib: must be a whole number of at least 8"),
        ({"debian_image": '{url="ftp://a", sha512="00"}'}, "debian_image.url: give an address"),
        ({"debian_image": '{url="https://a", sha512="00"}'}, "debian_image.sha512: give the 128"),
    ],
)
def test_wrong_variable_is_refused(root: Path, variables: dict[str, str], text: str) -> None:
    errors, _ = plan(root, **variables)
    assert any(text in error for error in errors), errors


def test_every_target_gives_the_same_inventory(tmp_path: Path) -> None:
    """The same topology, by each root's way of calling the modules: hosts, groups and sizes agree."""
    for target in ("lxd", "libvirt", "aws"):
        if (TERRAFORM / target).is_dir():
            text = "\n".join(path.read_text() for path in sorted((TERRAFORM / target).glob("*.tf")))
            for module in ("topology", "inventory"):
                assert f'source = "../modules/{module}"' in text, f"{target} does not use the module {module}"
            assert "value       = module.inventory.ansible_inventory" in text, target
    (tmp_path / "main.tf").write_text(
        f"""
        variable "target" {{ type = string }}
        module "topology" {{
          source        = "{TERRAFORM}/modules/topology"
          topology_yaml = file("{TERRAFORM}/topologies/ha.yaml")
          subnet        = "10.77.0.0/24"
        }}
        module "inventory" {{
          source   = "{TERRAFORM}/modules/inventory"
          lab_name = "one"
          target   = var.target
          subnet   = "10.77.0.0/24"
          lab_dir  = "/labs/one"
          nodes    = module.topology.nodes
          groups   = module.topology.groups
          ssh      = {{ user = "lab", private_key_file = "/labs/one/key", known_hosts_dir = "/labs/one/known" }}
          bastion  = var.target == "aws" ? {{ address = "192.0.2.1", user = "lab" }} : null
        }}
        output "inventory" {{ value = module.inventory.ansible_inventory }}
        """
    )
    assert terraform("init", "-no-color", root=tmp_path).returncode == 0
    seen = []
    for target in ("lxd", "libvirt", "aws"):
        done = terraform("apply", "-auto-approve", "-no-color", f"-var=target={target}", root=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        inventory = json.loads(terraform("output", "-json", "inventory", root=tmp_path).stdout)
        assert inventory["all"]["vars"].pop("lab_target") == target
        for variables in inventory["_meta"]["hostvars"].values():
            assert ("ProxyCommand" in variables.pop("ansible_ssh_common_args")) == (target == "aws")
        seen.append(inventory)
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]["kafka"]["hosts"]) == 3
