"""Why a redistribution is there: how its value is made, and who wants it how."""

from autotp.graph import Value
from autotp.placement import parse_placement
from autotp.plans import Plan
from autotp.report.moves import MovedValue
from autotp.report.words import short_op

NUM_NAMES = 3


class Reasons:
    """Knows who reads every value of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._readers: dict[Value, list[tuple[str, int]]] = {}
        for name, node in plan.nodes.items():
            for index, value in enumerate(node.inputs):
                self._readers.setdefault(value, []).append((name, index))

    def of(self, moved: MovedValue) -> str:
        """`P, wanted as S(1) by add of mlp`; a step on the way to what is wanted says so."""
        target = parse_placement(moved.target)
        readers = dict.fromkeys(
            self._name(name)
            for name, index in self._readers.get(moved.value, ())
            if self._plan.strategies[name].operands[index] == target
        )
        have, _, wanted = moved.change.partition(" → ")
        if not readers:
            return f"{have}, made {wanted} on the way to what its readers want"
        more = f" and {len(readers) - NUM_NAMES} more" if len(readers) > NUM_NAMES else ""
        return f"{have}, wanted as {wanted} by {', '.join(list(readers)[:NUM_NAMES])}{more}"

    def _name(self, name: str) -> str:
        node = self._plan.nodes[name]
        if node.kind == "output":
            return "the output"
        parts = [part for part in node.module.split(".") if not part.isdigit()]
        return f"{short_op(node.op)} of {parts[-1]}" if parts else short_op(node.op)
