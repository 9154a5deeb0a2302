"""What every target needs of this machine, and LXD or Incus: check it and install what is missing, once."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from context import REPOSITORY, Context, LabError, progress, wait

# The topology `mini`, and what the host keeps for itself.
MIN_MEMORY_MIB = 6144 + 1024
# Measured: nodes of the topology `small`, artifacts (with those of an older commit), node image.
NODES_GIB, ARTIFACTS_GIB, IMAGE_GIB = 12, 4, 1
MIN_TERRAFORM = (1, 9)
INOTIFY_INSTANCES = 1024
LOCK_FILE = REPOSITORY / "requirements" / "controller.txt"
# Any of them will do.
BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
PROMETHEUS_UNIT = Path("/etc/systemd/system/prometheus.service")
# Asked by Debian's packages whether they may start a service.
START_POLICY = Path("/usr/sbin/policy-rc.d")
# Program => Debian/Ubuntu package that brings it.
PACKAGES = {
    "ssh": "openssh-client",
    "ip": "iproute2",
    "mvn": "maven",
    "javac": "default-jdk-headless",
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
}


def check_distribution(os_release: str) -> None:
    """Refuse a system without apt; LabError says what is supported."""
    found = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    family = {found.get("ID", "").strip('"'), *found.get("ID_LIKE", "").strip('"').split()}
    if not family & {"debian", "ubuntu"}:
        raise LabError(
            f"this is {found.get('PRETTY_NAME', 'an unknown system')}: "
            "the lab's set-up knows Debian 12/13 and Ubuntu 24.04"
        )


def check_resources(context: Context) -> None:
    """Refuse a machine that is far too small, before anything is installed."""
    meminfo = Path("/proc/meminfo").read_text()
    memory_mib = int(re.findall(r"MemTotal:\s+(\d+)", meminfo)[0]) // 1024
    problems = []
    if memory_mib < MIN_MEMORY_MIB:
        problems.append(f"{memory_mib} MiB of memory: the smallest topology needs {MIN_MEMORY_MIB} MiB")
    problems += disk_shortage(context)
    if problems:
        raise LabError("this machine is too small:\n" + "\n".join(f"  - {problem}" for problem in problems))


def disk_shortage(context: Context) -> list[str]:
    """Name the file systems that lack space for what is not there yet; each once, with all it has to take."""
    context.cache.mkdir(parents=True, exist_ok=True)
    has_artifacts = (context.cache / "artifacts" / "bundles").is_dir()
    has_nodes = context.ssh_config.is_file()
    wanted: dict[int, tuple[list[Path], int]] = {}
    for place, gib in (
        (context.cache, 0 if has_artifacts else ARTIFACTS_GIB),
        # Where LXD and Incus keep image and nodes.
        (Path("/var/lib"), 0 if has_nodes else IMAGE_GIB + NODES_GIB),
    ):
        places, sum_gib = wanted.get(place.stat().st_dev, ([], 0))
        wanted[place.stat().st_dev] = ([*places, place], sum_gib + gib)
    return [
        f"{shutil.disk_usage(places[0]).free // 2**30} GiB free below {' and '.join(map(str, places))}: this lab needs "
        f"{gib} GiB more there (CSL_CACHE=... puts the artifacts elsewhere)"
        for places, gib in wanted.values()
        if shutil.disk_usage(places[0]).free < gib * 2**30
    ]


def as_root(command: list[str]) -> list[str]:
    """Return the command as it has to be called to run as root; LabError where that is not possible."""
    if os.geteuid() == 0:
        return command
    if shutil.which("sudo") is None:
        raise LabError(f"`{' '.join(command)}` needs root: run `make setup` as root once, or install sudo")
    return ["sudo", *command]


def run(name: str, command: list[str], remedy: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> None:
    """Run a step of the set-up with its output kept for the error message."""
    if command[0] == "sudo":
        # Asks for the password before the line with the elapsed time would hide the question.
        subprocess.run(["sudo", "-v"], check=False)
    with progress(name), tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, cwd=cwd,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
        if wait(process) != 0:
            output.seek(0)
            tail = "\n".join(f"    {line}" for line in output.read().strip().splitlines()[-15:])
            raise LabError(f"{name}: `{' '.join(command)}` failed:\n{tail}\n  {remedy}")


def apt_install(packages: list[str]) -> None:
    """Install Debian packages."""
    # As a program of its own, since sudo does not hand the variable on.
    apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    run("read the package lists", as_root([*apt, "update", "-q"]), "check the network and /etc/apt")
    run(
        f"install {', '.join(packages)}",
        as_root([*apt, "install", "-y", "-q", "--no-install-recommends", *packages]),
        "install them by hand and run this again",
    )


def install_packages() -> None:
    """Install the programs that the lab calls."""
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    # Debian splits the module that makes virtual environments off its Python.
    if subprocess.run(["python3", "-c", "import ensurepip"], capture_output=True, check=False).returncode != 0:
        missing.append("python3-venv")
    if missing:
        apt_install(missing)


def install_test_packages() -> None:
    """Install the programs that only tests need: a database server, a browser, promtool."""
    _install_postgresql()
    _install_promtool()
    install_browser()


def _install_promtool() -> None:
    if shutil.which("promtool"):
        return
    # It comes with Prometheus, which Debian would start now, and again at every boot. Against the latter a mask, which
    # stays (`systemctl unmask prometheus` for who wants it); against the former Debian's own means. Others' are kept.
    if not os.path.lexists(PROMETHEUS_UNIT):
        subprocess.run(as_root(["mkdir", "-p", str(PROMETHEUS_UNIT.parent)]), check=True)
        subprocess.run(as_root(["ln", "-s", "/dev/null", str(PROMETHEUS_UNIT)]), check=True)
    ours = not os.path.lexists(START_POLICY)
    if ours:
        subprocess.run(as_root(["tee", str(START_POLICY)]), input="#!/bin/sh\nexit 101\n", text=True, check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        subprocess.run(as_root(["chmod", "755", str(START_POLICY)]), check=True)
    try:
        apt_install(["prometheus"])
    finally:
        if ours:
            subprocess.run(as_root(["rm", "-f", str(START_POLICY)]), check=False)


def _install_postgresql() -> None:
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        # Without this, Debian would start a server of its own on this machine.
        settings = Path("/etc/postgresql-common/createcluster.conf")
        if not settings.exists():
            subprocess.run(as_root(["mkdir", "-p", str(settings.parent)]), check=True)
            subprocess.run(as_root(["tee", str(settings)]), input="create_main_cluster = false\n", text=True,
                           check=True, stdout=subprocess.DEVNULL)  # fmt: skip
        apt_install(["postgresql"])


def install_browser() -> None:
    """Have a Chromium, in which the dashboard is tested. Raises LabError where it cannot be had."""
    if any(shutil.which(name) for name in BROWSERS):
        return
    if _is_in_apt("chromium"):
        apt_install(["chromium"])
    elif shutil.which("snap"):
        run("install Chromium", as_root(["snap", "install", "chromium"]), "install a Chromium by hand")
    else:
        raise LabError("Chromium, which the dashboard is tested in, is neither in apt nor in snap: install one")


def install_firewall_program() -> None:
    """Have one of the programs by which LXD and Incus let their nodes' traffic through; they bring none themselves.

    They look for it when they start.
    """
    programs = ("nft", "iptables")
    if any(shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin") for program in programs):
        return
    apt_install(["nftables"])
    if client() and _answers():
        if not Path("/run/systemd/system").is_dir():
            raise LabError(f"{client()} runs and has not seen the new program nft: restart its daemon, then try again")
        run(
            f"restart {daemon_name()}",
            as_root(["systemctl", "restart", daemon_name()]),
            f"see `journalctl -u {daemon_name()}`",
        )


def client() -> str:
    """Return the container manager's client: lxc where there is one, else incus, else nothing."""
    return next((name for name in ("lxc", "incus") if shutil.which(name)), "")


def daemon_name() -> str:
    """Return the name of the container manager's unit."""
    return "incus" if client() == "incus" else "lxd"


def install_container_manager() -> None:
    """Have LXD (or Incus) installed and answering."""
    if not client():
        candidates = [package for package in ("lxd", "incus") if _is_in_apt(package)]
        if candidates:
            # lxcfs shows each node its own limits in /proc; dnsmasq answers on its bridge.
            apt_install([candidates[0], "lxcfs", "dnsmasq-base"])
        elif shutil.which("snap"):
            run("install LXD", as_root(["snap", "install", "lxd"]), "see https://canonical.com/lxd/install")
        else:
            raise LabError("neither LXD nor Incus can be installed by apt or snap here: install one of them by hand")
    if _answers():
        return
    group = "incus-admin" if client() == "incus" else "lxd"
    if os.geteuid() != 0 and not _in_group(group):
        raise LabError(
            f"you may not use {client()}: `sudo adduser {pwd.getpwuid(os.geteuid()).pw_name} {group}`, "
            "then log in again"
        )
    if Path("/run/systemd/system").is_dir():
        daemon = daemon_name()
        run(f"start {daemon}", as_root(["systemctl", "start", daemon]), f"see `journalctl -u {daemon}`")
    else:
        _start_without_systemd()
    _wait_for_answer()


def _is_in_apt(package: str) -> bool:
    shown = subprocess.run(["apt-cache", "policy", package], capture_output=True, text=True, check=False).stdout
    # Ubuntu's package of this name only installs the snap; there the snap is asked for openly.
    return "Candidate:" in shown and "Candidate: (none)" not in shown and "snap" not in shown


def _answers() -> bool:
    try:
        return subprocess.run([client(), "query", "/1.0"], capture_output=True, timeout=20, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _in_group(name: str) -> bool:
    try:
        return grp.getgrnam(name).gr_gid in os.getgroups()
    except KeyError:
        return False


def _start_without_systemd() -> None:
    # Machines without an init system (containers, build hosts): the daemons run in the background until a reboot.
    daemons = [["lxcfs", "/var/lib/lxcfs"], ["lxd", "--group", grp.getgrgid(os.getegid()).gr_name]]
    if client() == "incus":
        daemons[1] = ["incusd", "--group", grp.getgrgid(os.getegid()).gr_name]
    for command in daemons:
        if shutil.which(command[0]) is None:
            raise LabError(f"the program {command[0]} is missing: apt-get install {command[0]}")
        if command[0] == "lxcfs":
            # By its mount, not by its process: one that was killed can stay in the process table.
            _free_dead_mount(Path(command[1]))
            if os.path.ismount(command[1]):
                continue
        with Path("/var/log", f"{command[0]}-lab.log").open("ab") as log:
            subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)


def _free_dead_mount(path: Path) -> None:
    # A lxcfs that was killed leaves its mount behind, and on a dead mount no new one starts.
    try:
        path.mkdir(parents=True, exist_ok=True)
        next(path.iterdir(), None)
    except OSError:
        subprocess.run(["umount", "-l", str(path)], capture_output=True, check=False)


def _wait_for_answer(timeout_s: float = 60) -> None:
    with progress(f"wait for {client()}"):
        deadline = time.monotonic() + timeout_s
        while not _answers():
            if time.monotonic() > deadline:
                raise LabError(f"{client()} does not answer after {timeout_s:.0f} s: try `{client()} list`")
            time.sleep(0.5)


def start_stopped_nodes(context: Context) -> None:
    """Start those of the lab's nodes that somebody has stopped: Terraform only knows that they are there."""
    shown = subprocess.run(
        [client(), "list", f"user.csl.owner={context.lab_dir}", "status=stopped", "--format=csv", "--columns=n"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    for name in shown.stdout.split():
        run(f"start the stopped node {name}", [client(), "start", name], f"see `{client()} info {name} --show-log`")


def raise_inotify_limit() -> None:
    """Give the nodes' systemd instances, which share one user on the host, enough inotify instances."""
    setting = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(setting.read_text()) >= INOTIFY_INSTANCES:
        return
    run(
        "raise fs.inotify.max_user_instances",
        as_root(["sysctl", "-q", "-w", f"fs.inotify.max_user_instances={INOTIFY_INSTANCES}"]),
        "set it in /etc/sysctl.d",
    )


def terraform_version(text: str) -> tuple[int, int]:
    """Read major and minor version from `terraform version`."""
    found = re.search(r"v(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def install_terraform() -> None:
    """Install Terraform from HashiCorp's package repository, unless a fitting one is there."""
    if shutil.which("terraform"):
        shown = subprocess.run(["terraform", "version"], capture_output=True, text=True, check=False).stdout
        if terraform_version(shown) >= MIN_TERRAFORM:
            return
        raise LabError(f"terraform is too old ({shown.splitlines()[0]}): the lab needs 1.9 or newer")
    codename = subprocess.run(["sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME"], capture_output=True, text=True,
                              check=True).stdout.strip()  # fmt: skip
    remedy = "install Terraform 1.9 or newer by hand: https://developer.hashicorp.com/terraform/install"
    keyring = "/usr/share/keyrings/hashicorp-archive-keyring.asc"
    for package in ("curl", "ca-certificates"):
        if subprocess.run(["dpkg", "-s", package], capture_output=True, check=False).returncode != 0:
            apt_install([package])
    run(
        "trust HashiCorp's package repository",
        as_root(["curl", "-fsSL", "--max-time", "30", "-o", keyring, "https://apt.releases.hashicorp.com/gpg"]),
        remedy,
    )
    source = f"deb [signed-by={keyring}] https://apt.releases.hashicorp.com {codename} main\n"
    source_list = "/etc/apt/sources.list.d/hashicorp.list"
    subprocess.run(as_root(["tee", source_list]), input=source, text=True, check=True, stdout=subprocess.DEVNULL)
    try:
        apt_install(["terraform"])
    except LabError as error:
        # Left there, it would fail every later `apt-get update` of this machine.
        subprocess.run(as_root(["rm", "-f", source_list]), check=False)
        raise LabError(f"{error}\n  {remedy}") from error


def make_virtual_environment() -> None:
    """Have .venv with exactly the locked packages."""
    venv = REPOSITORY / ".venv"
    stamp = venv / ".lock-sha256"
    wanted = hashlib.sha256(LOCK_FILE.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    remedy = "check the network (pip's own settings name mirrors), and Python: the lab needs 3.11 or newer"
    # Its pip is made last: without one, an earlier run was interrupted.
    if not (venv / "bin" / "pip").exists():
        run("make the Python environment .venv", ["python3", "-m", "venv", "--clear", str(venv)], remedy)
    run(
        "install the locked Python packages",
        [str(venv / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes",
         "-r", str(LOCK_FILE)],
        remedy,
    )  # fmt: skip
    stamp.write_text(wanted)


def make_ssh_key(context: Context) -> None:
    """Have the key by which the controller logs in to nodes that are born with its public half."""
    key = context.lab_dir / "id_ed25519"
    if key.is_file() and key.with_suffix(".pub").is_file():
        return
    context.lab_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    key.unlink(missing_ok=True)
    run(
        "make the lab's SSH key",
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab-{context.lab}", "-f", str(key)],
        "install openssh-client",
    )
