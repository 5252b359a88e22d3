"""What one rank calls for an operator: the operator with local shape arguments, or a local operator in its place.

Pure: nodes, rules and strategies in, names and numbers out.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autotp.errors import RuleError
from autotp.graph import Node
from autotp.mesh import Mesh
from autotp.placement import Blocks, Spans, intersect, local_shape, spans
from autotp.rules.rule import Dim, OpRule
from autotp.rules.strategy import Strategy


@dataclass(frozen=True, slots=True)
class LocalCall:
    """What to call on one rank.

    - `op`: the operator, e.g. `aten.reshape.default`; often the node's own.
    - `arguments`: literal arguments to change, by schema name. If `op` is not the node's own these are all its literal
      arguments, and its tensor arguments are the node's operands in order.
    - `local`: name of a local operator in `runtime.local_ops`, called in place of `op` with the same arguments.
    - `constants`: what the local operator is built from.
    - `axes`: mesh axes whose communicators it needs.
    """

    op: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    local: str = ""
    constants: Mapping[str, Any] = field(default_factory=dict)
    axes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Share:
    """What the rank at `coordinates` has of an operator under a strategy."""

    node: Node
    rule: OpRule
    strategy: Strategy
    mesh: Mesh
    coordinates: tuple[int, ...]

    def cuts(self, letter: str) -> dict[int, Blocks]:
        """The axes that cut a letter, and how."""
        return {
            axis: choice.cut[letter]
            for axis, choice in enumerate(self.strategy.choices)
            if choice.cut is not None and letter in choice.cut
        }

    def held(self, letter: str) -> Spans:
        """The elements of a letter that the rank has."""
        found: Spans = ((0, self.extent(letter)),)
        for axis, blocks in self.cuts(letter).items():
            found = intersect(found, spans(blocks, self.coordinates[axis]))
        return found

    def extent(self, letter: str) -> int:
        """The whole extent; letters that the rule left out because they are 1 have 1."""
        return self.rule.extents.get(letter, 1)

    def size(self, letter: str) -> int:
        """How many elements of a letter the rank has."""
        return sum(length for _, length in self.held(letter)) if letter in self.rule.extents else 1

    def dim_size(self, dim: Dim) -> int:
        """The local size of a dim."""
        join = sum if dim.is_concat else math.prod
        return join(map(self.size, dim.letters))

    def axes_of(self, letters: Sequence[str]) -> tuple[int, ...]:
        """The axes that cut any of these letters."""
        return tuple(sorted({axis for letter in letters for axis in self.cuts(letter)}))

    @property
    def operands(self) -> tuple[tuple[int, ...], ...]:
        """Local shapes of the operands."""
        return tuple(tuple(map(self.dim_size, row)) for row in self.rule.operands)

    @property
    def results(self) -> tuple[tuple[int, ...], ...]:
        """Local shapes of the results."""
        return tuple(
            local_shape(spec.shape, placement, self.coordinates)
            for spec, placement in zip(self.node.outputs, self.strategy.results, strict=True)
        )


Change = Callable[[Share], Mapping[str, Any]]


def localise(node: Node, rule: OpRule, strategy: Strategy, mesh: Mesh, coordinates: Sequence[int]) -> LocalCall:
    """The call that the rank at `coordinates` makes for a node under a strategy.

    Raises RuleError where two cuts need different local operators.
    """
    share = Share(node, rule, strategy, mesh, tuple(coordinates))
    cut = {letter for choice in strategy.choices for letter in choice.cut or ()}
    local = {rule.local[letter] for letter in cut if letter in rule.local}
    local |= {rule.local["*"]} if "*" in rule.local and mesh.num_ranks > 1 else set()
    if len(local) > 1:
        raise RuleError(f"{node.op} ({node.name}) needs several local operators at once: {sorted(local)}")
    if not cut and not local:
        return LocalCall(node.op)
    op, arguments = node.op, {}
    if cut:
        op = RENAMED.get(node.short_op, node.op)
        arguments = dict(ARGUMENTS[node.short_op](share)) if node.short_op in ARGUMENTS else {}
    if not local and _is_empty(share):
        local = {"empty"}
    if not local:
        return LocalCall(op, arguments)
    (name,) = local
    return LocalCall(op, arguments, name, *LOCAL[name](share))


# beginnings of names of operators that torch refuses, or crashes, to run on nothing
REFUSE_EMPTY = (
    "conv",
    "max",
    "min",
    "amax",
    "amin",
    "arg",
    "adaptive",
    "avg",
    "upsample",
    "pad",
    "scaled_dot",
    "layer_norm",
    "rms_norm",
    "group_norm",
    "batch_norm",
    "var",
    "std",
    "topk",
    "sort",
)


def _is_empty(share: Share) -> bool:
    """Whether the rank has nothing to do, for operators that torch refuses to run on nothing."""
    shapes = [*share.results, *share.operands]
    return share.node.short_op.startswith(REFUSE_EMPTY) and any(math.prod(shape) == 0 for shape in shapes)


# ---------------------------------------------------------------- arguments that name sizes


def _result_shape(name: str) -> Change:
    return lambda share: {name: share.results[0]}


def _split_sizes(share: Share) -> dict[str, Any]:
    dim = int(share.node.argument("dim", 0))
    return {"split_sizes": tuple(shape[dim] for shape in share.results), "dim": dim}


def _slice(share: Share) -> dict[str, Any]:
    """Start and end of this rank's part of the slice, which comes after its part of what lies before the slice."""
    (result,) = share.results
    dim = int(share.node.argument("dim", 0)) % max(len(result), 1)
    whole, part = share.rule.operands[0][dim], share.rule.results[0][dim]
    if whole == part:
        return {} if not share.axes_of(whole.letters) else _bounds(share, 0, result[dim])
    if not part.letters or part.letters[0] not in whole.letters:
        return {}  # the dim is whole
    if whole.is_concat:
        before = whole.letters[: whole.letters.index(part.letters[0])]
        return _bounds(share, sum(map(share.size, before)), result[dim])
    start = int(share.node.argument("start") or 0)
    start += math.prod(map(share.extent, whole.letters)) if start < 0 else 0
    return _bounds(share, start // share.extent(part.letters[0]) * result[dim], result[dim])


def _bounds(share: Share, start: int, length: int) -> dict[str, Any]:
    if "length" in share.node.arguments:
        return {"start": start, "length": length}
    return {"start": start, "end": start + length}


def _repeats(name: str) -> Change:
    """Every dim is (repeats, elements): the rank's own number of repeats."""

    def change(share: Share) -> dict[str, Any]:
        return {name: tuple(share.size(f"r{i}") for i in range(len(share.node.outputs[0].shape)))}

    return change


def _interleaved(share: Share) -> dict[str, Any]:
    if "repeats" not in share.rule.extents:
        return {"output_size": None}
    return {"repeats": share.size("repeats"), "output_size": None}


def _groups(share: Share) -> dict[str, Any]:
    return {"groups": share.size("g")} if "g" in share.rule.extents else {}


def _num_groups(share: Share) -> dict[str, Any]:
    return {"num_groups": share.size("g")}


ARGUMENTS: dict[str, Change] = {
    **dict.fromkeys(
        ("view", "reshape", "_unsafe_view", "flatten", "squeeze", "unsqueeze", "ravel"), _result_shape("shape")
    ),
    "unflatten": _result_shape("shape"),
    **dict.fromkeys(("expand", "broadcast_to"), _result_shape("size")),
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split"), _split_sizes),
    **dict.fromkeys(("slice", "narrow"), _slice),
    "repeat": _repeats("repeats"),
    "tile": _repeats("dims"),
    "repeat_interleave": _interleaved,
    **dict.fromkeys([f"conv{n}d" for n in (1, 2, 3)] + [f"conv_transpose{n}d" for n in (1, 2, 3)], _groups),
    "group_norm": _num_groups,
    **dict.fromkeys(("zeros", "ones", "full", "empty", "rand", "randn", "randint"), _result_shape("size")),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full", "new_empty"), _result_shape("size")),
}

# a shard need not have the strides of the whole, so that a view of it may be impossible
RENAMED = {
    **dict.fromkeys(
        ("view", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "ravel"), "aten.reshape.default"
    ),
    "view_as": "aten.reshape_as.default",
    **dict.fromkeys(("split", "chunk", "tensor_split"), "aten.split_with_sizes.default"),
}


# ---------------------------------------------------------------- constants of local operators


Constants = tuple[Mapping[str, Any], tuple[int, ...]]


def _seeded(share: Share) -> Constants:
    """Draws differ between ranks exactly where an axis cuts the operator."""
    cut = [c for choice, c in zip(share.strategy.choices, share.coordinates, strict=True) if choice.kind == "cut"]
    return {"op": share.node.op, "name": share.node.name, "coordinates": tuple(cut)}, ()


def _empty(share: Share) -> Constants:
    dtypes = tuple(spec.dtype for spec in share.node.outputs)
    return {"shapes": share.results, "dtypes": dtypes, "op": share.node.op}, ()


def _embedding(share: Share) -> Constants:
    return {"held": share.held("v")}, ()


def _mean(share: Share) -> Constants:
    return {"count": math.prod(map(share.extent, share.rule.summed))}, ()


def _mean_loss(share: Share) -> Constants:
    return {"op": share.node.op, "count": math.prod(share.rule.extents.values())}, ()


def _tokens(share: Share) -> tuple[str, ...]:
    return tuple(sorted(share.rule.summed))


def _nll_loss(share: Share) -> Constants:
    axes = share.axes_of(_tokens(share))
    return {"op": share.node.op, "token_axes": axes}, axes


def _cross_entropy(share: Share) -> Constants:
    tokens = share.axes_of(_tokens(share))
    classes = share.axes_of(("c",))
    constants = {
        "held": share.held("c"),
        "num_classes": share.extent("c"),
        "class_axes": classes,
        "token_axes": tokens,
        "num_tokens": math.prod(share.extent(letter) for letter in _tokens(share)),
    }
    return constants, tuple(sorted({*tokens, *classes}))


def _batch_norm(share: Share) -> Constants:
    letters = [letter for letter in share.rule.extents if letter in share.rule.local]
    axes = share.axes_of(letters)
    return {"count": math.prod(map(share.extent, letters)), "axes": axes}, axes


LOCAL: dict[str, Callable[[Share], Constants]] = {
    "seeded": _seeded,
    "empty": _empty,
    "embedding": _embedding,
    "mean": _mean,
    "mean_loss": _mean_loss,
    "nll_loss": _nll_loss,
    "cross_entropy": _cross_entropy,
    "batch_norm": _batch_norm,
}
