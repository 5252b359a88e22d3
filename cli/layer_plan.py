"""Which module is split how, repeated layers folded."""

from rich.table import Table

from autotp.plans import Plan
from autotp.report.layer_rows import layer_rows
from autotp.report.layers import fold_rows

from .tables import plain_table


def layer_table(plan: Plan) -> Table:
    """A row per module and kind of split, in the order of the model."""
    axes = (f"over {axis}={extent}" for axis, extent in plan.mesh.axes)
    table = plain_table("How the layers are split", "module", "operators", *axes)
    for folded in fold_rows(layer_rows(plan)):
        table.add_row(folded.path or "(model)", folded.content.ops, *folded.content.choices)
    return table
