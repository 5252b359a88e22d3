"""One node of a plan: what it computes, how it is split, what moves around it, and what that takes."""

import difflib
from collections.abc import Iterable
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from autotp.errors import PlanError
from autotp.graph import Value
from autotp.placement import Placement, format_placement, local_shape
from autotp.plans import Plan
from autotp.report.moves import MovedValue, moved_values
from autotp.report.units import seconds
from autotp.report.words import describe_placement, describe_strategy, join_shapes, join_sizes, short_op

from .moves import move_table
from .output import Answer
from .tables import plain_table


def node_answer(plan: Plan, name: str) -> Answer:
    """Raises PlanError for a name that the plan does not have, with similar ones."""
    name = name.removeprefix("%")
    if name not in plan.nodes:
        close = difflib.get_close_matches(name, plan.nodes, n=3) or list(plan.nodes)[:3]
        raise PlanError(f"the plan has no node {name!r}; it has {len(plan.nodes)} others, such as {', '.join(close)}")
    facts, strategy = plan.nodes[name], plan.strategies[name]
    into = [moved for moved in moved_values(plan) if moved.value in facts.inputs]
    out = [moved for moved in moved_values(plan) if moved.value.node == name]
    pairs = zip(facts.inputs, strategy.operands, strict=True)
    data = {
        "name": name,
        "kind": facts.kind,
        "op": facts.op,
        "module": facts.module,
        "strategy": dict(zip(plan.mesh.names, describe_strategy(short_op(facts.op), strategy), strict=True)),
        "operands": [{"value": str(value), **_tensor(plan, value, placement)} for value, placement in pairs],
        "results": [_tensor(plan, Value(name, i), placement) for i, placement in enumerate(strategy.results)],
        "forward_s": facts.forward_s,
        "backward_s": facts.backward_s,
        "moves_of_operands": [moved.to_json() for moved in into],
        "moves_of_results": [moved.to_json() for moved in out],
    }
    return Answer(data, lambda: _text(data, into, out))


def _tensor(plan: Plan, value: Value, placement: Placement) -> dict[str, Any]:
    """A tensor as the node has it: whole and local shapes, placement."""
    spec = plan.nodes[value.node].outputs[value.index]
    ranks = range(plan.mesh.num_ranks)
    return {
        "dtype": spec.dtype,
        "shape": list(spec.shape),
        "placement": format_placement(placement),
        "in_words": describe_placement(placement, plan.mesh),
        "local_shapes": [list(local_shape(spec.shape, placement, plan.mesh.coordinates(rank))) for rank in ranks],
    }


def _text(data: dict[str, Any], into: list[MovedValue], out: list[MovedValue]) -> Iterable[RenderableType]:
    what = f"  {data['op'] or data['kind']}  in {data['module'] or 'the model'}"
    yield Text.assemble((f"%{data['name']}", "bold"), what)
    yield "strategy: " + ", ".join(f"{axis}: {choice}" for axis, choice in data["strategy"].items())
    if data["kind"] == "op":
        yield f"one run, without moves: forward {seconds(data['forward_s'])}, backward {seconds(data['backward_s'])}"
    table = plain_table("Operands as wanted, results as made", "", "dtype", "whole", "placement", "on the ranks")
    rows = [(row["value"], row) for row in data["operands"]]
    rows += [(f"result {index}", row) for index, row in enumerate(data["results"])]
    for name, row in rows:
        table.add_row(name, row["dtype"], join_sizes(row["shape"]), row["in_words"], join_shapes(row["local_shapes"]))
    yield table
    for title, moves in (("Moves of its operands", into), ("Moves of its results", out)):
        if moves:
            yield move_table(title, moves)
