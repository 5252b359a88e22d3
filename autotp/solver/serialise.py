"""A problem as JSON and back, exactly: what a plan keeps, so that it can be explained and solved again.

JSON has no infinity: an infinite number is null. Flows over equal graphs of states share one entry of `graphs`.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from autotp.errors import PlanError
from autotp.solver.problem import Consumer, Floats, Flow, Ints, NodeChoices, Overlap, Problem

GraphKey = tuple[int, bytes, bytes, bytes, bytes, bytes]


def to_dict(problem: Problem) -> dict[str, Any]:
    """Lists, numbers and strings only; equal problems give equal results."""
    graphs: dict[GraphKey, int] = {}
    rows: list[dict[str, Any]] = []
    flows = []
    for flow in problem.flows:
        key = _graph_key(flow)
        if key not in graphs:
            graphs[key] = len(rows)
            rows.append(
                {
                    "states": flow.num_states,
                    "source": flow.arc_source.tolist(),
                    "target": flow.arc_target.tolist(),
                    "cost_s": _numbers(flow.arc_cost_s),
                    "saved_class": flow.saved_class.tolist(),
                    **({} if flow.arc_beside_s is None else {"beside_s": _numbers(flow.arc_beside_s)}),
                }
            )
        flows.append(
            {
                "name": flow.name,
                "producer": flow.producer,
                "makes": flow.makes.tolist(),
                "graph": graphs[key],
                "consumers": [[c.node, c.wants.tolist(), c.saves] for c in flow.consumers],
                "saved_bytes": _numbers(flow.saved_bytes),
                "count": flow.count,
            }
        )
    return {
        "devices": list(problem.device_names),
        "limit_bytes": _numbers(problem.limit_bytes),
        "fixed_bytes": _numbers(problem.fixed_bytes),
        "nodes": [_node(node) for node in problem.nodes],
        "graphs": rows,
        "flows": flows,
        **({} if problem.overlap is None else {"overlap": _overlap(problem.overlap)}),
    }


def from_dict(document: Mapping[str, Any]) -> Problem:
    """The inverse of `to_dict`. Raises PlanError where the document is not one of its results."""
    try:
        num_devices = len(document["devices"])
        return Problem(
            tuple(_read_node(row, num_devices) for row in document["nodes"]),
            tuple(_read_flow(row, document["graphs"][row["graph"]], num_devices) for row in document["flows"]),
            _floats(document["limit_bytes"]),
            _floats(document["fixed_bytes"]),
            tuple(document["devices"]),
            _read_overlap(document["overlap"]) if "overlap" in document else None,
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        message = f"the stored problem is corrupt ({type(error).__name__}: {error}); make the plan again"
        raise PlanError(message) from error


def _graph_key(flow: Flow) -> GraphKey:
    arrays = flow.arc_source.tobytes(), flow.arc_target.tobytes(), flow.arc_cost_s.tobytes()
    beside = b"" if flow.arc_beside_s is None else flow.arc_beside_s.tobytes()
    return (flow.num_states, *arrays, flow.saved_class.tobytes(), beside)


def _overlap(overlap: Overlap) -> dict[str, Any]:
    return {
        "efficiency": overlap.efficiency,
        "after": _numbers(overlap.after),
        "begun": _numbers(overlap.begun),
    }


def _read_overlap(row: Mapping[str, Any]) -> Overlap:
    return Overlap(row["efficiency"], _floats(row["after"]), _floats(row["begun"]))


def _node(node: NodeChoices) -> dict[str, Any]:
    return {
        "name": node.name,
        "cost_s": _numbers(node.cost_s),
        "memory_bytes": _numbers(node.memory_bytes),
        "work_bytes": _numbers(node.work_bytes),
        "rank": node.rank.tolist(),
        "count": node.count,
        **({} if node.beside_s is None else {"beside_s": _numbers(node.beside_s)}),
    }


def _read_node(row: Mapping[str, Any], num_devices: int) -> NodeChoices:
    cost = _floats(row["cost_s"])
    memory, work = (_floats(row[name]).reshape(len(cost), num_devices) for name in ("memory_bytes", "work_bytes"))
    beside = _floats(row["beside_s"]) if "beside_s" in row else None
    return NodeChoices(row["name"], cost, memory, work, _ints(row["rank"]), row["count"], beside)


def _read_flow(row: Mapping[str, Any], graph: Mapping[str, Any], num_devices: int) -> Flow:
    return Flow(
        name=row["name"],
        producer=row["producer"],
        makes=_ints(row["makes"]),
        num_states=graph["states"],
        arc_source=_ints(graph["source"]),
        arc_target=_ints(graph["target"]),
        arc_cost_s=_floats(graph["cost_s"]),
        consumers=tuple(Consumer(node, _ints(wants), saves) for node, wants, saves in row["consumers"]),
        saved_class=_ints(graph["saved_class"]),
        saved_bytes=_floats(row["saved_bytes"]).reshape(-1, num_devices),
        count=row["count"],
        arc_beside_s=_floats(graph["beside_s"]) if "beside_s" in graph else None,
    )


def _numbers(array: Floats) -> list[Any]:
    """Nested lists of numbers, null for infinity."""
    return [_numbers(row) if row.ndim else float(row) if math.isfinite(row) else None for row in array]


def _floats(numbers: ArrayLike) -> Floats:
    array = np.asarray(numbers, dtype=np.float64)  # null becomes nan
    return np.where(np.isnan(array), np.inf, array)


def _ints(numbers: ArrayLike) -> Ints:
    return np.asarray(numbers, dtype=np.int64)
