"""Operators without a rule, and what running them whole costs."""

import pandas as pd

from autotp.graph import Value
from autotp.plans import Plan

COLUMNS = ("op", "times", "run_s", "moves_s", "time_s", "share")


def fallbacks(plan: Plan) -> pd.DataFrame:
    """A row per operator that fell back: its runs, their seconds, and those of the moves of what it reads and makes."""
    rows = []
    for op in plan.fallback_ops:
        names = [name for name, node in plan.nodes.items() if node.op == op]
        nodes = [plan.nodes[name] for name in names]
        run_s = sum(node.forward_s + node.backward_s for node in nodes)
        values = {value for node in nodes for value in node.inputs}
        values |= {Value(name, i) for name in names for i in range(len(plan.nodes[name].outputs))}
        moves_s = sum(move.forward_s + move.backward_s for value in values for move in plan.moves.get(value, ()))
        rows.append((op, len(names), run_s, moves_s, run_s + moves_s))
    found = pd.DataFrame(rows, columns=list(COLUMNS[:-1]))
    return found.assign(share=found["time_s"] / plan.summary["predicted"]["step_s"])
