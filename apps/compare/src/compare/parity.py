"""Equal terms: what must be the same for both engines, told from what runs, not from what was configured."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

# Memory is asked of each engine in its own words (heap and overhead here, a process there): so much may differ.
MEMORY_TOLERANCE = 0.10
# Settings of PostgreSQL without which a row may be reported as stored and be gone after a crash.
DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}


class EngineFacts(BaseModel):
    """One engine as it runs. `settings` holds everything else that it says of itself, for the report's appendix."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: str
    version: str
    topic: str
    partitions: int
    starting_offsets: str
    parallelism: int
    worker_cpus: int
    worker_memory_mib: int
    task_memory_mib: int
    guarantee: str
    checkpoint_interval_ms: int
    # "" where the engine has not written yet: then it is asked again later.
    sink_statement: str
    # Of the database sessions: what a role or a session sets for itself counts, not only the server's file.
    durability: dict[str, str]
    settings: dict[str, Any] = Field(default_factory=dict)


def normal_statement(sql: str) -> str:
    """Return in a few words what a sink's statement does, alike for the engines' own ways of saying it.

    Only the form counts: insert, and what happens where the key is there already.
    """
    text = re.sub(r"\s+", " ", sql).strip().lower()
    if not text.startswith("insert into"):
        return text[:40]
    action = re.search(r"on conflict(?: \([^)]*\))? do (nothing|update)", text)
    return f"insert, on conflict do {action[1]}" if action else "insert, conflicts fail"


def violations(spark: EngineFacts, flink: EngineFacts) -> list[str]:
    """Return everything in which the engines do not run on equal terms; empty where they do."""
    found = []
    for name in (
        "topic", "partitions", "starting_offsets", "parallelism", "worker_cpus", "guarantee", "checkpoint_interval_ms",
    ):  # fmt: skip
        one, other = getattr(spark, name), getattr(flink, name)
        if one != other:
            found.append(f"{name}: spark {one}, flink {other}")
    one, other = spark.task_memory_mib, flink.task_memory_mib
    if abs(one - other) > MEMORY_TOLERANCE * min(one, other):
        found.append(f"task_memory_mib: spark {one}, flink {other} (more than {MEMORY_TOLERANCE:.0%} apart)")
    for facts in (spark, flink):
        if facts.worker_memory_mib < facts.task_memory_mib:
            found.append(
                f"worker_memory_mib: {facts.engine}'s nodes have {facts.worker_memory_mib} MiB for tasks of "
                f"{facts.task_memory_mib} MiB"
            )
        for name, wanted in DURABLE.items():
            if facts.durability.get(name) != wanted:
                found.append(f"{name}: {facts.engine} writes with {facts.durability.get(name)}, not {wanted}")
    if spark.sink_statement and flink.sink_statement:
        forms = [normal_statement(facts.sink_statement) for facts in (spark, flink)]
        if forms[0] != forms[1]:
            found.append(f"sink_statement: spark '{forms[0]}', flink '{forms[1]}'")
    return found


def changed(before: EngineFacts, now: EngineFacts, wanted: set[str]) -> list[str]:
    """Return what an engine has become since the session began, apart from what this run sets (`wanted`)."""
    names = (
        "version", "topic", "starting_offsets", "worker_cpus", "worker_memory_mib", "task_memory_mib", "guarantee",
        "checkpoint_interval_ms", "parallelism", "partitions", "durability",
    )  # fmt: skip
    return [
        f"{now.engine}: {name} was {getattr(before, name)} and is {getattr(now, name)}"
        for name in names
        if name not in wanted and getattr(before, name) != getattr(now, name)
    ]
