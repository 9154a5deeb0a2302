"""Nodes find each other by name, and have the shared state directory to themselves."""

from __future__ import annotations

import pytest
from testinfra.host import Host


@pytest.mark.parametrize("name", ["node-1", "node-2"])
def test_nodes_find_each_other(host: Host, name: str) -> None:
    assert host.addr(name).is_resolvable
    assert host.addr(name).is_reachable


def test_hosts_file_is_readable_and_keeps_localhost(host: Host) -> None:
    hosts = host.file("/etc/hosts")
    assert hosts.mode == 0o644
    assert "127.0.0.1" in hosts.content_string


def test_only_root_makes_folders_in_the_state_directory(host: Host) -> None:
    state = host.file("/srv/lab-state")
    assert state.is_directory
    assert (state.user, state.mode) == ("root", 0o755)
