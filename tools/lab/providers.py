"""Terraform's providers: from their registry, else from a mirror on this machine, else built from pinned sources."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from context import REPOSITORY, Context, LabError, explain, need, progress
from machine import apt_install, run

REGISTRY = "registry.terraform.io"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# Where optional software keeps its files.
USUAL_PLACES = ("/opt", "/usr/share/terraform", "/usr/local/share/terraform", "/usr/local/share", "/srv")


@dataclass(frozen=True)
class Provider:
    """A provider that a root uses, and how it can be built where neither registry nor mirror has it."""

    source: str
    # With go.mod and go.sum in terraform/providers/<name>; nothing for one that can only be fetched.
    version: str = ""
    package: str = ""

    @property
    def name(self) -> str:
        """The provider's name without its namespace."""
        return self.source.rpartition("/")[2]

    @property
    def address(self) -> str:
        """Its folder in a mirror."""
        return f"{REGISTRY}/{self.source}"

    def is_in(self, folder: Path) -> bool:
        """Tell whether a folder, a mirror or Terraform's own, holds the provider."""
        tree, file_name = folder / self.address, f"terraform-provider-{self.name}_*"
        # Unpacked below version and platform, or packed. (rglob would not follow the links that Terraform makes.)
        return any(path.is_file() for path in (*tree.glob(f"*/*/{file_name}"), *tree.glob(f"{file_name}.zip")))


EXTERNAL = Provider("hashicorp/external", "1.2.0", "github.com/terraform-providers/terraform-provider-external")
LIBVIRT = Provider("dmacvicar/libvirt", "0.8.3", "github.com/dmacvicar/terraform-provider-libvirt")
AWS = Provider("hashicorp/aws")
OF_TARGET = {"lxd": (EXTERNAL,), "libvirt": (LIBVIRT, EXTERNAL), "aws": (AWS,)}


def find_mirror(provider: Provider, places: list[Path]) -> Path | None:
    """Return the first folder that holds a registry.terraform.io tree with the provider."""
    return next((place for place in places if provider.is_in(place)), None)


def places(context: Context) -> list[Path]:
    """Return the folders that may hold a mirror: those of $CSL_TERRAFORM_MIRROR, our own, and the usual ones."""
    found = [Path(text) for text in os.environ.get("CSL_TERRAFORM_MIRROR", "").split(os.pathsep) if text]
    found += [context.cache / "terraform-providers"]
    for root in USUAL_PLACES:
        if Path(root).is_dir():
            found += [Path(root), *sorted(entry for entry in Path(root).iterdir() if entry.is_dir())]
    return found


def initialise(context: Context) -> None:
    """Run `terraform init` for the target's root, unless that was done for what stands in it now."""
    root = context.terraform_root
    stamp = root / ".terraform" / "initialised-for"
    installed = root / ".terraform" / "providers"
    # Terraform links to the mirror, which may have gone since.
    if (
        stamp.is_file()
        and stamp.read_text() == _fingerprint(root)
        and all(provider.is_in(installed) for provider in OF_TARGET[context.target])
    ):
        return
    terraform = need("terraform", "`make setup` installs it")
    init = [terraform, f"-chdir={root}", "init", "-input=false", "-no-color"]
    env = {**os.environ, "TF_REGISTRY_CLIENT_TIMEOUT": "10", "TF_REGISTRY_DISCOVERY_RETRY": "0"}
    with progress("initialise Terraform from its registry") as _:
        done = subprocess.run(init, capture_output=True, text=True, check=False, env=env)
        reached = done.returncode == 0
        if not reached:
            said = [line for line in explain(done.stdout + done.stderr) if line.strip()]
            print("         not possible here" + "".join(f"\n           {line}" for line in said[:4]), flush=True)
    if not reached:
        _initialise_from_mirrors(context, init)
    # Taken now, for the lock file may be another than before.
    stamp.write_text(_fingerprint(root))


def _fingerprint(root: Path) -> str:
    # All of it, for a module that is new in main.tf wants to be installed as a new provider does.
    digest = hashlib.sha256()
    # The lock file with it: `git checkout` and `git pull` bring back checksums that a build of one's own does not have.
    for path in (*sorted(root.glob("*.tf")), *root.glob(".terraform.lock.hcl")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _initialise_from_mirrors(context: Context, init: list[str]) -> None:
    blocks, sources = [], []
    for provider in OF_TARGET[context.target]:
        mirror = find_mirror(provider, places(context))
        if mirror is None:
            mirror = _build(context, provider)
            print(f"         {provider.source}: built here, in {mirror}", flush=True)
        else:
            print(f"         {provider.source}: from the mirror {mirror}", flush=True)
        sources.append(f'"{provider.source}"')
        blocks.append(f'  filesystem_mirror {{\n    path    = "{mirror}"\n    include = ["{provider.source}"]\n  }}\n')
    settings = context.cache / f"terraformrc-{context.target}"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(
        f"provider_installation {{\n{''.join(blocks)}  direct {{\n    exclude = [{', '.join(sources)}]\n  }}\n}}\n"
    )
    lock = context.terraform_root / ".terraform.lock.hcl"
    if lock.is_file():
        # It holds the registry's checksums, and a build of one's own has others.
        lock.unlink()
        if _is_committed(lock):
            print(f"         {lock.relative_to(REPOSITORY)} names these builds now: do not commit it", flush=True)
    run(
        "initialise Terraform from mirrors", init,
        "set CSL_TERRAFORM_MIRROR to another folder that holds a registry.terraform.io tree",
        {"TF_CLI_CONFIG_FILE": str(settings)},
    )  # fmt: skip


def _is_committed(path: Path) -> bool:
    if shutil.which("git") is None:
        return False
    listed = subprocess.run(
        ["git", "-C", str(REPOSITORY), "ls-files", "--error-unmatch", str(path)], capture_output=True, check=False
    )
    return listed.returncode == 0


def _build(context: Context, provider: Provider) -> Path:
    if not provider.version:
        raise LabError(
            f"Terraform's provider {provider.source} cannot be had: its registry does not answer, and no mirror "
            "holds it. Set CSL_TERRAFORM_MIRROR to a folder that holds a registry.terraform.io tree"
        )
    if shutil.which("go") is None:
        apt_install(["golang-go"])
    mirror = context.cache / "terraform-providers"
    machine = ARCHITECTURES.get(os.uname().machine, os.uname().machine)
    folder = mirror / provider.address / provider.version / f"linux_{machine}"
    folder.mkdir(parents=True, exist_ok=True)
    partial = context.cache / f"terraform-provider-{provider.name}.partial"
    run(
        f"build Terraform's provider {provider.source} from its pinned sources",
        ["go", "build", "-mod=mod", "-trimpath", "-o", str(partial), provider.package],
        "set CSL_TERRAFORM_MIRROR to a folder that holds a registry.terraform.io tree",
        {"GOTOOLCHAIN": "local", "GOFLAGS": ""},
        REPOSITORY / "terraform" / "providers" / provider.name,
    )
    partial.rename(folder / f"terraform-provider-{provider.name}_v{provider.version}")
    return mirror
