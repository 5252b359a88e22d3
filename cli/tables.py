"""The one look of all tables."""

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

RIGHT = (
    "time",
    "share",
    "step",
    "relative",
    "memory",
    "times",
    "bytes each",
    "total",
    "ranks",
    "latency",
    "nodes",
    "predicted",
    "measured",
    "off by",
    "difference",
    "more memory",
)


class TitledTable(Table):
    """A table under its title; rich's own title would be wrapped to the width of a narrow table."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.heading, style="bold")
        yield from super().__rich_console__(console, options)

    heading: str = ""


def plain_table(title: str, *columns: str) -> Table:
    """A table with a title; columns of numbers are aligned right, long cells fold rather than being cut."""
    table = TitledTable(box=SIMPLE_HEAD, pad_edge=False)
    table.heading = title
    for name in columns:
        table.add_column(name, justify="right" if name in RIGHT else "left", overflow="fold")
    return table
