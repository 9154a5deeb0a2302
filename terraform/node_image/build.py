#!/usr/bin/env python3
"""Build the node image from Debian's packages, as the recipe beside this file says.

The packages that most nodes need are part of the image, so that a lab comes up quickly; the Ansible roles still name
them, and install them where an image (a cloud's, say) lacks them.

The result is two tar files in the cache, named after the SHA-256 of everything that went into them: a second build of
the same recipe finds them and does nothing. Runs on the standard library alone, as root or as a user with
subordinate ids (`mmdebstrap` then uses a user namespace).
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).with_name("recipe.json")
DEFAULT_MIRROR = "http://deb.debian.org/debian"
DEFAULT_SECURITY_MIRROR = "http://deb.debian.org/debian-security"


# Debian's smallest system has more than this.
MIN_ROOTFS_BYTES = 50_000_000


class ImageError(Exception):
    """The image cannot be used; the text says why."""


def image_name(recipe: dict[str, Any]) -> str:
    """Return the alias under which an image of this recipe is known: `csl-node-` and 12 hex digits."""
    content = json.dumps(recipe, sort_keys=True).encode()
    return f"csl-node-{hashlib.sha256(content).hexdigest()[:12]}"


def cache_directory() -> Path:
    """Return the folder for images: $CSL_CACHE/images, below the XDG cache by default."""
    root = os.environ.get("CSL_CACHE")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "crypto-stream-lab")
    return base / "images"


def bootstrap(recipe: dict[str, Any], rootfs: Path, *, mirror: str, security_mirror: str) -> None:
    """Run mmdebstrap; raises CalledProcessError when it fails."""
    suite, components = recipe["suite"], " ".join(recipe["components"])
    with tempfile.TemporaryDirectory(prefix="node-image-") as scratch:
        overlay = Path(scratch, "overlay.tar")
        with tarfile.open(overlay, "w") as archive:
            for path, content in recipe["files"].items():
                entry = tarfile.TarInfo(path.lstrip("/"))
                entry.size = len(content.encode())
                entry.mode = 0o440 if "sudoers" in path else 0o644
                archive.addfile(entry, io.BytesIO(content.encode()))
        script = Path(scratch, "customize.sh")
        script.write_text("set -eu\n" + "\n".join(recipe["commands"]) + "\n")
        # The files come before the packages, so that a package's first configuration already sees them.
        subprocess.run(
            [
                "mmdebstrap",
                "--variant=minbase",
                f"--components={components}",
                f"--include={','.join(recipe['packages'])}",
                "--dpkgopt=force-confold",
                '--aptopt=APT::Install-Recommends "false"',
                f"--essential-hook=tar-in {overlay} /",
                f"--customize-hook=copy-in {script} /tmp",
                '--customize-hook=chroot "$1" sh /tmp/customize.sh',
                '--customize-hook=rm -f "$1"/tmp/customize.sh',
                suite,
                str(rootfs),
                f"deb {mirror} {suite} {components}",
                f"deb {mirror} {suite}-updates {components}",
                f"deb {security_mirror} {suite}-security {components}",
            ],
            check=True,
            stdin=subprocess.DEVNULL,
            # tar would write the image to the file that a variable TAPE names.
            env={name: value for name, value in os.environ.items() if name != "TAPE"},
        )


def write_metadata(recipe: dict[str, Any], name: str, target: Path) -> None:
    """Write the metadata tar that LXD and Incus want beside a root file system."""
    metadata = {
        "architecture": os.uname().machine,
        "creation_date": int(time.time()),
        "properties": {
            "description": f"crypto-stream-lab node, Debian {recipe['suite']}",
            "os": "debian",
            "release": recipe["suite"],
            "name": name,
        },
        # The host name of a fresh node; the machine id is made at its first boot.
        "templates": {"/etc/hostname": {"when": ["create", "copy"], "template": "hostname.tpl"}},
    }
    with tarfile.open(target, "w") as archive:
        # JSON is YAML, so that the standard library suffices.
        for path, content in (
            ("metadata.yaml", json.dumps(metadata, indent=1)),
            ("templates/hostname.tpl", "{{ container.name }}\n"),
        ):
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content.encode()))


def build(recipe: dict[str, Any], directory: Path, *, mirror: str, security_mirror: str) -> None:
    """Fill `directory` with rootfs.tar and metadata.tar; half-made files never get these names."""
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    bootstrap(recipe, partial / "rootfs.tar", mirror=mirror, security_mirror=security_mirror)
    if (partial / "rootfs.tar").stat().st_size < MIN_ROOTFS_BYTES:
        raise ImageError(
            f"{partial / 'rootfs.tar'} is too small to be a root file system: see what mmdebstrap said above"
        )
    write_metadata(recipe, directory.name, partial / "metadata.tar")
    partial.rename(directory)


def has_image(client: str, name: str) -> bool:
    """Tell whether LXD (or Incus) knows this image."""
    listing = subprocess.run(
        [client, "image", "list", "--format", "json", name], check=True, capture_output=True, text=True
    ).stdout
    return any(alias["name"] == name for image in json.loads(listing) for alias in image["aliases"])


def main() -> int:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", action="store_true", help="only print the image's name")
    parser.add_argument(
        "--client", choices=("lxc", "incus"), help="import the image with this client, unless it is there"
    )
    parser.add_argument("--generation", default="", help="label to give to an image that is imported now")
    parser.add_argument("--mirror", default=os.environ.get("DEBIAN_MIRROR") or DEFAULT_MIRROR)
    parser.add_argument(
        "--security-mirror", default=os.environ.get("DEBIAN_SECURITY_MIRROR") or DEFAULT_SECURITY_MIRROR
    )
    arguments = parser.parse_args()

    recipe = json.loads(RECIPE.read_text())
    name = image_name(recipe)
    if arguments.name:
        print(name)
        return 0
    if shutil.which("mmdebstrap") is None:
        print("node image: mmdebstrap is missing: apt-get install mmdebstrap (or `make setup`)", file=sys.stderr)
        return 1
    directory = cache_directory() / name
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Two labs may come up at once: one of them builds, the other waits and finds the image made.
    with (directory.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            if not directory.is_dir():
                build(recipe, directory, mirror=arguments.mirror, security_mirror=arguments.security_mirror)
            if arguments.client and not has_image(arguments.client, name):
                subprocess.run(
                    [
                        arguments.client, "image", "import", str(directory / "metadata.tar"),
                        str(directory / "rootfs.tar"), "--alias", name, f"generation={arguments.generation}",
                    ],
                    check=True,
                    stdin=subprocess.DEVNULL,
                )  # fmt: skip
        except ImageError as error:
            print(f"node image: {error}", file=sys.stderr)
            return 1
        except subprocess.CalledProcessError as error:
            print(f"node image: {error.cmd[0]} failed with exit code {error.returncode}, see above", file=sys.stderr)
            return 1
    print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
