"""The Java functions of `jvm/`, made known to a table environment."""

# ruff: noqa: ANN401, PLC0415, SLF001 - as in crypto_flink.job.

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crypto_flink.transform import EVENT_TIME_FUNCTION, PARSE_FUNCTION

if TYPE_CHECKING:
    from pyflink.table import TableEnvironment


def java_array(java_class: Any, items: Sequence[Any]) -> Any:
    """Return a Java array of `java_class` with these items."""
    from pyflink.java_gateway import get_gateway

    array = get_gateway().new_array(java_class, len(items))
    for index, item in enumerate(items):
        array[index] = item
    return array


def register_functions(table_env: TableEnvironment, max_event_bytes: int, symbols: Sequence[str]) -> None:
    """Register what `crypto_flink.transform` calls; the functions' jar must be on the gateway's class path."""
    from pyflink.java_gateway import get_gateway

    jvm = get_gateway().jvm
    package = jvm.cryptostream.flink
    rules = package.EventRules.of(max_event_bytes, java_array(jvm.String, symbols))
    environment = table_env._j_tenv
    environment.createTemporarySystemFunction(PARSE_FUNCTION, package.ParseEvent(rules))
    environment.createTemporarySystemFunction(EVENT_TIME_FUNCTION, package.EventTimeMs(rules))
