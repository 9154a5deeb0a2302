"""`down` and `clean`: take labs away, and nothing that belongs to another."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from pathlib import Path

import machine
import targets
from context import REPOSITORY, TARGETS, Context, LabError, close_connection


def down(context: Context) -> None:
    """Remove this lab's nodes, network and storage; artifacts, image and SSH key are kept."""
    if not (context.terraform_root / ".terraform").is_dir():
        print(f"  nothing to do: no {context.target} lab was ever made here")
        return
    with context.locked():
        # Its daemon may be down since the machine was started anew.
        targets.of(context).install()
        context.step(
            f"remove the nodes of '{context.lab}' (terraform destroy)",
            ["terraform", f"-chdir={context.terraform_root}", "destroy", "-auto-approve", "-input=false", "-no-color",
             *targets.of(context).variables()],
            log="terraform-destroy",
            failed="The lab could not be removed completely (terraform destroy).",
        )  # fmt: skip
        context.ssh_config.unlink(missing_ok=True)
        # Ansible keeps connections open for a while; those to nodes that are gone would only hang.
        for socket in context.connections.glob("*"):
            close_connection(socket)


def workspaces(root: Path) -> list[str]:
    """Return the names of the labs that a Terraform root has a state for."""
    states = root / "terraform.tfstate.d"
    names = [entry.name for entry in states.iterdir() if entry.is_dir()] if states.is_dir() else []
    if (root / "terraform.tfstate").is_file():
        names.append("lab")
    return sorted(names)


def clean(context: Context) -> None:
    """Remove every lab of this folder, its keys and secrets, the node images and the cache.

    Running nodes of other folders are not touched; the images and the cache are made again when they are needed.
    """
    for target in TARGETS:
        remove_labs(target)
    _remove_images()
    _remove_cache(context)
    shutil.rmtree(REPOSITORY / ".lab", ignore_errors=True)
    print("  removed labs, images, artifacts and keys; programs that `make setup` installed are kept")


def remove_labs(target: str) -> None:
    """Remove every lab of a target that this folder has a Terraform state for."""
    root = REPOSITORY / "terraform" / target
    for name in workspaces(root):
        lab = Context(target=target, lab=name)
        down(lab)
        _remove_blackhole(lab)
        shutil.rmtree(lab.lab_dir, ignore_errors=True)
        shutil.rmtree(root / "terraform.tfstate.d" / name, ignore_errors=True)
    for leftover in root.glob("terraform.tfstate*"):
        if leftover.is_file():
            leftover.unlink()


def _remove_cache(context: Context) -> None:
    # By name: $CSL_CACHE may be a folder that holds other things too.
    for part in ("artifacts", "images", "terraform-providers"):
        shutil.rmtree(context.cache / part, ignore_errors=True)
    for settings in context.cache.glob("terraformrc*"):
        settings.unlink()
    with contextlib.suppress(OSError):
        context.cache.rmdir()


def _remove_images() -> None:
    client = machine.client()
    if not client:
        return
    shown = subprocess.run([client, "image", "list", "--format", "json"], capture_output=True, text=True, check=False)
    if shown.returncode != 0:
        raise LabError(f"{client} does not answer: {shown.stderr.strip()}")
    for image in json.loads(shown.stdout):
        if any(alias["name"].startswith("csl-node-") for alias in image["aliases"]):
            subprocess.run([client, "image", "delete", image["fingerprint"]], capture_output=True, check=False)


def _remove_blackhole(context: Context) -> None:
    shown = subprocess.run(
        ["terraform", f"-chdir={context.terraform_root}", "console"], input="local.subnet\n",
        capture_output=True, text=True, check=False, env=context.environment,
    )  # fmt: skip
    subnet = shown.stdout.strip().strip('"')
    if shown.returncode == 0 and subnet:
        targets.of(context).clean(subnet)
