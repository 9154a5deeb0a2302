"""Every changed setting is the one that the dashboard runs with."""

from __future__ import annotations

import json

from testinfra.host import Host


def test_state(host: Host) -> None:
    found = json.loads(host.check_output("curl -sf http://127.0.0.1:18050/api/state"))
    assert found["lab"] == "other"
    assert [entry["symbol"] for entry in found["symbols"]] == ["SOL-USD", "BTC-USD"]
    assert found["headline"]["text"] == "The lab is empty: no rows yet."
    # Away, which is said; everything else works.
    assert found["sources"]["prometheus"]["configured"]
    assert "does not answer" in found["sources"]["prometheus"]["text"]


def test_listens_on_loopback_only(host: Host) -> None:
    assert host.socket("tcp://127.0.0.1:18050").is_listening
    assert not host.socket("tcp://0.0.0.0:18050").is_listening
    assert not host.socket("tcp://0.0.0.0:8050").is_listening


def test_user_and_places(host: Host) -> None:
    assert host.process.get(user="screen", comm="python3")
    with host.sudo():
        secret = host.file("/etc/screen/postgres-password")
        assert (secret.user, secret.group, secret.mode) == ("root", "screen", 0o640)
    for path in ("/etc/dashboard", "/opt/dashboard"):
        assert not host.file(path).exists, path


def test_patience_of_systemd(host: Host) -> None:
    shown = host.check_output("systemctl show dashboard -p TimeoutStartUSec -p WatchdogUSec --value")
    assert shown.split("\n") == ["4min", "1min 30s"]
