"""What a tighter limit of memory costs, as a table."""

from collections.abc import Iterator

from rich.console import RenderableType

from autotp.plans import Plan
from autotp.report import units

from .tables import plain_table

WIDTH = 30  # characters of the longest bar


def memory_curve(plan: Plan) -> Iterator[RenderableType]:
    """A row per limit, the least first; nothing where no curve was asked for."""
    points = plan.summary.get("memory_curve")
    if not points:
        return
    fastest_s, slowest_s = (extreme(point["step_s"] for point in points) for extreme in (min, max))
    table = plain_table("What memory costs (predicted)", "limit", "needs", "step", "relative", "")
    for point in points:
        bar = "█" * max(1, round(WIDTH * point["step_s"] / slowest_s))
        table.add_row(
            units.size(point["limit_bytes"]), units.size(point["memory_bytes"]), units.seconds(point["step_s"]),
            f"{point['step_s'] / fastest_s:.2f}×", bar,
        )  # fmt: skip
    yield table
