"""The audit tells equal from unequal."""

from __future__ import annotations

from testinfra.host import Host

TOPIC = "--bootstrap-server lab-1:9092 --topic crypto_prices"


def test_a_message_that_no_engine_stored_is_found(host: Host) -> None:
    with host.sudo():
        before = host.run("lab-audit --help")
        assert before.rc == 0
        host.run_expect([0], f"echo no-json | kafka-console-producer {TOPIC}")
        done = host.run("lab-audit")
    assert done.rc == 1, done.stdout + done.stderr
    assert "1 malformed" in done.stdout
