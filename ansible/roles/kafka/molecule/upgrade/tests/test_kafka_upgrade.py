"""The broker that runs is of the new release, and nothing that the old one had taken is lost."""

from __future__ import annotations

import re
from pathlib import Path

from testinfra.host import Host

SCENARIO = Path(__file__).parents[1]
ARTIFACTS = SCENARIO.parents[2] / "artifacts"
VERSION = re.compile(r"kafka_2\.13</artifactId>\s*<version>([^<]+)")
SERVER = "--bootstrap-server kafka-1:9092"


def version(pom: Path) -> str:
    """Return the Kafka version that a POM pins."""
    found = VERSION.search(pom.read_text())
    assert found
    return found[1]


def test_the_new_release_is_another_one() -> None:
    assert version(SCENARIO / "files" / "pom.xml") != version(ARTIFACTS / "files" / "kafka" / "pom.xml")


def test_the_running_broker_is_of_the_new_release(host: Host) -> None:
    """By the jars that the process has open, whatever the link and the unit say."""
    with host.sudo():
        files = host.check_output("ls -l /proc/$(systemctl show kafka -p MainPID --value)/fd")
    assert set(re.findall(r"/kafka_2\.13-([\d.]+)\.jar", files)) == {version(ARTIFACTS / "files" / "kafka" / "pom.xml")}


def test_both_releases_were_on_the_node(host: Host) -> None:
    releases = {name.partition("-")[0] for name in host.check_output("ls /opt/kafka").split()}
    assert releases == {
        "current", version(SCENARIO / "files" / "pom.xml"), version(ARTIFACTS / "files" / "kafka" / "pom.xml"),
    }  # fmt: skip


def test_no_message_is_lost_and_new_ones_follow(host: Host) -> None:
    host.run_expect([0], f"echo message-1000 | kafka-console-producer {SERVER} --topic kept")
    got = host.run(f"kafka-console-consumer {SERVER} --topic kept --from-beginning --timeout-ms 10000").stdout.split()
    assert sorted(set(got)) == sorted(f"message-{number}" for number in range(1001))
    assert len(got) == len(set(got))
