"""Tables for the log, drawn as ``DataFrame.show(truncate=False)`` draws them."""

from __future__ import annotations

from collections.abc import Sequence

_MIN_WIDTH = 3


def format_table(header: Sequence[str], rows: Sequence[Sequence[object]], *, more: bool = False) -> str:
    """Return a left-aligned table.

    Args:
        header: names of the columns.
        rows: one sequence of cells per row, as long as the header.
        more: whether there are rows beside these, which a last line then says.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(_MIN_WIDTH, *map(len, column)) for column in zip(header, *cells, strict=True)]
    rule = "+" + "+".join("-" * width for width in widths) + "+"

    def line(values: Sequence[str]) -> str:
        return "|" + "|".join(value.ljust(width) for value, width in zip(values, widths, strict=True)) + "|"

    lines = [rule, line(header), rule, *map(line, cells), rule]
    if more:
        lines.append(f"only showing top {len(rows)} rows")
    return "\n".join(lines)
