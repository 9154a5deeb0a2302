"""The Java functions of `jvm/`, made known to a table environment."""

# ruff: noqa: ANN401, PLC0415, SLF001 - as in crypto_flink.job.

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crypto_flink.transform import PARSE_FUNCTION

if TYPE_CHECKING:
    from pyflink.table import TableEnvironment


def java_array(java_class: Any, items: Sequence[Any]) -> Any:
    """Return a Java array of `java_class` with these items."""
    from pyflink.java_gateway import get_gateway

    array = get_gateway().new_array(java_class, len(items))
    for index, item in enumerate(items):
        array[index] = item
    return array


def event_rules(max_event_bytes: int, symbols: Sequence[str]) -> Any:
    """Return the Java object of what counts as an event; the functions' jar must be on the gateway's class path."""
    from pyflink.java_gateway import get_gateway

    jvm = get_gateway().jvm
    return jvm.cryptostream.flink.EventRules.of(max_event_bytes, java_array(jvm.String, symbols))


def register_functions(table_env: TableEnvironment, rules: Any) -> None:
    """Register what `crypto_flink.transform` calls; `rules` come from `event_rules`."""
    from pyflink.java_gateway import get_gateway

    function = get_gateway().jvm.cryptostream.flink.ParseEvent(rules)
    table_env._j_tenv.createTemporarySystemFunction(PARSE_FUNCTION, function)
