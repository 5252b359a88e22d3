"""Strategies, placements and moves in words."""

from collections.abc import Iterable, Sequence

from autotp.mesh import Mesh
from autotp.placement import Placement, State, format_blocks
from autotp.plans import Move
from autotp.rules.strategy import Choice, Strategy

# What the letters of the best-known rules stand for.
LETTERS = {
    ("linear", "n"): "column",
    ("linear", "k"): "row",
    ("addmm", "n"): "column",
    ("addmm", "k"): "row",
    ("embedding", "v"): "vocabulary",
    ("embedding", "d"): "features",
    ("scaled_dot_product_attention", "h"): "heads",
    ("scaled_dot_product_attention", "g"): "queries of a group",
    ("cross_entropy_loss", "c"): "classes",
    ("cross_entropy_loss", "n"): "tokens",
}
UNSPLIT = {"R": "whole", "P": "partial sums", "B": "whole, its gradient partial sums"}


def describe_state(state: State) -> str:
    """`dim 1: 512^8` or what an unsplit state means."""
    return f"dim {state.dim}: {format_blocks(state.blocks)}" if state.kind == "S" else UNSPLIT[state.kind]


def describe_placement(placement: Placement, mesh: Mesh) -> str:
    """One state per axis; the axis is named where there are several."""
    if len(mesh.axes) == 1:
        return describe_state(placement[0])
    return "; ".join(f"{name} {describe_state(state)}" for name, state in zip(mesh.names, placement, strict=True))


def describe_choice(op: str, choice: Choice, result: State | None) -> str:
    """What an operator (by its short name) does on one axis: `column (n)`, `heads (h)`, `dim 1`."""
    if choice.kind == "whole":
        return "whole"
    if choice.kind == "deferred":
        return "whole, gradient deferred"
    if choice.kind == "partial":
        return "passes partial sums"
    letters = tuple(choice.cut or ())
    named = next((LETTERS[op, letter] for letter in letters if (op, letter) in LETTERS), None)
    if named is not None:
        return f"{named} ({' '.join(letters)})"
    return f"dim {result.dim}" if result is not None and result.kind == "S" else "a summed dim"


def words_of(text: str) -> set[str]:
    """What a choice in words can be called: `column (n)` is `column` and `n` too; `passes partial sums` is `partial`."""
    short = {"passes partial sums": {"partial"}, "whole, gradient deferred": {"deferred"}}.get(text, set())
    head, bracket, rest = text.partition(" (")
    return {text, *short} | ({head, rest.rstrip(")")} if bracket else set())


def describe_strategy(op: str, strategy: Strategy) -> tuple[str, ...]:
    """The choices of all axes, in words."""
    first: Sequence[State | None] = strategy.results[0] if strategy.results else (None,) * len(strategy.choices)
    return tuple(describe_choice(op, choice, state) for choice, state in zip(strategy.choices, first, strict=True))


def describe_move(move: Move) -> str:
    """`S(1) -> R` on the axis that it changes."""
    ends = (move.step.source[move.step.axis], move.step.target[move.step.axis])
    short = [f"S({state.dim})" if state.kind == "S" else state.kind for state in ends]
    if short[0] == short[1]:  # two layouts of one dim
        short = list(map(str, ends))
    return f"{short[0]} → {short[1]}"


def join_sizes(shape: Iterable[int]) -> str:
    """`2×2048×4096`."""
    return "×".join(map(str, shape)) or "scalar"


def join_shapes(shapes: Iterable[Iterable[int]]) -> str:
    """The different shapes among those of all ranks."""
    return ", ".join(dict.fromkeys(map(join_sizes, shapes)))


def short_op(op: str) -> str:
    """`linear` for `aten.linear.default`."""
    parts = op.split(".")
    return (parts[1] if len(parts) > 1 else op).rstrip("_")
