"""The one look of all tables."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

RIGHT = ("time", "share", "step", "relative", "memory", "times", "bytes each", "total", "ranks", "latency", "nodes")


def plain_table(title: str, *columns: str) -> Table:
    """A table with a bold title; columns of numbers are aligned right, long cells fold rather than being cut."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in RIGHT else "left", overflow="fold")
    return table
