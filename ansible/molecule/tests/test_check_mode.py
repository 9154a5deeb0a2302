"""A look at what would change finds nothing on a converged node, and no run shows a secret."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from testinfra.host import Host

SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
INVENTORY = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
LOG = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "ansible.log"
SHARED = Path(__file__).parents[1]


def test_check_mode_finds_nothing_to_change() -> None:
    playbook = next(path for path in (SCENARIO / "converge.yml", SHARED / "converge.yml") if path.is_file())
    done = subprocess.run(
        ["ansible-playbook", "--inventory", str(INVENTORY), "--check", "--diff", str(playbook)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "ANSIBLE_LOG_PATH": str(LOG), "ANSIBLE_NOCOLOR": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert re.findall(r"changed=([1-9]\d*)", done.stdout) == [], done.stdout[-4000:]


def test_no_secret_is_shown(host: Host, secrets: set[str]) -> None:
    """Neither by Ansible, whose log has all differences, nor in the journal, where modules write their arguments."""
    with host.sudo():
        journal = host.check_output("journalctl --no-pager -o cat")
    log = LOG.read_text(errors="replace")
    assert "PLAY RECAP" in log
    for secret in secrets:
        assert [line for line in (log + journal).splitlines() if secret in line] == []
