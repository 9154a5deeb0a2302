"""Every changed setting is the one that the pages run with."""

from __future__ import annotations

import json

from testinfra.host import Host

URL = "http://127.0.0.1:18000"


def test_pages_of_the_other_broker(host: Host) -> None:
    found = json.loads(host.check_output(f"curl -sf {URL}/api/cluster"))["cluster"]
    assert found["brokers"][0]["address"].endswith(":19092")
    assert [len(topic["partitions"]) for topic in found["topics"] if topic["name"] == "trades"] == [2]
    assert "other" in host.check_output(f"curl -sf {URL}/")


def test_messages_of_a_page(host: Host) -> None:
    # One key, and so one partition, which has an order.
    host.check_output(
        "printf 'k|1\\nk|2\\nk|3\\nk|4\\n' | kafka-console-producer --bootstrap-server kafka-1:19092 --topic trades"
        " --reader-property parse.key=true --reader-property key.separator='|'"
    )
    host.check_output("sleep 3")
    found = json.loads(host.check_output(f"curl -sf {URL}/api/topics/trades"))
    assert [message["value"]["text"] for message in found["messages"]] == ["4", "3"]
    refused = host.check_output(f"curl -s '{URL}/api/topics/trades?count=4'")
    assert "one page shows 1 to 3 messages" in refused


def test_listens_on_loopback_only(host: Host) -> None:
    assert host.socket("tcp://127.0.0.1:18000").is_listening
    assert not host.socket("tcp://0.0.0.0:18000").is_listening
    assert not host.socket("tcp://0.0.0.0:8000").is_listening


def test_user_and_places(host: Host) -> None:
    assert host.process.get(user="looker", comm="python3")
    with host.sudo():
        config = host.file("/etc/looker/config.toml")
        assert (config.user, config.group, config.mode) == ("root", "looker", 0o640)
    for path in ("/etc/kafka-ui", "/opt/kafka-ui"):
        assert not host.file(path).exists, path


def test_patience_of_systemd(host: Host) -> None:
    shown = host.check_output("systemctl show kafka-ui -p TimeoutStartUSec -p WatchdogUSec --value")
    assert shown.split("\n") == ["4min", "1min 30s"]
