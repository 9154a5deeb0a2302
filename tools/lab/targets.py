"""What is done differently for each place that nodes come from: containers, virtual machines, the cloud."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from pathlib import Path

import hypervisor
import machine
import providers
from context import REPOSITORY, Context, LabError

NODE_IMAGE = REPOSITORY / "terraform" / "node_image"


class Target:
    """What a target needs of this machine and of its Terraform root; the base does nothing."""

    # The Terraform resource whose instances are nodes: what leaves the plan is drained first.
    node_resource = ("", "")

    def __init__(self, context: Context) -> None:
        self.context = context

    def install(self) -> None:
        """Install what makes the nodes."""

    def image_command(self, options: argparse.Namespace) -> list[str] | None:
        """Return the command that provides the node image, or None where there is nothing to do."""
        del options
        return None

    def variables(self, options: argparse.Namespace | None = None) -> list[str]:
        """Return Terraform's options beyond topology and subnet; without `options` those that destroying needs."""
        del options
        return []

    def before_apply(self, variables: list[str], options: argparse.Namespace) -> None:
        """Do what Terraform expects to be done, and get the consent that is needed."""
        del variables, options

    def start_stopped_nodes(self) -> None:
        """Start the nodes that somebody has stopped: Terraform only knows that they are there."""

    def clean(self, subnet: str) -> None:
        """Take away what `make down` leaves."""


class Containers(Target):
    """LXD or Incus on this machine."""

    node_resource = ("terraform_data", "node")

    def install(self) -> None:
        """Install the container manager."""
        machine.install_firewall_program()
        machine.install_container_manager()
        machine.raise_inotify_limit()

    def image_command(self, options: argparse.Namespace) -> list[str] | None:
        """Build and import the image, unless the container manager has it."""
        del options
        command = ["python3", str(NODE_IMAGE / "build.py")]
        name = subprocess.run([*command, "--name"], capture_output=True, text=True, check=True).stdout.strip()
        known = subprocess.run([machine.client(), "image", "info", name], capture_output=True, check=False)
        if known.returncode == 0:
            return None
        return [*command, "--client", machine.client(), "--generation", f"b{time.time_ns():x}"]

    def variables(self, options: argparse.Namespace | None = None) -> list[str]:
        """Name the client that is there."""
        del options
        return [f"-var=client={machine.client() or 'lxc'}"]

    def start_stopped_nodes(self) -> None:
        """Start stopped containers."""
        machine.start_stopped_nodes(self.context)

    def clean(self, subnet: str) -> None:
        """Remove the blackhole rules."""
        verb = self.context.terraform_root / "scripts" / "lxd.py"
        spec = json.dumps({"client": machine.client() or "lxc", "lab": self.context.lab, "subnet": subnet})
        subprocess.run(["python3", str(verb), "routes-down"], env={**os.environ, "SPEC": spec}, check=False)


class VirtualMachines(Target):
    """libvirt, here or where LIBVIRT_URI says."""

    node_resource = ("libvirt_domain", "node")

    def install(self) -> None:
        """Install and start libvirt and the emulator."""
        hypervisor.install()

    def image_command(self, options: argparse.Namespace) -> list[str] | None:
        """Fetch or build the disk image, unless it is in the cache: `terraform apply` would do it without a word."""
        return hypervisor.image_command(self.context, options.image)

    def variables(self, options: argparse.Namespace | None = None) -> list[str]:
        """Say how machines are run, and from which image."""
        uri = os.environ.get("LIBVIRT_URI")
        chosen = [f"-var=libvirt_uri={uri}"] if uri else []
        if options is not None:
            chosen += [f"-var=image={options.image}"]
            chosen += [f"-var=virtualization={options.virtualization}"] * bool(options.virtualization)
        return chosen

    def before_apply(self, variables: list[str], options: argparse.Namespace) -> None:
        """Make the SSH key, whose public half the machines are born with."""
        del variables, options
        machine.make_ssh_key(self.context)

    def start_stopped_nodes(self) -> None:
        """Start machines that are shut off."""
        hypervisor.start_stopped_nodes(self.context)

    def clean(self, subnet: str) -> None:
        """Remove the blackhole rules."""
        verb = self.context.terraform_root / "scripts" / "nodes.py"
        spec = json.dumps({"lab": self.context.lab, "subnet": subnet})
        subprocess.run(["python3", str(verb), "routes-down"], env={**os.environ, "SPEC": spec}, check=False)


class Cloud(Target):
    """AWS; further variables come from terraform/aws/*.auto.tfvars or TF_VAR_..., as Terraform reads them."""

    node_resource = ("aws_instance", "node")

    def variables(self, options: argparse.Namespace | None = None) -> list[str]:
        """Say from where SSH is let in: as asked, else as the lab was made with."""
        network = (
            getattr(options, "ssh_cidr", None) or self.context.options.get("ssh_cidr") or os.environ.get("SSH_CIDR")
        )
        return [f"-var=bastion_ssh_cidr={network}"] if network else []

    def before_apply(self, variables: list[str], options: argparse.Namespace) -> None:
        """Make the SSH key; show what the lab will cost, and go on only with consent."""
        machine.make_ssh_key(self.context)
        if self.context.ssh_config.is_file():
            # It is paid for already.
            return
        plan = self.context.lab_dir / "terraform.plan"
        terraform = ["terraform", f"-chdir={self.context.terraform_root}"]
        try:
            self.context.step(
                "reckon the cost (terraform plan)",
                [*terraform, "plan", "-input=false", "-no-color", f"-out={plan}", *variables],
                log="terraform-plan",
                failed="This lab cannot be built as asked (terraform plan).",
            )
            shown = subprocess.run(
                [*terraform, "show", "-json", str(plan)],
                capture_output=True, text=True, check=True, env=self.context.environment,
            ).stdout  # fmt: skip
        finally:
            plan.unlink(missing_ok=True)
        cost = json.loads(shown)["planned_values"]["outputs"]["cost_estimate"]["value"]
        estimate = f"about {cost['usd_per_hour']} USD an hour, {cost['usd_per_day']} a day, until `make down`"
        print(f"         AWS will charge {estimate} (an estimate: terraform/aws/cost.tf)", flush=True)
        if getattr(options, "confirm", None) != self.context.lab:
            raise LabError(f"nothing was made yet: this lab costs {estimate}. To go on, add CONFIRM={self.context.lab}")


def of(context: Context) -> Target:
    """Return the target of a lab."""
    return {"lxd": Containers, "libvirt": VirtualMachines, "aws": Cloud}[context.target](context)


def setup(context: Context) -> None:
    """Check this machine and install what is missing; every step that finds its work done says nothing."""
    machine.check_distribution(Path("/etc/os-release").read_text())
    if context.target != "aws":
        machine.check_resources(context)
    machine.install_packages()
    of(context).install()
    machine.install_terraform()
    machine.make_virtual_environment()
    providers.initialise(context)
