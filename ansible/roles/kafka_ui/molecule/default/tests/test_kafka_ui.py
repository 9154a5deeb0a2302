"""The pages show what Kafka has, change nothing, and outlive their broker."""

from __future__ import annotations

import json
import time
from typing import Any

from testinfra.host import Host

URL = "http://kafka-1:8000"
BOOTSTRAP = "--bootstrap-server kafka-1:9092"


def get(host: Host, path: str) -> dict[str, Any]:
    return dict(json.loads(host.check_output(f"curl -sf --max-time 60 '{URL}/api{path}'")))


def send(host: Host, topic: str, *lines: str) -> None:
    """Send lines `key|value` with Kafka's own producer."""
    text = "\\n".join(lines)
    host.check_output(
        f"printf '{text}\\n' | kafka-console-producer {BOOTSTRAP} --topic {topic}"
        " --reader-property parse.key=true --reader-property key.separator='|'"
    )


def end(host: Host, topic: str) -> int:
    """Return how many messages a topic has, by Kafka's own tool."""
    lines = host.check_output(f"kafka-get-offsets {BOOTSTRAP} --topic {topic}").splitlines()
    return sum(int(line.rsplit(":", 1)[1]) for line in lines)


def test_topics_messages_groups_and_lag(host: Host) -> None:
    before = end(host, "crypto_prices")
    send(host, "crypto_prices", *(f'BTC-USD|{{"symbol": "BTC-USD", "trade_id": {number}}}' for number in range(5)))
    host.check_output(
        f"kafka-console-consumer {BOOTSTRAP} --topic crypto_prices --group molecule --from-beginning"
        " --max-messages 2 --timeout-ms 20000"
    )
    time.sleep(3)
    topics = {topic["name"]: topic for topic in get(host, "/cluster")["cluster"]["topics"]}
    assert len(topics["crypto_prices"]["partitions"]) == 3
    assert topics["crypto_prices"]["messages"] == end(host, "crypto_prices") == before + 5
    found = get(host, "/topics/crypto_prices?count=1")
    assert json.loads(found["messages"][0]["value"]["text"]) == {"symbol": "BTC-USD", "trade_id": 4}
    assert found["messages"][0]["key"]["text"] == "BTC-USD"
    group = get(host, "/groups/molecule")["group"]
    committed = sum(part["committed"] or 0 for part in group["partitions"])
    assert group["lag"] == before + 5 - committed
    assert committed > 0
    page = host.check_output(f"curl -sf {URL}/")
    assert 'data-topic="crypto_prices"' in page
    assert 'data-group="molecule"' in page


def test_messages_stay_text(host: Host) -> None:
    send(host, "kinds", "bad|<script>alert(1)</script>")
    time.sleep(3)
    page = host.check_output(f"curl -sf {URL}/topics/kinds")
    assert "&lt;script&gt;" in page
    assert "<script" not in page


def test_nothing_changes_anything(host: Host) -> None:
    before = host.check_output(f"kafka-topics {BOOTSTRAP} --describe --topic crypto_prices")
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        for path in ("/", "/topics/crypto_prices", "/api/topics/crypto_prices", "/groups/molecule"):
            code = host.check_output(f"curl -s -o /dev/null -w '%{{http_code}}' -X {method} {URL}{path}")
            assert code == "405", f"{method} {path}"
    # What is installed here, asked to: the broker would do it.
    script = (
        "import crypto_kafka_ui.guard; from kafka import KafkaAdminClient; "
        "KafkaAdminClient(bootstrap_servers='kafka-1:9092').delete_topics(['crypto_prices'])"
    )
    with host.sudo():
        refused = host.run(f'sudo -u kafka-ui env PYTHONPATH=/opt/kafka-ui/current/python python3 -c "{script}"')
    assert refused.rc != 0
    assert "DeleteTopicsRequest was not sent" in refused.stderr
    assert host.check_output(f"kafka-topics {BOOTSTRAP} --describe --topic crypto_prices") == before


def test_topic_that_is_not_there_is_not_made(host: Host) -> None:
    assert host.check_output(f"curl -s -o /dev/null -w '%{{http_code}}' {URL}/topics/unheard-of") == "404"
    assert "unheard-of" not in host.check_output(f"kafka-topics {BOOTSTRAP} --list").splitlines()


def test_looking_leaves_no_group(host: Host) -> None:
    get(host, "/topics/crypto_prices?at=oldest&count=5")
    groups = host.check_output(f"kafka-consumer-groups {BOOTSTRAP} --list").split()
    assert set(groups) <= {"molecule"}


def test_probe_says_what_it_finds(host: Host) -> None:
    with host.sudo():
        said = host.check_output("sudo -u kafka-ui crypto-kafka-ui probe --config /etc/kafka-ui/config.toml")
    assert "topic crypto_prices: 3 partitions" in said
    assert "Kafka: 1 brokers" in said


def test_costs_little_and_asks_nobody_when_nobody_looks(host: Host) -> None:
    with host.sudo():
        pid = host.check_output("systemctl show kafka-ui -p MainPID --value")
        time.sleep(3)
        before_s = float(host.check_output(f"awk '{{print $14 + $15}}' /proc/{pid}/stat"))
        time.sleep(10)
        assert float(host.check_output(f"awk '{{print $14 + $15}}' /proc/{pid}/stat")) - before_s <= 10, "1 % of a core"
        assert int(host.check_output(f"awk '/VmHWM/ {{print $2}}' /proc/{pid}/status")) < 110 * 1024


def test_broker_that_goes_and_comes_back(host: Host) -> None:
    with host.sudo():
        host.check_output("systemctl stop kafka")
    try:
        time.sleep(3)
        answer = host.run(f"curl -s --max-time 60 -w '\\n%{{http_code}}' {URL}/api/cluster").stdout
        assert answer.endswith("503")
        assert "Kafka does not answer" in answer
        assert host.check_output(f"curl -sf {URL}/healthz")
    finally:
        with host.sudo():
            host.check_output("systemctl start kafka")
    deadline = time.monotonic() + 90
    while (found := host.run(f"curl -sf --max-time 60 {URL}/api/cluster")).rc != 0:
        assert time.monotonic() < deadline, found
        time.sleep(2)
