"""The rows that count bytes: held, saved for backward once per saving class, and the largest working set."""

import numpy as np

from autotp.solver.consumers import merged
from autotp.solver.problem import Floats, Flow, Ints, Problem
from autotp.solver.program import Builder


def add_bytes(
    builder: Builder, problem: Problem, x: list[Ints], soft_bytes: Floats | None = None, *, with_relief: bool = False
) -> tuple[float, Ints]:
    """Add Σ bytes[p] ≤ limit[p] for every finite limit; return the unit of bytes that the rows use, and relief columns.

    `with_relief` adds a variable e[p] = 0 to every limit: its reduced cost is what one more unit of memory would change.

    With `soft_bytes` also Σ bytes[p] ≤ soft_bytes[p] + e for every finite one, at a cost of one per unit of e ≥ 0.
    """
    devices = range(len(problem.limit_bytes))
    unit = _typical_bytes(problem)
    room = [problem.limit_bytes] if soft_bytes is None else [problem.limit_bytes, soft_bytes]
    rows = [builder.rows(len(devices), upper=(limit - problem.fixed_bytes) / unit) for limit in room]
    if soft_bytes is not None:
        builder.entries(rows[1], builder.variables([1.0]), -1)
    columns, values = _held(builder, problem, x)
    for p in devices:
        working = _working(builder, problem, x, p, unit)
        for limit, row in zip(room, rows, strict=True):
            if np.isfinite(limit[p]):
                builder.entries(row[p], columns, values[:, p] / unit)
                builder.entries(row[p], working, 1)
    relief = builder.variables(np.zeros(len(devices)), upper=0.0) if with_relief else np.zeros(0, dtype=np.int64)
    if with_relief:
        builder.entries(rows[0][np.isfinite(problem.limit_bytes)], relief[np.isfinite(problem.limit_bytes)], -1)
    return unit, relief


def _typical_bytes(problem: Problem) -> float:
    finite = problem.limit_bytes[np.isfinite(problem.limit_bytes)]
    if finite.size:
        return max(1.0, float(finite.max()))
    held = sum(node.count * node.memory_bytes.min(axis=0) for node in problem.nodes)
    return max(1.0, float(np.max(problem.fixed_bytes + held)))


def _held(builder: Builder, problem: Problem, x: list[Ints]) -> tuple[Ints, Floats]:
    """Columns and their bytes per device: what strategies hold, and what consumers save."""
    columns = list(x)
    values = [node.count * node.memory_bytes for node in problem.nodes]
    for flow in problem.flows:
        for new_columns, new_values in _saved(builder, flow, x):
            columns.append(new_columns)
            values.append(new_values)
    return np.concatenate(columns), np.concatenate(values)


def _saved(builder: Builder, flow: Flow, x: list[Ints]) -> list[tuple[Ints, Floats]]:
    savers = [(x[c.node], flow.saved_class[c.wants]) for c in merged(flow) if c.saves]
    num_savers = np.zeros(len(flow.saved_bytes), dtype=np.int64)
    for _, classes in savers:
        num_savers[np.unique(classes)] += 1
    several = np.flatnonzero((num_savers > 1) & flow.saved_bytes.any(axis=1))
    w = np.full(len(num_savers), -1)
    w[several] = builder.variables(np.zeros(len(several)))
    found = [(w[several], flow.count * flow.saved_bytes[several])]
    for columns, classes in savers:
        alone = num_savers[classes] == 1  # no variable is needed where nobody else can save the class
        found.append((columns[alone], flow.count * flow.saved_bytes[classes[alone]]))
        here = np.intersect1d(classes, several)
        row_of = np.full(len(num_savers), -1)
        row_of[here] = builder.rows(len(here), upper=0)
        counted = row_of[classes] >= 0
        builder.entries(row_of[classes[counted]], columns[counted], 1)
        builder.entries(row_of[here], w[here], -1)
    return found


def _working(builder: Builder, problem: Problem, x: list[Ints], device: int, unit: float) -> Ints:
    """The variable T of a device: at least the working set of every node; rows that cannot bind are left out."""
    least = max((float(node.work_bytes[:, device].min()) for node in problem.nodes), default=0.0)
    working = builder.variables([0.0], lower=least / unit)
    for node, columns in zip(problem.nodes, x, strict=True):
        work = node.work_bytes[:, device]
        if work.max() > least:
            row = builder.rows(1, upper=0)
            builder.entries(row, columns, work / unit)
            builder.entries(row, working, -1)
    return working
