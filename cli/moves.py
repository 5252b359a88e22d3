"""Every redistribution of a plan as one row of a table."""

from collections.abc import Iterable

from rich.table import Table

from autotp.report.layers import fold_rows
from autotp.report.moves import MovedValue
from autotp.report.units import seconds, size

from .tables import plain_table


def move_table(title: str, moves: Iterable[MovedValue], *, max_rows: int | None = None) -> Table:
    """Equal moves of repeated layers as one row, the most expensive first; what is beyond `max_rows` is summed up."""
    rows = [(m.module, (m.what, m.axis, m.change, m.actions, m.num_bytes, m.forward_s + m.backward_s)) for m in moves]
    folded = sorted(fold_rows(rows), key=lambda item: (-item.count * item.content[5], item.path))
    table = plain_table(
        title, "made in", "value", "axis", "from → to", "forward / backward", "times", "bytes each", "total"
    )  # fmt: skip
    for item in folded[:max_rows]:
        *words, num_bytes, each_s = item.content
        table.add_row(
            item.path or "(model)", *words, str(item.count), size(num_bytes), seconds(item.count * each_s)
        )  # fmt: skip
    rest = folded[max_rows:] if max_rows is not None else []
    if rest:
        total_s = sum(item.count * item.content[5] for item in rest)
        times = str(sum(item.count for item in rest))
        table.add_row(f"{len(rest)} more kinds", "", "", "", "", times, "", seconds(total_s))
    return table
