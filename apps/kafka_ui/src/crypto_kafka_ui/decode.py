"""Bytes of a message as a person reads them. Pure."""

from __future__ import annotations

import codecs
import json
from typing import Any

from crypto_kafka_ui.readings import Text

# Of JSON on lines of its own, at most.
LAID_OUT_CHARACTERS = 1_000_000


def decode(data: bytes | None, limit: int) -> Text:
    """Return bytes as text, or where they are none in hex; of more than `limit` bytes the beginning."""
    if data is None:
        return Text("null", "null", 0)
    size = len(data)
    try:
        # Not final: the cut may go through a character.
        text = codecs.getincrementaldecoder("utf-8")().decode(data[:limit], final=size <= limit)
    except UnicodeDecodeError:
        text = "\0"
    if not _is_readable(text):
        # Three characters a byte.
        shown = data[: max(1, limit // 3)]
        return Text(shown.hex(" "), "bytes", size, cut=len(shown) < size)
    form = "json" if size <= limit and laid_out(text) else "text"
    return Text(text, form, size, cut=size > limit)


def laid_out(text: str) -> str:
    """Return a JSON object or list on lines of its own; nothing where the text is none, or would become far too long.

    For reading: what was sent is the text itself, whose numbers may have other digits.
    """
    if text.lstrip()[:1] not in {"{", "["}:
        return ""
    try:
        found = json.loads(text)
        lines = _lines(found, ascii_only=False)
        # What would move the text around it, or is half a character, stays escaped.
        return lines if _is_readable(lines) else _lines(found, ascii_only=True)
    except (ValueError, RecursionError):
        return ""


def _lines(found: Any, *, ascii_only: bool) -> str:  # noqa: ANN401 - JSON
    """Raises ValueError where it becomes too long: every line of what is nested deeply begins with that many blanks."""
    parts, size = [], 0
    for part in json.JSONEncoder(indent=2, ensure_ascii=ascii_only).iterencode(found):
        size += len(part)
        if size > LAID_OUT_CHARACTERS:
            raise ValueError("too long")
        parts.append(part)
    return "".join(parts)


def _is_readable(text: str) -> bool:
    return all(character.isprintable() or character in "\n\r\t" for character in text)
