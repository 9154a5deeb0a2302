"""What a load has cost, from the counters of the units."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from compare.lab import Usage


def cost(samples: Iterable[Usage], components: Mapping[str, str], first_us: int, end_us: int) -> dict[str, Any]:
    """Return for each component CPU seconds, bytes and peak memory between two times (epoch us), and their seconds.

    Counters are taken at the last sample before and the first after: a second more on each side at most. A counter that
    begins anew (a unit that was started again) counts from zero. A component without two samples is left out. Peaks of
    units on one node or several are added: they need not have been at the same time.
    """
    units: dict[tuple[str, str], list[Usage]] = {}
    for sample in samples:
        if sample.unit in components:
            units.setdefault((sample.node, sample.unit), []).append(sample)
    found: dict[str, dict[str, Any]] = {}
    for (_, unit), taken in units.items():
        taken.sort(key=lambda sample: sample.at_us)
        before = [sample for sample in taken if sample.at_us <= first_us][-1:] or taken[:1]
        after = [sample for sample in taken if sample.at_us >= end_us][:1] or taken[-1:]
        part = [sample for sample in taken if before[0].at_us <= sample.at_us <= after[0].at_us]
        if len(part) < 2:
            continue
        total = found.setdefault(
            components[unit],
            {"cpu_s": 0.0, "read_bytes": None, "write_bytes": None, "peak_bytes": 0, "sources": set(), "seconds": 0.0},
        )
        total["cpu_s"] += _growth([sample.cpu_us for sample in part]) / 1e6
        for name in ("read_bytes", "write_bytes"):
            values = [value for sample in part if (value := getattr(sample, name)) is not None]
            if len(values) > 1:
                total[name] = (total[name] or 0) + _growth(values)
        total["peak_bytes"] += max(max(sample.peak_bytes, sample.memory_bytes) for sample in part)
        total["seconds"] = max(total["seconds"], (part[-1].at_us - part[0].at_us) / 1e6)
        total["sources"].add(part[0].source)
    return {name: {**total, "sources": sorted(total["sources"])} for name, total in found.items()}


def _growth(values: list[int]) -> int:
    return sum(after - before if after >= before else after for before, after in itertools.pairwise(values))
