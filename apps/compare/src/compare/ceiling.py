"""`lab-ceiling`: how many rows per second PostgreSQL takes by COPY into a table like an engine's, from this node.

The connection's settings and the table's name come as JSON on standard input, for a password is among them. Rows are
made before the clock starts; each connection copies its share in one transaction of its own. Prints one JSON object
with rows and seconds. Exit code 0, or 2 when it could not be measured.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import threading
import time
from typing import TextIO

import psycopg2
from psycopg2 import sql
from pydantic import BaseModel, ConfigDict, Field

from compare.identity import event_id

SYMBOLS = ["BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD"]


class Request(BaseModel):
    """What is to be measured."""

    model_config = ConfigDict(extra="forbid")

    host: str
    port: int
    database: str
    user: str
    password: str
    table: str
    rows: int = Field(gt=0)
    connections: int = Field(ge=1, le=64)


def block(first: int, rows: int, now_us: int) -> bytes:
    """Return rows `first` .. of the table in COPY's text form, as the engines write them."""
    lines = []
    for index in range(first, first + rows):
        at_us = now_us + index * 10
        lines.append(
            f"{SYMBOLS[index % 5]}\t{1 + index % 9973}.25\tsynthetic\t{at_us // 1000}\t{event_id(0, index, at_us)}"
            f"\t{at_us}\t{index % 3}\t{index // 3}\n"
        )
    return "".join(lines).encode()


def measure(request: Request) -> dict[str, float]:
    """Copy the rows; returns rows and seconds. Raises psycopg2.Error."""
    share = -(-request.rows // request.connections)
    now_us = time.time_ns() // 1000
    columns = 'symbol, price, "user", timestamp, event_id, produced_at, kafka_partition, kafka_offset'
    statement = sql.SQL(f"COPY {{}} ({columns}) FROM STDIN").format(sql.Identifier(request.table))
    ready = threading.Barrier(request.connections + 1)
    errors: list[Exception] = []

    def copy(number: int) -> None:
        data = io.BytesIO(block(number * share, min(share, request.rows - number * share), now_us))
        try:
            connection = psycopg2.connect(
                host=request.host, port=request.port, dbname=request.database, user=request.user,
                password=request.password, connect_timeout=10, application_name="lab-ceiling",
            )  # fmt: skip
        except psycopg2.Error as error:
            errors.append(error)
            ready.abort()
            return
        try:
            ready.wait(120)
            with connection, connection.cursor() as cursor:
                cursor.copy_expert(statement, data, size=1 << 20)
        except (psycopg2.Error, threading.BrokenBarrierError) as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=copy, args=(number,)) for number in range(request.connections)]
    for thread in threads:
        thread.start()
    began_s = time.monotonic()
    try:
        ready.wait(120)
        began_s = time.monotonic()
    except threading.BrokenBarrierError as error:
        errors.append(error)
    for thread in threads:
        thread.join()
    took_s = time.monotonic() - began_s
    real = [error for error in errors if isinstance(error, psycopg2.Error)] or errors
    if real:
        raise real[0]
    return {"rows": request.rows, "seconds": took_s}


def main(arguments: list[str] | None = None, stdin: TextIO = sys.stdin) -> int:
    """Command line entry point."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(arguments)  # fmt: skip
    try:
        found = measure(Request.model_validate_json(stdin.read()))
    except (ValueError, psycopg2.Error, threading.BrokenBarrierError) as error:
        print(f"lab-ceiling: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
