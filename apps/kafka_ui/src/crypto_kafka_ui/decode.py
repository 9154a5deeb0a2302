"""Bytes of a message as a person reads them. Pure."""

from __future__ import annotations

import codecs
import json

from crypto_kafka_ui.readings import Text


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
    if not all(character.isprintable() or character in "\n\r\t" for character in text):
        # Three characters a byte.
        shown = data[: max(1, limit // 3)]
        return Text(shown.hex(" "), "bytes", size, cut=len(shown) < size)
    form = "json" if size <= limit and laid_out(text) else "text"
    return Text(text, form, size, cut=size > limit)


def laid_out(text: str) -> str:
    """Return a JSON object or list on lines of its own; nothing where the text is none.

    For reading: what was sent is the text itself, whose numbers may have other digits.
    """
    if text.lstrip()[:1] not in {"{", "["}:
        return ""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return ""
