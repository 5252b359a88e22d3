"""The plan: every decision and what it was made from. Frozen, versioned JSON; all that a user keeps.

(The module is `plans` so that the name `autotp.plan` stays free for the function.)
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autotp.graph import TensorSpec, Value
from autotp.mesh import Mesh
from autotp.placement import Placement
from autotp.redistribute import PADDED, Step
from autotp.rules.strategy import Strategy

if TYPE_CHECKING:
    import pandas as pd

VERSION = 1


@dataclass(frozen=True, slots=True)
class Move:
    """One step of one value: what it does forward and backward (actions of `redistribute.TABLE`), and its price.

    `forward_s`, `backward_s`: seconds of one occurrence; `again_s`: of its forward, run again in backward.
    The moves of a value form a tree that starts at the placement its node makes; every consumer's wanted placement is a
    node of that tree. `forward_by`, `backward_by`: by which collectives unequal shards are gathered or added
    (`redistribute.EXACT`), `PADDED` where by the action's own.
    """

    step: Step
    forward: str
    backward: str
    forward_s: float
    backward_s: float
    again_s: float = 0.0
    forward_by: str = PADDED
    backward_by: str = PADDED


@dataclass(frozen=True, slots=True)
class ParameterPlan:
    """Where a parameter or buffer is: its placement, whole shape, and every rank's local shape."""

    placement: Placement
    shape: tuple[int, ...]
    dtype: str
    local_shapes: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]  # all qualified names of it: more than one where weights are tied


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node computes, so that a plan can be explained without its model; `module` is the path of who computes it.

    `forward_s`, `backward_s`: predicted seconds of one run of the operator on the slowest rank, without its moves.
    """

    kind: str  # of graph.KINDS
    op: str
    module: str
    inputs: tuple[Value, ...]
    outputs: tuple[TensorSpec, ...]
    forward_s: float = 0.0
    backward_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model runs on a mesh.

    `strategies`: by node name; parameters, buffers and inputs have results only, the output operands only.
    `moves`: the redistributions of every value that has any. `summary`: predictions, baselines, solver report, coverage.
    """

    fingerprint: str
    mode: str  # "train" or "infer"
    mesh: Mesh
    strategies: Mapping[str, Strategy]
    moves: Mapping[Value, tuple[Move, ...]]
    parameters: Mapping[str, ParameterPlan]  # by graph node name
    nodes: Mapping[str, NodeFacts] = field(default_factory=dict)  # by node name, in topological order
    cluster: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)  # file, options, and how it was captured
    problem: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    fallback_ops: tuple[str, ...] = ()
    version: int = VERSION

    @property
    def reduce_dtype(self) -> str | None:
        """The dtype in which partial sums in half precision are added up over ranks; their own where None."""
        found: str | None = self.summary.get("training", {}).get("reduce_dtype")
        return found

    @property
    def overlaps(self) -> bool:
        """Whether gradients are added up over ranks beside the rest of the backward pass."""
        return bool(self.summary.get("training", {}).get("overlap", False))

    @property
    def reduces_once(self) -> bool:
        """Whether they are added up once per step, and not once per micro-batch."""
        return bool(self.summary.get("training", {}).get("reduce_once", False))

    def to_frame(self, table: str = "operators") -> "pd.DataFrame":
        """One of the plan's tables as a pandas DataFrame: operators, layers, parameters, redistributions, memory, ...

        Units stand in the columns' names. Raises AutoTPError for an unknown table, naming all.
        """
        found: pd.DataFrame = importlib.import_module("autotp.report.frames").frame(self, table)
        return found

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        text: str = importlib.import_module("autotp.report.page").notebook(self)
        return text
