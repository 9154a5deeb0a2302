"""`up`: nodes, services, rows."""

from __future__ import annotations

import argparse
import ipaddress
import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import providers
import screen
import targets
from context import REPOSITORY, Context, LabError, progress

CHOICES = {
    "source": ("coinbase_rest", "coinbase_ws", "tape"),
    "feed": ("auto", "coinbase", "replay"),
    "monitoring": ("on", "off"),
    # Of virtual machines.
    "image": ("debian", "built"),
    "virtualization": ("kvm", "qemu"),
    "airflow": ("on", "off"),
}
ROWS_TIMEOUT_S = 180
# Rows count as flowing when the newest is not older than this: three of Spark's batches.
FRESH_S = 60


# What `make lab` builds when nothing is said.
DEFAULTS = {"topology": "small", "subnet": "", "source": "coinbase_rest", "feed": "auto", "tape": "", "speed": "1",
            "monitoring": "on", "airflow": "on", "image": "debian", "virtualization": "", "ssh_cidr": ""}  # fmt: skip
# Groups of nodes that hold nothing which would have to be moved elsewhere before they go.
WITHOUT_DRAIN = {"airflow", "monitoring"}


def complete_options(context: Context, options: argparse.Namespace) -> None:
    """Fill in what was not given: from the lab's last run, else the defaults."""
    kept = context.options
    for name, default in DEFAULTS.items():
        if getattr(options, name, None) is None:
            setattr(options, name, kept.get(name, default))
    # They are remembered, and read from another folder than this one.
    if Path(options.topology).is_file():
        options.topology = str(Path(options.topology).resolve())
    if options.tape:
        options.tape = str(Path(options.tape).resolve())


def remember_options(context: Context, options: argparse.Namespace) -> None:
    """Keep the options for the next `make lab`, and for `terraform apply` and `ansible-playbook site.yml` by hand."""
    (context.lab_dir / "topology.yaml").write_text(topology_text(options))
    (context.lab_dir / "options.json").write_text(json.dumps({name: getattr(options, name) for name in DEFAULTS}))
    variables = {
        "lab_source": options.source,
        "lab_feed": options.feed,
        "lab_tape": options.tape,
        "lab_speed": float(options.speed),
        "lab_monitoring": options.monitoring == "on",
    }
    (context.lab_dir / "variables.json").write_text(json.dumps(variables, indent=1) + "\n")


def check_options(options: argparse.Namespace, target: str) -> None:
    """Refuse wrong options, all of them at once, before anything is made."""
    problems = []
    topologies = sorted(path.stem for path in (REPOSITORY / "terraform" / "topologies").glob("*.yaml"))
    if options.topology not in topologies and not Path(options.topology).is_file():
        problems.append(f"TOPOLOGY={options.topology}: known are {', '.join(topologies)}, or give a file")
    if options.subnet and not valid_network(options.subnet):
        problems.append(f"SUBNET={options.subnet}: give an IPv4 network in CIDR notation, e.g. 10.77.0.0/24")
    problems += [
        f"{name.upper()}={getattr(options, name)}: known are {', '.join(known)}"
        for name, known in CHOICES.items() if getattr(options, name) not in ("", *known)
    ]  # fmt: skip
    if options.tape and not Path(options.tape).is_file():
        problems.append(f"TAPE_FILE={options.tape}: there is no such file")
    if target == "aws" and not options.ssh_cidr:
        problems.append(
            "TARGET=aws needs SSH_CIDR=, the network that may log in: your own address, e.g. 203.0.113.7/32"
        )
    if options.source == "tape" and not options.tape:
        problems.append("SOURCE=tape needs TAPE_FILE=, a file of recorded feed messages (NDJSON)")
    try:
        positive = float(options.speed) > 0
    except ValueError:
        positive = False
    if not positive:
        problems.append(f"SPEED={options.speed}: must be a positive number")
    if problems:
        raise LabError("this lab cannot be built as asked:\n" + "\n".join(f"  - {problem}" for problem in problems))


def valid_network(text: str) -> bool:
    """Tell whether a text is an IPv4 network in CIDR notation."""
    try:
        ipaddress.IPv4Network(text)
    except ValueError:
        return False
    return "/" in text


def up(context: Context, options: argparse.Namespace) -> None:
    """Bring the lab up, or to what the options ask; then show it."""
    began = time.monotonic()
    complete_options(context, options)
    check_options(options, context.target)
    print(f"Lab '{context.lab}' on {context.target}, topology {options.topology}")
    with context.locked():
        targets.setup(context)
        image(context, options)
        variables = [
            f"-var=topology={options.topology}", *([f"-var=subnet={options.subnet}"] * bool(options.subnet)),
            f"-var=without_groups={json.dumps(without_groups(options))}", *targets.of(context).variables(options),
        ]  # fmt: skip
        drain(context, options, variables)
        apply(context, options, *variables)
        remember_options(context, options)
        recap = configure(context, options)
        newest = wait_for_rows(context)
    elapsed = time.monotonic() - began
    screen.status(context, newest)
    print("\nWhere the time went: " + ", ".join(f"{name} {spent:.0f} s" for name, spent in context.timings_s.items()))
    print(f"In all {elapsed:.0f} s; Ansible changed {recap} things.")
    if options.expect_unchanged and recap:
        raise LabError(f"Ansible changed {recap} things, none was expected: {context.logs / 'ansible.log'}")


def image(context: Context, options: argparse.Namespace) -> None:
    """Provide the node image, unless it is there."""
    command = targets.of(context).image_command(options)
    if command is not None:
        context.step("provide the node image", command, log="image", failed="The node image could not be provided.")


def artifacts(context: Context) -> None:
    """Fetch and build what the nodes need, without any node."""
    targets.setup(context)
    context.step(
        "fetch artifacts",
        ["ansible-playbook", "-i", "localhost,", str(REPOSITORY / "ansible" / "playbooks" / "artifacts.yml")],
        log="artifacts",
        failed="The artifacts could not be fetched.",
    )


def nodes(context: Context, options: argparse.Namespace) -> None:
    """Make nodes alone, in any mix of groups: what a role's test runs on."""
    complete_options(context, options)
    with context.locked():
        providers.initialise(context)
        apply(
            context, options, f"-var=topology={Path(options.topology).resolve()}", "-var=required_groups=[]",
            *targets.of(context).variables(options),
        )  # fmt: skip


def topology_text(options: argparse.Namespace) -> str:
    """Return the content of the topology that the options name."""
    named = REPOSITORY / "terraform" / "topologies" / f"{options.topology}.yaml"
    return (named if named.is_file() else Path(options.topology)).read_text()


def drain(context: Context, options: argparse.Namespace, variables: list[str]) -> None:
    """Take out of service the nodes that the topology no longer has, before Terraform removes them."""
    applied = context.lab_dir / "topology.yaml"
    if not context.ssh_config.is_file() or (applied.is_file() and applied.read_text() == topology_text(options)):
        return
    plan = context.lab_dir / "terraform.plan"
    try:
        context.step(
            "compare the nodes with the topology (terraform plan)",
            ["terraform", f"-chdir={context.terraform_root}", "plan", "-input=false", "-no-color", f"-out={plan}",
             *variables],
            log="terraform-plan",
            failed="This lab cannot be built as asked (terraform plan).",
        )  # fmt: skip
        shown = subprocess.run(
            ["terraform", f"-chdir={context.terraform_root}", "show", "-json", str(plan)],
            capture_output=True, text=True, check=True, env=context.environment,
        ).stdout  # fmt: skip
    finally:
        plan.unlink(missing_ok=True)
    leaving = [
        node for node in nodes_that_leave(json.loads(shown), targets.of(context).node_resource)
        if not groups_of(screen.inventory(context), node) <= WITHOUT_DRAIN
    ]  # fmt: skip
    if leaving:
        context.step(
            f"drain {', '.join(leaving)} (ansible-playbook drain.yml)",
            ["ansible-playbook", str(REPOSITORY / "ansible" / "playbooks" / "drain.yml"), "-e",
             f"nodes={','.join(leaving)}"],
            log="drain",
            failed="The nodes could not be drained, and none was removed (ansible-playbook drain.yml).",
            env={"ANSIBLE_NOCOLOR": "1"},
        )  # fmt: skip


def nodes_that_leave(plan: dict[str, Any], node_resource: tuple[str, str]) -> list[str]:
    """Return the names of the nodes that a plan of Terraform (its JSON form) deletes and does not make again."""
    return sorted(
        change["index"] for change in plan.get("resource_changes", [])
        if (change["type"], change["name"]) == node_resource and change["change"]["actions"] == ["delete"]
    )  # fmt: skip


def groups_of(inventory: dict[str, Any], node: str) -> set[str]:
    """Return the groups that a node is in."""
    return {
        group for group, found in inventory.items()
        if group not in {"all", "_meta"} and node in found.get("hosts", [])
    }  # fmt: skip


def without_groups(options: argparse.Namespace) -> list[str]:
    """Return the groups of the parts that are switched off."""
    return ["airflow"] if options.airflow == "off" else []


def apply(context: Context, options: argparse.Namespace, *variables: str) -> None:
    """Make the nodes, and write the SSH configuration for them."""
    context.remember_target()
    targets.of(context).before_apply(list(variables), options)
    context.step(
        "make the nodes (terraform apply)",
        ["terraform", f"-chdir={context.terraform_root}", "apply", "-auto-approve", "-input=false", "-no-color",
         *variables],
        log="terraform",
        failed="The nodes could not be made (terraform apply).",
    )  # fmt: skip
    # A plan with the same options must be empty from now on.
    (context.lab_dir / "applied.json").write_text(json.dumps(variables))
    shown = subprocess.run(
        ["terraform", f"-chdir={context.terraform_root}", "output", "-raw", "ssh_config"],
        capture_output=True, text=True, check=True, env=context.environment,
    ).stdout  # fmt: skip
    context.ssh_config.write_text(shown)
    targets.of(context).start_stopped_nodes()


def configure(context: Context, options: argparse.Namespace) -> int:
    """Run site.yml and say where its prices come from; returns how many things it changed."""
    output = context.step(
        "install and start the services (ansible-playbook site.yml)",
        ["ansible-playbook", str(REPOSITORY / "site.yml")],
        log="ansible",
        failed="The services could not be set up (ansible-playbook site.yml).",
        env={"ANSIBLE_NOCOLOR": "1"},
    )
    said = source_of_prices(output)
    if said:
        print(f"         {said}", flush=True)
        if options.feed == "auto" and options.source != "tape":
            # A running lab keeps its feed, whatever a later try says; FEED=auto tries again.
            options.feed = "replay" if "replay" in said else "coinbase"
            remember_options(context, options)
    return changed(output)


def source_of_prices(output: str) -> str:
    """Return the sentence in which site.yml says where prices come from, which Ansible may have wrapped."""
    found = re.search(
        r"Prices come from (the replay[^:]*: rows carry user = replay|the tape|Coinbase)", re.sub(r"\s+", " ", output)
    )
    return found[0] if found else ""


def changed(output: str) -> int:
    """Add up `changed=` in Ansible's recap."""
    recap = output.rpartition("PLAY RECAP")[2]
    return sum(int(part.split("=")[1]) for part in recap.split() if part.startswith("changed="))


def wait_for_rows(context: Context) -> dict[str, float | None]:
    """Wait until both engines write fresh rows; LabError names the one that does not."""
    ages: dict[str, float | None] = {}
    with progress("wait for rows from both engines"):
        patience = screen.patience(screen.inventory(context))
        deadline = time.monotonic() + ROWS_TIMEOUT_S * patience
        while True:
            ages = screen.newest_row_ages(context)
            late = [engine for engine, age in ages.items() if age is None or age > FRESH_S * patience]
            if not late:
                return ages
            if time.monotonic() > deadline:
                break
            time.sleep(2)
    logs = {
        "Spark": "make ssh NODE=submitter-1, sudo journalctl -u spark-job",
        "Flink": "make ssh NODE=submitter-1, sudo journalctl -u flink-job",
    }
    raise LabError(
        "\n".join(
            f"No rows flow through {engine} "
            f"({'none so far' if ages[engine] is None else f'newest is {ages[engine]:.0f} s old'}). "
            f"Look at: {logs[engine]}"
            for engine in late
        )
        + "\nIf neither has rows: make ssh NODE=producer-1, sudo journalctl -u producer. See docs/troubleshooting.md."
    )
