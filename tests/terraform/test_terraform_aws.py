"""terraform/aws: `terraform test` with a mocked provider, and the real provider against a moto server on loopback.

No test here speaks to AWS: credentials are made up, and every endpoint is the server's.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
TERRAFORM = REPOSITORY / "terraform"
ROOT = TERRAFORM / "aws"
REGION = "eu-central-1"
LAB = "moto-1"
HOME = "203.0.113.7/32"
DEBIAN = "136693071363"
# What moto does not give back: these of a rule whose source is a group, and an instance's groups other than through its
# interface (where test_nodes_are_what_was_asked_for looks).
MOTO_FORGETS = {
    *(("aws_vpc_security_group_ingress_rule", name) for name in ("description", "tags", "tags_all")),
    ("aws_instance", "vpc_security_group_ids"),
}
SMALL = yaml.safe_load((TERRAFORM / "topologies" / "small.yaml").read_text())["nodes"]

sys.path.insert(0, str(REPOSITORY / "tools" / "lab"))
import providers  # noqa: E402 - found on the path set above
from context import Context  # noqa: E402

pytestmark = pytest.mark.skipif(shutil.which("terraform") is None, reason="no program terraform: make setup")


def clean_environment(**more: str) -> dict[str, str]:
    """Return this process's environment without a user's workspace, variables and AWS accounts, for AWS's endpoints."""
    kept = {
        name: value for name, value in os.environ.items() if not re.match(r"AWS_|TF_(WORKSPACE|DATA_DIR|VAR_)", name)
    }
    return {
        **kept, "TF_IN_AUTOMATION": "1", "TF_INPUT": "0", "CHECKPOINT_DISABLE": "1", "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true", **more,
    }  # fmt: skip


def terraform(*arguments: str, root: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run terraform in a folder."""
    return subprocess.run(
        ["terraform", f"-chdir={root}", *arguments],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=env, timeout=600,
    )  # fmt: skip


def mirror() -> Path | None:
    """Return a folder of this machine that holds a registry.terraform.io tree with the provider."""
    return providers.find_mirror(providers.AWS, providers.places(Context(target="aws", lab="test")))


def initialise(root: Path, env: dict[str, str]) -> None:
    """Run `terraform init` from a mirror, else from the registry; skips where neither has the provider."""
    found = mirror()
    options = [f"-plugin-dir={found}"] if found else []
    env = {**env, "TF_REGISTRY_CLIENT_TIMEOUT": "10", "TF_REGISTRY_DISCOVERY_RETRY": "0"}
    done = terraform("init", "-backend=false", "-no-color", *options, root=root, env=env)
    if done.returncode != 0 and not found and "registry" in done.stderr:
        pytest.skip("neither Terraform's registry nor a mirror has hashicorp/aws: CSL_TERRAFORM_MIRROR=folder")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initialised copy of what the root reads, so that no state or lab of the checkout is touched."""
    copy = tmp_path_factory.mktemp("aws")
    ignored = shutil.ignore_patterns(".terraform", ".terraform.lock.hcl", "*.tfstate*", "*.tfvars", "__pycache__")
    for name in ("terraform", "inventories", "ansible/playbooks", "ansible/roles"):
        shutil.copytree(REPOSITORY / name, copy / name, symlinks=True, ignore=ignored)
    shutil.copytree(ROOT / "examples", copy / "terraform" / "aws" / "examples", dirs_exist_ok=True)
    initialise(copy / "terraform" / "aws", clean_environment())
    return copy


def test_valid(checkout: Path) -> None:
    done = terraform("validate", "-no-color", root=checkout / "terraform" / "aws", env=clean_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stdout


def test_with_a_mocked_provider(checkout: Path) -> None:
    done = terraform("test", "-no-color", root=checkout / "terraform" / "aws", env=clean_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    # A folder without test files passes too.
    assert int(re.findall(r"(\d+) passed, 0 failed", done.stdout)[0]) >= 50


def test_checkov_has_nothing_to_say_and_every_exception_has_a_reason() -> None:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / "checkov.py"), "aws"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.findall(r"Passed checks: (\d+), Failed checks: 0", done.stdout)[0]) >= 60
    for path in ROOT.glob("*.tf"):
        for exception in re.findall(r"checkov:skip=(.*)", path.read_text()):
            assert re.fullmatch(r"CKV2?_AWS_\d+:.{20,}", exception), f"{path.name}: {exception}"


def test_every_validation_has_a_run() -> None:
    refused = (ROOT / "tests" / "variables.tftest.hcl").read_text()
    for name, body in re.findall(
        r'^variable "(\w+)" \{\n(.*?)^\}', (ROOT / "variables.tf").read_text(), re.MULTILINE | re.DOTALL
    ):
        wanted = body.count("validation {")
        assert refused.count(f"expect_failures = [var.{name}]") >= wanted, name


def test_prices_are_of_the_known_types_and_the_first_that_fits_is_the_cheapest() -> None:
    text = (ROOT / "cost.tf").read_text()
    prices = {name: float(price) for name, price in re.findall(r'"?([a-z0-9]+\.[a-z0-9]+)"?\s+= ([0-9.]+)', text)}
    nodes = (ROOT / "nodes.tf").read_text()
    for family in ("burstable", "steady"):
        table = re.findall(
            r'type = "([\w.]+)", vcpus = (\d+), memory_mib = (\d+)',
            re.findall(rf"{family} = \[(.*?)\n    \]", nodes, re.DOTALL)[0],
        )
        sizes = [(kind, int(vcpus), int(memory)) for kind, vcpus, memory in table]
        assert len(sizes) >= 6
        for _, vcpus, memory in sizes:
            fitting = [prices[kind] for kind, has_vcpus, has in sizes if has_vcpus >= vcpus and has >= memory]
            assert fitting[0] == min(fitting), f"{vcpus} vCPUs and {memory} MiB"


# The real provider


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A moto server that has Debian's image; yields the environment that leads there."""
    folder = tmp_path_factory.mktemp("moto")
    images = [
        {"ami_id": f"ami-{number:017x}", "name": name, "owner_id": owner, "architecture": "x86_64", "public": True,
         "creation_date": f"2025-0{number}-01T00:00:00.000Z", "description": name, "hypervisor": "xen",
         "state": "available", "image_location": f"{owner}/{name}", "image_type": "machine", "platform": None,
         "root_device_name": "/dev/xvda", "root_device_type": "ebs", "sriov": "simple", "virtualization_type": "hvm"}
        for number, (name, owner) in enumerate([
            ("debian-12-amd64-20250101-1", DEBIAN), ("debian-12-amd64-20250601-2", DEBIAN),
            # Newer, and not to be taken.
            ("debian-13-amd64-20250801-3", DEBIAN), ("debian-12-amd64-20250901-4", "111111111111"),
        ], 1)
    ]  # fmt: skip
    (folder / "amis.json").write_text(json.dumps(images))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server_env = {**clean_environment(), "MOTO_AMIS_PATH": str(folder / "amis.json")}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("moto_for_efs.py")), "-H", "127.0.0.1", "-p", str(port)],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=server_env,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=5).close()
                    break
                except OSError:
                    assert server.poll() is None, (folder / "log").read_text()
                    assert time.monotonic() < deadline, (folder / "log").read_text()
                    time.sleep(0.2)
            yield clean_environment(
                AWS_ENDPOINT_URL=url, AWS_ACCESS_KEY_ID="made", AWS_SECRET_ACCESS_KEY="up", AWS_REGION=REGION
            )
        finally:
            server.terminate()
            server.wait()


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key pair."""
    path = tmp_path_factory.mktemp("key") / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def client(service: str, cloud: dict[str, str]) -> Any:  # noqa: ANN401 - boto3 makes its clients at run time
    """Return boto3's client of a service on the server."""
    return boto3.client(
        service, region_name=REGION, endpoint_url=cloud["AWS_ENDPOINT_URL"],
        aws_access_key_id="made", aws_secret_access_key="up",
    )  # fmt: skip


def arguments(**variables: str) -> list[str]:
    """Return variables as Terraform's options."""
    return [f"-var={name}={value}" for name, value in variables.items()]


def plan(checkout: Path, cloud: dict[str, str], **variables: str) -> list[str]:
    """Plan; returns the texts of all errors, unwrapped."""
    done = terraform(
        "plan", "-json", "-lock=false", *arguments(**variables), root=checkout / "terraform" / "aws", env=cloud
    )
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    errors = [event["diagnostic"]["detail"] for event in events if event["@level"] == "error"]
    assert (done.returncode != 0) == bool(errors), done.stdout + done.stderr
    return errors


def test_wrong_variables_are_refused_all_at_once(checkout: Path, cloud: dict[str, str]) -> None:
    errors = plan(
        checkout, cloud, lab_name="Lab", topology="enormous", subnet="10.77.0.0", bastion_ssh_cidr="0.0.0.0/0",
        ssh_public_key_file="id", availability_zone="here", volume_gib="1", kms_key_arn="mine", tags='{Lab="x"}',
    )  # fmt: skip
    for text in (
        "lab_name: use 1 to 12 of",
        "topology: neither a topology of that name",
        "subnet: give an IPv4 network",
        "bastion_ssh_cidr: 0.0.0.0/0 opens SSH to a large part of the world",
        "ssh_public_key_file: give the public half",
        "availability_zone: give the name",
        "volume_gib: give a whole number",
        "kms_key_arn: give the ARN",
        "tags: Name, Project, Lab and ManagedBy are set already",
    ):
        assert [error for error in errors if text in error], f"{text}: {errors}"


def test_all_that_is_wrong_with_the_lab_is_said_at_once(checkout: Path, cloud: dict[str, str], tmp_path: Path) -> None:
    topology = tmp_path / "wrong.yaml"
    topology.write_text(
        "nodes:\n"
        "  kafka-1: {groups: [kafka], vcpus: 2, memory_mib: 128}\n"
        "  Kafka_2: {groups: [kafka, kafca], vcpus: 1, memory_mib: 512}\n"
    )
    errors = plan(
        checkout, cloud, lab_name=LAB, topology=str(topology), subnet="8.8.8.8/16", bastion_ssh_cidr=HOME,
        availability_zone="eu-central-1z",
    )  # fmt: skip
    assert len(errors) == 1, errors
    for text in (
        f"there is no SSH public key {checkout}/.lab/{LAB}/id_ed25519.pub: make one (ssh-keygen ",
        "node name 'Kafka_2' is no host name",
        "node Kafka_2 is in an unknown group 'kafca'",
        "no node is in group postgres",
        "node kafka-1: memory_mib must be a whole number of at least 256",
        "subnet 8.8.8.8/16: AWS needs /17 to /27 here",
        "no availability zone eu-central-1z offers all of t3.micro",
    ):
        assert f"  - {text}" in errors[0]


def test_what_is_wrong_with_nodes_is_said_at_once(
    checkout: Path, cloud: dict[str, str], key: Path, tmp_path: Path
) -> None:
    topology = tmp_path / "wrong.yaml"
    topology.write_text(
        "nodes:\n"
        "  kafka-1: {groups: [kafka], vcpus: 2, memory_mib: 1024, host_number: 3}\n"
        "  kafka-2: {groups: [kafka], vcpus: 96, memory_mib: 1024, host_number: 254}\n"
    )
    key.with_name("text.pub").write_text("no key\n")
    errors = plan(
        checkout, cloud, lab_name=LAB, topology=str(topology), subnet="8.8.8.8/24", bastion_ssh_cidr=HOME,
        required_groups="[]", ssh_public_key_file=str(key.with_name("text.pub")),
    )  # fmt: skip
    assert len(errors) == 1, errors
    for text in (
        "text.pub is not one SSH public key",
        f"text.pub is not beside it: {key.with_name('text')} is missing",
        "subnet 8.8.8.8/24 does not begin at its first address: write 8.8.8.0/24",
        "subnet 8.8.8.8/24 is not of a private range",
        "node kafka-1 has the address 8.8.8.3, which AWS or the state directory needs: set host_number",
        "node kafka-2 has the address 8.8.8.254, which AWS",
        "node kafka-2 asks for 96 vCPUs and 1024 MiB: the largest type known here is r6i.4xlarge",
    ):
        assert text in errors[0], text


@pytest.fixture(scope="module")
def lab(checkout: Path, cloud: dict[str, str], key: Path) -> Iterator[dict[str, Any]]:
    """The topology `small`, applied and at the end destroyed; yields Terraform's outputs."""
    root = checkout / "terraform" / "aws"
    options = arguments(
        lab_name=LAB, topology="small", subnet="10.77.4.0/24", bastion_ssh_cidr=HOME,
        ssh_public_key_file=f"{key}.pub", tags='{Owner="streaming"}',
    )  # fmt: skip
    done = terraform("apply", "-auto-approve", "-no-color", *options, root=root, env=cloud)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "usd_per_hour " in done.stdout.split("Apply complete")[0], "the plan shows no estimate"
    assert changes(root, cloud, options) <= MOTO_FORGETS
    shown = terraform("output", "-json", root=root, env=cloud)
    yield {name: entry["value"] for name, entry in json.loads(shown.stdout).items()}
    done = terraform("destroy", "-auto-approve", "-no-color", *options, root=root, env=cloud)
    assert done.returncode == 0, done.stdout + done.stderr
    left = leftovers(cloud)
    assert left == {}, left


def changes(root: Path, cloud: dict[str, str], options: list[str]) -> set[tuple[str, str]]:
    """Plan again; returns what Terraform would change, as type and attribute."""
    file = root / "again.plan"
    done = terraform("plan", "-no-color", f"-out={file}", *options, root=root, env=cloud)
    assert done.returncode == 0, done.stdout + done.stderr
    found = set()
    for entry in json.loads(terraform("show", "-json", str(file), root=root, env=cloud).stdout)["resource_changes"]:
        change = entry["change"]
        if change["actions"] not in (["no-op"], ["read"]):
            before, after = change["before"] or {}, change["after"] or {}
            names = {name for name in {*before, *after} if before.get(name) != after.get(name)}
            found |= {(entry["type"], name) for name in names or {"*"}}
    return found


def leftovers(cloud: dict[str, str]) -> dict[str, list[str]]:
    """Return what carries the lab's tag, or could not carry one, by kind."""
    ec2, efs = client("ec2", cloud), client("efs", cloud)
    tagged = [{"Name": "tag:Lab", "Values": [LAB]}]
    found = {
        "instances": [
            instance["InstanceId"]
            for reservation in ec2.describe_instances(Filters=tagged)["Reservations"]
            for instance in reservation["Instances"]
            if instance["State"]["Name"] != "terminated"
        ],
        "volumes": [volume["VolumeId"] for volume in ec2.describe_volumes(Filters=tagged)["Volumes"]],
        "vpcs": [vpc["VpcId"] for vpc in ec2.describe_vpcs(Filters=tagged)["Vpcs"]],
        "subnets": [subnet["SubnetId"] for subnet in ec2.describe_subnets(Filters=tagged)["Subnets"]],
        "security groups": [
            group["GroupId"] for group in ec2.describe_security_groups(Filters=tagged)["SecurityGroups"]
        ],
        "addresses": [address["PublicIp"] for address in ec2.describe_addresses()["Addresses"]],
        "NAT gateways": [
            gateway["NatGatewayId"]
            for gateway in ec2.describe_nat_gateways()["NatGateways"]
            if gateway["State"] != "deleted"
        ],
        "internet gateways": [
            gateway["InternetGatewayId"]
            for gateway in ec2.describe_internet_gateways(Filters=tagged)["InternetGateways"]
        ],
        "file systems": [entry["FileSystemId"] for entry in efs.describe_file_systems()["FileSystems"]],
    }  # fmt: skip
    return {kind: names for kind, names in found.items() if names}


def instances(cloud: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return the running instances by the lab's name for them."""
    found = client("ec2", cloud).describe_instances(Filters=[{"Name": "tag:Lab", "Values": [LAB]}])["Reservations"]
    return {
        next(tag["Value"] for tag in instance["Tags"] if tag["Key"] == "Name").removeprefix(f"{LAB}-"): instance
        for reservation in found for instance in reservation["Instances"]
        if instance["State"]["Name"] == "running"
    }  # fmt: skip


def test_nodes_are_what_was_asked_for(lab: dict[str, Any], cloud: dict[str, str]) -> None:
    found = instances(cloud)
    assert found.keys() == {*SMALL, "bastion"}
    hostvars = lab["ansible_inventory"]["_meta"]["hostvars"]
    for name in SMALL:
        assert found[name]["PrivateIpAddress"] == hostvars[name]["lab_node_address"]
        assert not found[name].get("PublicIpAddress"), f"{name} can be reached from outside"
        (group,) = found[name]["NetworkInterfaces"][0]["Groups"]
        assert group["GroupName"].startswith(f"{LAB}-{'+'.join(sorted(SMALL[name]['groups']))}-")
        assert found[name]["InstanceType"] == lab["instance_types"][name]
    assert found["kafka-1"]["PrivateIpAddress"] == "10.77.4.11"
    assert found["bastion"]["PublicIpAddress"] == lab["bastion_address"]
    assert {instance["ImageId"] for instance in found.values()} == {lab["image"]["id"]}
    assert lab["image"]["name"] == "debian-12-amd64-20250601-2", "the newest of release 12, by Debian's own account"
    assert {instance.get("IamInstanceProfile") for instance in found.values()} == {None}
    for instance in found.values():
        options = instance["MetadataOptions"]
        assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 1)


def test_everything_is_encrypted_and_tagged(lab: dict[str, Any], cloud: dict[str, str]) -> None:
    ec2, efs = client("ec2", cloud), client("efs", cloud)
    wanted = {"Project": "crypto-stream-lab", "Lab": LAB, "ManagedBy": "terraform", "Owner": "streaming"}
    volumes = ec2.describe_volumes()["Volumes"]
    assert len(volumes) == len(SMALL) + 1
    assert {(volume["Encrypted"], volume["VolumeType"]) for volume in volumes} == {(True, "gp3")}
    in_vpc = [{"Name": "vpc-id", "Values": [lab["network"]["vpc_id"]]}]
    state = efs.describe_file_systems()["FileSystems"]
    assert [entry["Encrypted"] for entry in state] == [True]
    things = [
        *volumes, *state, *instances(cloud).values(), *ec2.describe_addresses()["Addresses"],
        *ec2.describe_nat_gateways()["NatGateways"], *ec2.describe_vpcs(VpcIds=[lab["network"]["vpc_id"]])["Vpcs"],
        *ec2.describe_subnets(Filters=in_vpc)["Subnets"],
        *ec2.describe_security_groups(Filters=in_vpc)["SecurityGroups"],
    ]  # fmt: skip
    for thing in things:
        tags = {tag["Key"]: tag["Value"] for tag in thing.get("Tags", [])}
        assert {name: tags.get(name) for name in wanted} == wanted, thing
        assert tags.get("Name", "").startswith(LAB), thing


def test_state_directory(lab: dict[str, Any], cloud: dict[str, str]) -> None:
    efs = client("efs", cloud)
    file_system = lab["network"]["state"]
    policy = json.loads(efs.describe_file_system_policy(FileSystemId=file_system)["Policy"])
    assert [statement["Condition"]["Bool"]["aws:SecureTransport"] for statement in policy["Statement"]] == ["true"]
    (target,) = efs.describe_mount_targets(FileSystemId=file_system)["MountTargets"]
    assert target["IpAddress"] == "10.77.4.254"


def test_only_the_bastion_is_open_to_the_one_network(lab: dict[str, Any], cloud: dict[str, str]) -> None:
    groups = client("ec2", cloud).describe_security_groups(
        Filters=[{"Name": "vpc-id", "Values": [lab["network"]["vpc_id"]]}]
    )["SecurityGroups"]
    open_to_addresses = [
        (group["GroupName"], entry["CidrIp"], rule["FromPort"], rule["ToPort"])
        for group in groups for rule in group["IpPermissions"] for entry in rule["IpRanges"]
    ]  # fmt: skip
    assert [entry[1:] for entry in open_to_addresses] == [(HOME, 22, 22)]
    assert open_to_addresses[0][0].startswith(f"{LAB}-bastion-")
    assert [
        rule for group in groups for rule in group["IpPermissions"] if rule["Ipv6Ranges"] or rule["IpProtocol"] == "-1"
    ] == []
    default = next(group for group in groups if group["GroupName"] == "default")
    assert (default["IpPermissions"], default["IpPermissionsEgress"]) == ([], [])
    # Every allowed pair, read back by name.
    names = {
        group["GroupId"]: re.sub(r"-[0-9a-f]{20,}$", "", group["GroupName"]).removeprefix(f"{LAB}-") for group in groups
    }
    pairs = Counter(
        (names[source["GroupId"]], names[group["GroupId"]], rule["FromPort"])
        for group in groups for rule in group["IpPermissions"] for source in rule["UserIdGroupPairs"]
    )  # fmt: skip
    assert pairs["monitoring+producer", "kafka", 9092] == 1
    assert pairs["kafka", "kafka", 9093] == 1
    assert pairs["bastion", "kafka", 22] == 1
    assert pairs["monitoring+producer", "state", 2049] == 1
    assert pairs["monitoring+producer", "postgres", 5432] == 1
    assert pairs["kafka", "postgres", 5432] == 0
    assert not [pair for pair in pairs if pair[0] == "bastion" and pair[2] != 22]


@pytest.mark.usefixtures("lab")
def test_first_boot(cloud: dict[str, str], key: Path) -> None:
    ec2 = client("ec2", cloud)
    for name, instance in instances(cloud).items():
        asked = ec2.describe_instance_attribute(InstanceId=instance["InstanceId"], Attribute="userData")
        text = base64.b64decode(asked["UserData"]["Value"]).decode()
        assert text.startswith("#cloud-config\n")
        # JSON is YAML, which is what cloud-init reads.
        config = yaml.safe_load(text)
        assert config["hostname"] == name
        assert key.with_suffix(".pub").read_text().strip() in config["users"][0]["ssh_authorized_keys"][0]
        assert ("sudo" in config["users"][0]) == (name != "bastion")


def test_inventory(lab: dict[str, Any], checkout: Path, cloud: dict[str, str]) -> None:
    program = Path(sys.executable).with_name("ansible-inventory")
    shown = subprocess.run(
        [str(program), "-i", str(checkout / "inventories" / "aws"), "--list"],
        capture_output=True, text=True, check=False, cwd=checkout,
        env={**cloud, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")},
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    inventory = json.loads(shown.stdout)
    assert inventory["_meta"]["hostvars"].keys() == SMALL.keys()
    for name, node in SMALL.items():
        variables = inventory["_meta"]["hostvars"][name]
        assert variables["lab_target"] == "aws"
        assert variables["lab_node_vcpus"] == node["vcpus"]
        assert lab["bastion_address"] in variables["ansible_ssh_common_args"]
        assert variables["artifacts_stage_path"] == "{{ lab_state_path }}/artifacts"
        for group in node["groups"]:
            assert name in inventory[group]["hosts"]


def test_openssh_understands_its_configuration(lab: dict[str, Any], tmp_path: Path) -> None:
    config = tmp_path / "ssh_config"
    config.write_text(lab["ssh_config"])
    shown = subprocess.run(
        ["ssh", "-G", "-F", str(config), "kafka-1"], capture_output=True, text=True, check=True
    ).stdout
    settings = dict(line.split(" ", 1) for line in shown.splitlines() if " " in line)
    assert (settings["hostname"], settings["user"], settings["proxyjump"]) == ("10.77.4.11", "lab", "bastion")
    assert settings["stricthostkeychecking"] == "accept-new"


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").glob("*.tfvars")))
def test_example(example: str, checkout: Path, cloud: dict[str, str], key: Path) -> None:
    root = checkout / "terraform" / "aws"
    done = terraform(
        "plan", "-no-color", "-lock=false", f"-state={key.with_name('none.tfstate')}", f"-var-file=examples/{example}",
        f"-var=ssh_public_key_file={key}.pub", root=root, env=cloud,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "usd_per_hour" in done.stdout
