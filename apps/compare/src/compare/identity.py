"""Identities of generated events: each says of which run and the how-manieth it is, so no list of them is kept.

A generated `event_id` is a UUIDv7 (RFC 9562, section 5.7), as docs/contract.md asks for: 48 bits of the intended time
in epoch milliseconds, 26 bits of the run's tag and 48 bits of the event's index, in place of the random part.
"""

from __future__ import annotations

import uuid

TAG_BITS = 26
INDEX_BITS = 48
MAX_TAG = (1 << TAG_BITS) - 1
MAX_INDEX = (1 << INDEX_BITS) - 1


def tag_text(tag: int) -> str:
    """Return the third and fourth group of the UUIDs of a run. Raises ValueError for a tag of more than 26 bits."""
    if not 0 <= tag <= MAX_TAG:
        raise ValueError(f"a run's tag has {TAG_BITS} bits: {tag}")
    return f"7{tag >> 14:03x}-{0x8000 | (tag & 0x3FFF):04x}"


def event_id(tag: int, index: int, intended_us: int) -> uuid.UUID:
    """Return the identity of event `index` of a run, intended to be sent at `intended_us` (epoch microseconds)."""
    if not 0 <= index <= MAX_INDEX:
        raise ValueError(f"an event's index has {INDEX_BITS} bits: {index}")
    intended_ms = intended_us // 1000
    return uuid.UUID(f"{intended_ms >> 16:08x}-{intended_ms & 0xFFFF:04x}-{tag_text(tag)}-{index:012x}")


def decode(text: str) -> tuple[int, int]:
    """Return (tag, index) of a generated event's id. Raises ValueError where it is no UUIDv7."""
    number = uuid.UUID(text).int
    if (number >> 76) & 0xF != 7 or (number >> 62) & 0x3 != 2:
        raise ValueError(f"{text} is no UUIDv7")
    return ((number >> 64) & 0xFFF) << 14 | ((number >> 48) & 0x3FFF), number & MAX_INDEX


def ranges(indices: list[int]) -> list[tuple[int, int]]:
    """Return ascending indices as half-open ranges (first, end): what a file of many neighbours is written as."""
    found: list[tuple[int, int]] = []
    for index in indices:
        if found and found[-1][1] == index:
            found[-1] = (found[-1][0], index + 1)
        else:
            found.append((index, index + 1))
    return found
