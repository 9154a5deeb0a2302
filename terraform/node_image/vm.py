#!/usr/bin/env python3
"""Provide the disk image that virtual machines start from, in the cache: `vm.py built` or `vm.py debian`.

`built` is made from Debian's packages, by the recipe of the container image and what recipe-vm.json adds to it: a
kernel, which is booted directly, and cloud-init. `debian` is Debian's own cloud image, by address and SHA-512.

Every image is a folder `csl-vm-...` with `disk.qcow2`, `manifest.json` (file => SHA-512) and, where it is booted
directly, `vmlinuz` and `initrd`. Needs root for `built`: the file system's owners have to be the image's.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import build

VM_RECIPE = build.RECIPE.with_name("recipe-vm.json")
MANIFEST = "manifest.json"
# What the root file system holds, and as much again as cloud-init needs before it has grown it to the node's disk.
SPARE_MIB = 512


def recipe() -> dict[str, Any]:
    """Return the container image's recipe with what a virtual machine needs beside it."""
    container = json.loads(build.RECIPE.read_text())
    machine = json.loads(VM_RECIPE.read_text())
    return {
        **container,
        "packages": [*container["packages"], *machine["packages"]],
        "files": {**container["files"], **machine["files"]},
        "commands": [*container["commands"], *machine["commands"]],
    }


def image_name(kind: str, sha512: str) -> str:
    """Return the name of an image's folder; `sha512` is that of Debian's image, and unused for `built`."""
    if kind == "debian":
        return f"csl-vm-debian-{sha512[:12]}"
    return f"csl-vm-{hashlib.sha256(json.dumps(recipe(), sort_keys=True).encode()).hexdigest()[:12]}"


def sha512_of(path: Path) -> str:
    """Return a file's SHA-512 in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha512").hexdigest()


def faults(directory: Path) -> list[str]:
    """Name the files of an image that are not what they were when it was made; nothing for one that is not there."""
    if not directory.is_dir():
        return []
    remedy = f"remove {directory} and run this again"
    try:
        wanted = json.loads((directory / MANIFEST).read_text())
        return [
            f"the image's file {directory / name} has SHA-512 {found[:16]}..., not {sha512[:16]}...: {remedy}"
            for name, sha512 in wanted.items()
            if (found := sha512_of(directory / name)) != sha512
        ]
    except (OSError, ValueError) as error:
        return [f"the image {directory} is not complete ({error}): {remedy}"]


def fetch(url: str, sha512: str, directory: Path) -> None:
    """Download Debian's image into `directory`; ImageError where it cannot be had or is another."""
    disk = directory / "disk.qcow2"
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, disk.open("wb") as target:  # noqa: S310 - checked below
            shutil.copyfileobj(answer, target, 1 << 20)
    except (urllib.error.URLError, OSError) as error:
        raise build.ImageError(
            f"{url} cannot be fetched ({error}): check the network, or build an image here: make lab IMAGE=built"
        ) from error
    found = sha512_of(disk)
    if found != sha512:
        raise build.ImageError(f"{url} has SHA-512 {found}, not {sha512}: it is not the pinned image")


def make(directory: Path, *, mirror: str, security_mirror: str) -> None:
    """Build the image of the recipe into `directory`; raises CalledProcessError, or ImageError without root."""
    if os.geteuid() != 0:
        raise build.ImageError("building an image for virtual machines needs root: sudo make image TARGET=libvirt")
    with tempfile.TemporaryDirectory(prefix="vm-image-", dir=directory) as scratch:
        archive, root = Path(scratch, "rootfs.tar"), Path(scratch, "root")
        build.bootstrap(recipe(), archive, mirror=mirror, security_mirror=security_mirror)
        if archive.stat().st_size < build.MIN_ROOTFS_BYTES:
            raise build.ImageError(f"{archive} is too small to be a root file system: see what mmdebstrap said above")
        root.mkdir()
        with tarfile.open(archive) as packed:
            packed.extractall(root, numeric_owner=True, filter="fully_trusted")  # noqa: S202 - made above
        for name, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd", "initrd.img-*")):
            (found,) = (root / "boot").glob(pattern)
            shutil.copyfile(found, directory / name)
        raw = Path(scratch, "disk.raw")
        size_mib = (archive.stat().st_size >> 20) + SPARE_MIB
        archive.unlink()
        subprocess.run(
            ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-d", str(root), str(raw), f"{size_mib}M"], check=True
        )
        # Compressed: it is uploaded to libvirt as it is, and read once a node.
        subprocess.run(
            ["qemu-img", "convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", str(raw),
             str(directory / "disk.qcow2")],
            check=True,
        )  # fmt: skip


def provide(kind: str, directory: Path, options: argparse.Namespace) -> None:
    """Have the image in `directory`; a half-made one never gets this name."""
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if kind == "debian":
        fetch(options.url, options.sha512, partial)
    else:
        make(partial, mirror=options.mirror, security_mirror=options.security_mirror)
    sums = {path.name: sha512_of(path) for path in sorted(partial.iterdir())}
    (partial / MANIFEST).write_text(json.dumps(sums, indent=1) + "\n")
    partial.rename(directory)


def main() -> int:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("built", "debian"))
    parser.add_argument("--url", default="", help="address of Debian's image")
    parser.add_argument("--sha512", default="", help="its SHA-512")
    parser.add_argument("--is-there", action="store_true", help="only tell, by the exit code, whether the cache has it")
    parser.add_argument("--mirror", default=os.environ.get("DEBIAN_MIRROR") or build.DEFAULT_MIRROR)
    parser.add_argument(
        "--security-mirror", default=os.environ.get("DEBIAN_SECURITY_MIRROR") or build.DEFAULT_SECURITY_MIRROR
    )
    options = parser.parse_args()
    directory = build.cache_directory() / image_name(options.kind, options.sha512)
    if options.is_there:
        return 0 if directory.is_dir() else 1
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            if not directory.is_dir():
                provide(options.kind, directory, options)
        except build.ImageError as error:
            print(f"VM image: {error}", file=sys.stderr)
            return 1
        except FileNotFoundError as error:
            print(f"VM image: the program {error.filename} is missing (`make setup TARGET=libvirt`)", file=sys.stderr)
            return 1
        except subprocess.CalledProcessError as error:
            print(f"VM image: {error.cmd[0]} failed with exit code {error.returncode}, see above", file=sys.stderr)
            return 1
    print(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
