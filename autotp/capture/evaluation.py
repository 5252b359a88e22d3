"""What a model does otherwise when it is not in training, as changes of the graph captured in training."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from autotp.capture.noops import DROPOUTS
from autotp.capture.plain import describe
from autotp.errors import CaptureError

# Arguments that say whether a model is in training, or how much it drops.
FLAGS = frozenset({"training", "train", "use_input_stats", "p", "dropout_p", "dropout"})


@dataclass(frozen=True)
class Evaluation:
    """By node name the arguments to change, and the nodes to leave out: writes to buffers."""

    arguments: Mapping[str, Mapping[str, Any]]
    removed: frozenset[str]


def evaluation(training: fx.Graph, evaluated: fx.Graph) -> Evaluation:
    """How to make the second graph of the first. Raises CaptureError where they differ in more than flags.

    Both are walked in order. What only the first one has must be dropout, or a write to a buffer.
    """
    rest = iter(evaluated.nodes)
    wanted = next(rest)
    same: dict[fx.Node, fx.Node] = {}  # nodes of the training graph to those of the other
    arguments: dict[str, Mapping[str, Any]] = {}
    removed: set[str] = set()
    for node in training.nodes:
        changed = _changes(node, wanted, same) if wanted is not None else None
        if changed is not None:
            same[node] = wanted
            arguments |= {node.name: changed} if changed else {}
            wanted = next(rest, None)
        elif _name(node) in DROPOUTS:
            source = node.args[0]
            assert isinstance(source, fx.Node)
            if source in same:
                same[node] = same[source]
            arguments[node.name] = {"train": False}
        elif node.op == "get_attr" or _writes_buffer(node):
            removed.add(node.name)
        else:
            raise CaptureError(
                f"in evaluation the model computes something else than in training, from {describe(node)} ({node.name}) "
                "on: make a plan with mode='infer' for it"
            )
    if wanted is not None:
        raise CaptureError(
            f"in evaluation the model computes more than in training: {describe(wanted)} ({wanted.name})"
        )
    return Evaluation(arguments, frozenset(name for name in removed))


def _changes(node: fx.Node, other: fx.Node, same: Mapping[fx.Node, fx.Node]) -> dict[str, Any] | None:
    """Flags in which two nodes differ; None where they differ in anything else."""
    if node.op != other.op or (node.op != "placeholder" and node.target != other.target):
        return None
    if not _equal(node.all_input_nodes, other.all_input_nodes, same):
        return None
    if not isinstance(node.target, torch._ops.OpOverload):
        return {} if _equal((node.args, node.kwargs), (other.args, other.kwargs), same) else None
    mine, theirs = dict(_bound(node)), dict(_bound(other))
    differ = [name for name in {**mine, **theirs} if not _equal(mine.get(name), theirs.get(name), same)]
    return (
        {name: theirs[name] for name in differ} if FLAGS.issuperset(differ) and theirs.keys() >= set(differ) else None
    )


def _bound(node: fx.Node) -> Iterator[tuple[str, Any]]:
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    for index, argument in enumerate(schema):
        default = argument.default_value if argument.has_default_value() else None
        yield argument.name, node.args[index] if index < len(node.args) else node.kwargs.get(argument.name, default)


def _equal(mine: Any, theirs: Any, same: Mapping[fx.Node, fx.Node]) -> bool:
    if isinstance(mine, fx.Node):
        return same.get(mine) is theirs
    if isinstance(mine, Sequence) and not isinstance(mine, str):
        return (
            isinstance(theirs, Sequence)
            and len(mine) == len(theirs)
            and all(_equal(a, b, same) for a, b in zip(mine, theirs, strict=True))
        )
    if isinstance(mine, Mapping):
        return isinstance(theirs, Mapping) and mine.keys() == theirs.keys() and all(
            _equal(mine[key], theirs[key], same) for key in mine
        )  # fmt: skip
    return type(mine) is type(theirs) and bool(mine == theirs)


def _name(node: fx.Node) -> str:
    return node.target.overloadpacket.__name__ if isinstance(node.target, torch._ops.OpOverload) else ""


def _writes_buffer(node: fx.Node) -> bool:
    target = node.args[0] if node.args else None
    mutable = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
    return mutable and isinstance(target, fx.Node) and target.op == "get_attr"
