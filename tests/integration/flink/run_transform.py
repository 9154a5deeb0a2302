"""Run the job's SQL in batch over the shared fixture and print what it makes of it as one line of JSON.

A process of its own, because it needs PyFlink, and the tests' interpreter need not have it.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

from crypto_flink import transform
from crypto_flink.functions import event_rules, register_functions
from pyflink.table import EnvironmentSettings, TableEnvironment


def record_value(record: dict) -> bytes | None:
    if repeat := record.get("value_repeat"):
        return (repeat["prefix"] + repeat["fill"] * repeat["count"] + repeat["suffix"]).encode()
    return None if record["value_base64"] is None else base64.b64decode(record["value_base64"])


def main() -> None:
    fixture, directory = Path(sys.argv[1]), Path(sys.argv[2])
    records = json.loads(fixture.read_text())["records"]
    # The json format reads BYTES as base64.
    (directory / "records.json").write_text(
        "".join(
            json.dumps({
                "value": None if (value := record_value(record)) is None else base64.b64encode(value).decode(),
                "kafka_partition": record["partition"],
                "kafka_offset": record["offset"],
                "kafka_timestamp": record["kafka_timestamp"],
            }) + "\n"
            for record in records
        ),
    )  # fmt: skip
    table_env = TableEnvironment.create(EnvironmentSettings.in_batch_mode())
    table_env.get_config().set("parallelism.default", "1")
    # Not UTC: no result may depend on the session's time zone.
    table_env.get_config().set("table.local-time-zone", "Asia/Kolkata")
    symbols = ["BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD"]
    register_functions(table_env, event_rules(65536, symbols))
    table_env.execute_sql(f"""
        CREATE TEMPORARY TABLE records (
            `value` BYTES, kafka_partition INT, kafka_offset BIGINT, kafka_timestamp BIGINT
        ) WITH ('connector' = 'filesystem', 'path' = '{directory / "records.json"}', 'format' = 'json')""")
    table_env.create_temporary_view("parsed", table_env.sql_query(transform.parsed("records")))
    queries = {
        "prices": transform.prices("parsed"),
        "rejected": transform.rejected("parsed"),
        "candles": transform.candles("parsed", 60),
        "log_lines": transform.log_lines("parsed"),
    }
    results = {}
    for name, query in queries.items():
        result = table_env.execute_sql(query)
        columns = result.get_table_schema().get_field_names()
        with result.collect() as rows:
            results[name] = [
                {
                    column: base64.b64encode(field).decode() if isinstance(field, bytes | bytearray) else field
                    for column, field in zip(columns, row, strict=True)
                }
                for row in rows
            ]
    print(json.dumps(results))


if __name__ == "__main__":
    main()
