"""What one rank calls for an operator: the operator with local shape arguments, or a local operator in its place.

Pure: nodes, rules and strategies in, names and numbers out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autotp.errors import RuleError
from autotp.graph import Node
from autotp.mesh import Mesh
from autotp.rewrite.arguments import ARGUMENTS, RENAMED
from autotp.rewrite.constants import LOCAL
from autotp.rewrite.share import Share
from autotp.rules.rule import OpRule
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


# Local operators that are one where a node needs both.
BOTH = {frozenset(("seeded", "shared_heads")): "seeded_shared_heads"}


def localise(node: Node, rule: OpRule, strategy: Strategy, mesh: Mesh, coordinates: Sequence[int]) -> LocalCall:
    """The call that the rank at `coordinates` makes for a node under a strategy.

    Raises RuleError where two cuts need different local operators.
    """
    share = Share(node, rule, strategy, mesh, tuple(coordinates))
    cut = {letter for choice in strategy.choices for letter in choice.cut or ()}
    local = {rule.local[letter] for letter in cut if letter in rule.local}
    local |= {rule.local["*"]} if "*" in rule.local and mesh.num_ranks > 1 else set()
    local = {BOTH[frozenset(local)]} if frozenset(local) in BOTH else local
    if len(local) > 1:
        raise RuleError(f"{node.op} ({node.name}) needs several local operators at once: {sorted(local)}")
    is_view = RENAMED.get(node.short_op) == "aten.reshape.default" and node.op != "aten.view.dtype"
    if not cut and not local and not is_view:
        return LocalCall(node.op)
    op, arguments = node.op, {}
    if cut or is_view:
        op = RENAMED.get(node.short_op, node.op)
        arguments = dict(ARGUMENTS[node.short_op](share)) if node.short_op in ARGUMENTS else {}
        arguments |= {name: share.size(letter) for name, letter in rule.local_sizes.items()}
    if local <= {"seeded"} and _is_empty(share):  # where nothing is made nothing is drawn
        local = {"empty"}
    if not local:
        return LocalCall(op, arguments)
    (name,) = local
    return LocalCall(op, arguments, name, *LOCAL[name](share))


# beginnings of names of operators that torch refuses, or crashes, to run on nothing
REFUSE_EMPTY = (
    "_grouped_mm",
    "addmv",
    "bilinear",
    "ctc_loss",
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
    """Whether the rank makes nothing, or reads nothing for an operator that torch refuses to run on nothing."""
    if not share.operands:
        return False
    made, read = ([math.prod(shape) == 0 for shape in shapes] for shapes in (share.results, share.operands))
    if share.node.short_op.startswith(REFUSE_EMPTY):
        return any(made) or any(read)
    return all(made)
