"""The rows that say how much of what is sent beside something else is exposed."""

from collections.abc import Sequence

import numpy as np

from autotp.solver.problem import Ints, Overlap, Problem
from autotp.solver.program import Builder


def add_exposed(
    builder: Builder,
    problem: Problem,
    overlap: Overlap,
    x: Sequence[Ints],
    paid: Sequence[tuple[int, Ints, Ints]],
    weight: float,
) -> None:
    """Add e ≥ 0 at a cost of one, and for every point  Σ share · beside[a] · y - Σ after · beside[v, s] · x ≤ e.

    `paid`: for flows, by index, arcs and the columns that say how much of each is used. `weight`: units of cost per second.
    """
    exposed = builder.variables([1.0])
    rows = builder.rows(len(overlap.after), upper=0)
    builder.entries(rows, exposed, -1)
    shares = overlap.shares(np.array([flow.count for flow in problem.flows], dtype=np.float64))
    for index, arcs, columns in paid:
        beside = problem.flows[index].arc_beside_s
        if beside is not None:
            builder.entries(rows[:, None], columns, weight * shares[:, [index]] * beside[arcs])
    for node, columns, after in zip(problem.nodes, x, overlap.after.T, strict=True):
        if node.beside_s is not None and after.any():
            builder.entries(rows[:, None], columns, -weight * after[:, None] * node.beside_s)
