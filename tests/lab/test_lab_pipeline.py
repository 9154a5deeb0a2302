"""Prices from the source to both tables: layout, counts, candles, rejects, and the checks of the original README."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from live_lab import Lab

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "events.json"
BOOTSTRAP = "--bootstrap-server localhost:9092"


def test_topic_has_the_contracts_layout(lab: Lab) -> None:
    text = lab.one("kafka").check_output(f"kafka-topics {BOOTSTRAP} --describe --topic crypto_prices")
    assert f"PartitionCount: {lab.contract['contract_partitions']}" in text
    assert f"ReplicationFactor: {min(3, len(lab.group('kafka')))}" in text
    assert f"max.message.bytes={lab.contract['contract_topic_max_message_bytes']}" in text


def test_topics_are_listed(lab: Lab) -> None:
    assert "crypto_prices" in lab.one("kafka").check_output(f"kafka-topics {BOOTSTRAP} --list").splitlines()


def test_consumer_shows_events(lab: Lab) -> None:
    done = lab.one("kafka").run(
        f"kafka-console-consumer {BOOTSTRAP} --topic crypto_prices --from-beginning --max-messages 5"
        f" --timeout-ms {30_000 * lab.patience}"
    )
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(events) == 5, done.stderr
    for event in events:
        assert event["symbol"] in lab.contract["contract_symbols"]
        assert event["user"] in {"coinbase", "replay"}
        assert {"price", "timestamp", "event_id", "produced_at"} <= event.keys()


@pytest.mark.parametrize(
    "tool", ["kafka-consumer-groups", "kafka-configs", "kafka-metadata-quorum", "kafka-console-producer"]
)
def test_tools_are_on_the_path(lab: Lab, tool: str) -> None:
    assert lab.one("kafka").run(f"command -v {tool}").rc == 0


def test_consumer_groups_can_be_listed(lab: Lab) -> None:
    assert lab.one("kafka").run(f"kafka-consumer-groups {BOOTSTRAP} --list").rc == 0


def test_producer_logs_five_of_five(lab: Lab) -> None:
    node = lab.group("producer")[0]
    if 'kind = "coinbase_rest"' not in lab.host(node).check_output("sudo cat /etc/producer/config.toml"):
        pytest.skip("this lab's source is not coinbase_rest")
    assert "✅ Successfully sent 5/5 cryptocurrency pairs to Kafka" in lab.journal(node, "producer")


def test_spark_logs_its_batches(lab: Lab) -> None:
    text = lab.journal(lab.group("submitter")[0], "spark-job", 2000)
    assert re.search(r"Batch: \d+\n\+-+\+-+\+\n\|symbol *\|price *\|\n", text)


def test_flink_logs_each_event(lab: Lab) -> None:
    def logged() -> bool:
        texts = [lab.journal(node, "flink-taskmanager", 2000) for node in lab.group("flink_taskmanager")]
        return any(re.search(r"^\[FLINK\] BTC-USD: \$\d+(\.\d+)?$", text, re.MULTILINE) for text in texts)

    lab.wait_for(logged, "[FLINK] lines in the task managers' journals")


def test_counts_of_both_engines(lab: Lab) -> None:
    # The original README's query, to the letter.
    text = lab.psql(
        "SELECT 'Spark' as engine, COUNT(*) FROM crypto_prices_realtime UNION ALL SELECT 'Flink' as engine, COUNT(*) FROM crypto_prices_flink;"  # noqa: E501 - to the letter
    )
    counts = dict(re.findall(r"(Spark|Flink) +\| +(\d+)", text))
    assert int(counts["Spark"]) > 0
    assert int(counts["Flink"]) > 0


@pytest.mark.parametrize("table", ["crypto_prices_realtime", "crypto_prices_flink"])
def test_newest_rows(lab: Lab, table: str) -> None:
    text = lab.psql(f'SELECT symbol, price, "user", timestamp FROM {table} ORDER BY timestamp DESC LIMIT 10;')
    assert re.match(r" +symbol +\| +price +\| +user +\| +timestamp", text)
    assert "(10 rows)" in text


def test_statistics_by_symbol(lab: Lab) -> None:
    text = lab.psql(
        "SELECT 'Spark' as engine, symbol, COUNT(*) as record_count, AVG(price) as avg_price FROM crypto_prices_realtime GROUP BY symbol UNION ALL SELECT 'Flink' as engine, symbol, COUNT(*) as record_count, AVG(price) as avg_price FROM crypto_prices_flink GROUP BY symbol ORDER BY engine, symbol;"  # noqa: E501 - to the letter
    )
    assert "(10 rows)" in text, text


def test_tables_are_listed(lab: Lab) -> None:
    text = lab.psql("\\dt")
    assert {"crypto_prices_realtime", "crypto_prices_flink", "rejected_messages"} <= set(re.findall(r"\w+", text))


def test_version_of_the_database(lab: Lab) -> None:
    assert "PostgreSQL 15" in lab.one("postgres").check_output('psql -U postgres -c "SELECT version();"')


@pytest.mark.parametrize("table", ["crypto_prices_realtime", "crypto_prices_flink"])
def test_rows_keep_coming(lab: Lab, table: str) -> None:
    before = int(lab.sql(f"SELECT count(*) FROM {table}")[0][0])
    lab.wait_for(lambda: int(lab.sql(f"SELECT count(*) FROM {table}")[0][0]) > before, f"more rows in {table}")


def test_all_events_are_accounted_for(lab: Lab) -> None:
    report = lab.assert_all_accounted_for()
    assert report["topic"]["events"] > 0
    assert report["topic"]["duplicates"] == 0


def test_latency_is_known_for_both_engines(lab: Lab) -> None:
    rows = lab.sql("SELECT engine, events, negative, p50_ms FROM engine_latency ORDER BY engine")
    assert [row[0] for row in rows] == ["flink", "spark"]
    for _, events, negative, p50_ms in rows:
        assert int(events) > 0
        assert int(negative) == 0
        assert float(p50_ms) > 0


def test_candles_of_both_engines_are_equal(lab: Lab) -> None:
    # A candle is written when the watermark, two minutes behind, has passed its end.
    def common() -> int:
        return int(
            lab.sql("SELECT count(*) FROM candles_1m_spark JOIN candles_1m_flink USING (symbol, window_start)")[0][0]
        )

    lab.wait_for(common, "a candle from both engines", 360)
    different = "SELECT * FROM candle_differences WHERE spark_count IS NOT NULL AND flink_count IS NOT NULL"
    assert lab.sql(different) == []


def test_malformed_messages_are_recorded_by_both_engines(lab: Lab) -> None:
    """Every malformed message of the shared fixture, and a full MiB, between the lab's own events."""
    fixture = json.loads(FIXTURE.read_text())
    reasons = {(row["kafka_partition"], row["kafka_offset"]): row["reason"] for row in fixture["rejected"]}
    bad = [record for record in fixture["records"] if (record["partition"], record["offset"]) in reasons]
    for record in bad:
        # With their numbers they would be trades of the lab's own source, with holes between, to the DAG data_quality.
        value = base64.b64decode(record["value_base64"] or "").replace(b'"trade_id"', b'"trade_no"')
        record["value_base64"] = record["value_base64"] and base64.b64encode(value).decode()
    messages = [
        {"partition": record["partition"], "value": record["value_base64"], "repeat": record.get("value_repeat"),
         "reason": reasons[record["partition"], record["offset"]]}
        for record in bad
    ]  # fmt: skip
    mebibyte = {"prefix": "", "fill": "x", "count": 1 << 20, "suffix": ""}
    messages.append({"partition": 1, "value": None, "repeat": mebibyte, "reason": "too_large"})
    script = (Path(__file__).parent / "send_messages.py").read_text()
    servers = ",".join(f"{node}:9092" for node in lab.group("kafka"))
    payload = base64.b64encode(json.dumps({"servers": servers, "messages": messages}).encode()).decode()
    host = lab.one("producer")
    host.check_output(f"cat > /tmp/send_messages.py <<'SCRIPT'\n{script}\nSCRIPT")
    host.check_output(f"base64 -d > /tmp/messages.json <<'PAYLOAD'\n{payload}\nPAYLOAD")
    sent = json.loads(
        host.check_output(
            "PYTHONPATH=/opt/producer/current/python python3 -W ignore"
            " /tmp/send_messages.py crypto_prices /tmp/messages.json"
        )
    )
    assert len(sent) == len(messages)
    wanted = {(entry["partition"], entry["offset"]): entry["reason"] for entry in sent}
    for engine in ("spark", "flink"):

        def recorded(engine: str = engine) -> bool:
            rows = lab.sql(
                f"SELECT kafka_partition, kafka_offset, reason FROM rejected_messages WHERE engine = '{engine}'"
            )
            found = {(int(partition), int(offset)): reason for partition, offset, reason in rows}
            return all(found.get(position) == reason for position, reason in wanted.items())

        lab.wait_for(recorded, f"{len(wanted)} rejects by {engine}", 120)
    size = lab.sql(
        "SELECT count(DISTINCT engine), min(length(payload)) FROM rejected_messages WHERE length(payload) = 1048576"
    )
    assert size == [["2", "1048576"]]
    nulls = lab.sql(
        "SELECT count(DISTINCT engine) FROM rejected_messages WHERE reason = 'null_value' AND payload IS NULL"
    )
    assert nulls == [["2"]]
    # Their neighbours got through, none twice.
    lab.assert_all_accounted_for()
