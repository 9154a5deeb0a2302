"""The DAG pipeline_restart: asks nodes to restart a unit, which is all that the key of Airflow lets it do there."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

from crypto_airflow.quality import AHEAD_MS, newest_times
from crypto_airflow.settings import Restart, RestartTarget, Settings

Connection = Any


class RestartError(Exception):
    """A unit that did not come back, with what the node said."""


def command(target: RestartTarget, restart: Restart) -> list[str]:
    """Return the ssh command; the node's forced command takes no other words than these."""
    return [
        "ssh", "-F", "none", "-T", "-i", str(restart.key_file), "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes",
        "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15", "-o", "StrictHostKeyChecking=yes",
        "-o", f"UserKnownHostsFile={restart.known_hosts_file}", "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", "UpdateHostKeys=no", f"{restart.user}@{target.node}", f"restart {target.unit}",
    ]  # fmt: skip


def restart_service(
    service: str,
    restart: Restart,
    *,
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run,
    say: Callable[[str], None] = print,
) -> None:
    """Restart the units of a service, one after the other; RestartError names the one that does not come back."""
    if service not in restart.services:
        raise RestartError(
            f"there is no service '{service}' here: {', '.join(restart.services) or 'none can be restarted'}"
        )
    for target in restart.services[service]:
        began_s = time.monotonic()
        try:
            done = run(
                command(target, restart), capture_output=True, text=True, check=False, timeout=restart.timeout_s,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise RestartError(f"{target.unit} on {target.node}: no answer within {restart.timeout_s} s") from None
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip()
            raise RestartError(f"{target.unit} on {target.node}: exit code {done.returncode}: {said}")
        say(f"{target.unit} on {target.node} restarted in {time.monotonic() - began_s:.0f} s")


def lagging(newest: Mapping[str, int | None], since_ms: int) -> list[str]:
    """Return the engines that have no row of an event later than a time."""
    return [engine for engine, at in newest.items() if at is None or at <= since_ms]


def wait_for_rows(
    connection: Connection,
    settings: Settings,
    since_ms: int,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, int]:
    """Wait until both engines have rows of events later than `since_ms`; returns each one's newest event time in ms.

    Raises:
        RestartError: it took longer than `rows_timeout_s`.
    """
    deadline_s = clock() + settings.restart.rows_timeout_s
    connection.autocommit = True
    while True:
        newest: dict[str, int | None] = {}
        with connection.cursor() as cursor:
            for engine, tables in settings.engines.items():
                found = newest_times(cursor, tables.prices, settings.symbols, round(clock() * 1000) + AHEAD_MS)
                newest[engine] = max((at for at in found.values() if at is not None), default=None)
        late = lagging(newest, since_ms)
        if not late:
            return {engine: at for engine, at in newest.items() if at is not None}
        if clock() > deadline_s:
            raise RestartError(
                f"no row of an event after the restart within {settings.restart.rows_timeout_s} s by {', '.join(late)}"
            )
        sleep(3)
