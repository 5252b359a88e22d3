"""What two plans do differently, and what that costs: as tables."""

from collections.abc import Iterator
from dataclasses import dataclass

from autotp.plans import Plan
from autotp.report.layer_rows import layer_rows
from autotp.report.layers import fold_rows
from autotp.report.moves import moved_values


@dataclass(frozen=True, slots=True)
class Difference:
    """Modules (equal layers folded) whose operators are split in two ways; "" where a plan has no such operator."""

    module: str
    operators: str
    first: str
    second: str


def differences(first: Plan, second: Plan) -> list[Difference]:
    """How modules are split, where the two plans differ, in the order of the first."""
    one, two = _splits(first), _splits(second)
    rows = [
        (module, (ops, one.get((module, ops), ""), two.get((module, ops), "")))
        for module, ops in dict.fromkeys([*one, *two])
        if one.get((module, ops)) != two.get((module, ops))
    ]
    return [Difference(folded.path or "(model)", *folded.content) for folded in fold_rows(rows)]


def _splits(plan: Plan) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], list[str]] = {}
    for module, row in layer_rows(plan):
        named = [f"{axis} {word}" if len(plan.mesh.axes) > 1 else word
                 for axis, word in zip(plan.mesh.names, row.choices, strict=True)]  # fmt: skip
        found.setdefault((module, row.ops), []).append(", ".join(named))
    return {key: "; ".join(dict.fromkeys(words)) for key, words in found.items()}


def amounts(plan: Plan) -> Iterator[tuple[str, float]]:
    """(name, seconds or bytes): what is compared, by name as in a summary."""
    predicted = plan.summary["predicted"]
    yield "step_s", predicted["step_s"]
    for name, value in predicted["compute_parts_s"].items():
        yield f"{name}_s", value
    yield "communication_s", predicted["communication_s"]
    yield "exposed_communication_s", predicted["exposed_communication_s"]
    for name, value in predicted["communication_by_kind_s"].items():
        yield f"{name}_s", value
    yield "memory_bytes", max(predicted["memory_bytes"])
    yield "moved_bytes", sum(moved.num_bytes for moved in moved_values(plan) if moved.is_collective)


def compare(first: Plan, second: Plan) -> list[tuple[str, float, float]]:
    """(name, the first plan's amount, the second's), in seconds and bytes."""
    one, two = dict(amounts(first)), dict(amounts(second))
    return [(name, one.get(name, 0.0), two.get(name, 0.0)) for name in dict.fromkeys([*one, *two])]
