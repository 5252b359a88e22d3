"""The planning problem as numbers: choices of nodes, and values that flow from the state they are made in to the states
they are wanted in. Nothing here knows tensors, operators or torch.

Minimise, over one choice per node and, per value, over the arcs used,

    seconds = Σ count · cost[v, s] · x[v, s] + Σ count · cost[a] · y[u, a]

where the arcs of a value u that are used must contain a path from the state its producer's choice makes to the state each
consumer's choice wants (an arc is paid once, however many consumers go over it). Bytes on device kind p:

    Σ count · memory[v, s, p] · x + Σ count · saved[u, σ, p] · w[u, σ] + T_p ≤ limit[p],   T_p ≥ work[v, s, p] of every v

with w[u, σ] = 1 where any saving consumer of u wants state σ (or a state of the same saving class).

Some arcs are sent beside what is computed (`Overlap`): to the seconds comes what of them is exposed,

    exposed = max over points r of  Σ share[r, u] · beside[a] · y[u, a] - Σ after[r, v] · beside[v, s] · x[v, s],  0 at least
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class NodeChoices:
    """One decision. S strategies, D kinds of device.

    `cost_s[S]`: seconds of one occurrence. `memory_bytes[S, D]`: bytes held for the whole step by one occurrence.
    `work_bytes[S, D]`: bytes held only while it runs. `count`: occurrences that share the decision.
    `rank[S]`: stable preference among equal costs, smaller first. `beside_s[S]`: of the seconds of one occurrence those in
    which something can be sent; none where None.
    """

    name: str
    cost_s: Floats
    memory_bytes: Floats
    work_bytes: Floats
    rank: Ints
    count: int = 1
    beside_s: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Consumer:
    """A node that reads the value: under its strategy s it wants state `wants[s]`; `saves`: it keeps it for backward."""

    node: int
    wants: Ints
    saves: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """One value, in `count` occurrences: its states 0..N-1, and A arcs between them.

    `makes[s]`: the state that strategy s of node `producer` makes. `arc_source[A]`, `arc_target[A]`: states.
    `arc_cost_s[A]`: seconds of one occurrence, forward and backward, without `arc_beside_s[A]`, seconds that are sent
    beside something else (none where None). `saved_class[N]`: states that share storage when
    saved for backward have equal classes 0..C-1; `saved_bytes[C, D]`: bytes of one occurrence saved in the class.
    """

    name: str
    producer: int
    makes: Ints
    num_states: int
    arc_source: Ints
    arc_target: Ints
    arc_cost_s: Floats
    consumers: tuple[Consumer, ...]
    saved_class: Ints
    saved_bytes: Floats
    count: int = 1
    arc_beside_s: Floats | None = None

    def weighed_s(self, share: float = 1.0) -> Floats:
        """Seconds of the arcs if this share of what is sent beside something else were exposed."""
        return self.arc_cost_s if self.arc_beside_s is None else self.arc_cost_s + share * self.arc_beside_s


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    """What is sent beside what is computed. R points of time, V nodes, U flows.

    `efficiency`: how fast is computed while something is sent, of its speed alone. `after[R, V]`: occurrences of a node that
    are computed after a point. `begun[R, U]`: occurrences of a flow that begin to be sent there or later.

    Before a point what is sent may be hidden but for what it slows down, 1 - `efficiency` of its seconds; of what is sent
    from there on is exposed what exceeds the seconds computed from there on.
    """

    efficiency: float
    after: Floats
    begun: Floats

    def shares(self, counts: Floats) -> Floats:
        """[R, U]: how much of a second that one arc of a flow of so many occurrences is sent counts at a point."""
        return (1 - self.efficiency) * counts + self.efficiency * self.begun


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Work between two synchronisations, in `count` regions that are alike: everybody waits for whoever needs most for it.

    `nodes`: the decisions; `seconds[k][S, D]`: what all of the k-th one's occurrences in the region take, beside its
    `cost_s`.
    """

    nodes: tuple[int, ...]
    seconds: tuple[Floats, ...]
    count: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Nodes, flows, and bytes per kind of device: the limit and what is taken whatever is chosen.

    With `regions` the seconds are more by  Σ_r count · max_p Σ_{v in r} seconds[v, s, p] · x[v, s].
    """

    nodes: tuple[NodeChoices, ...]
    flows: tuple[Flow, ...]
    limit_bytes: Floats  # [D]; inf where there is no limit
    fixed_bytes: Floats  # [D]
    device_names: tuple[str, ...] = ("device",)
    overlap: Overlap | None = None
    regions: tuple[Region, ...] = ()

    def exposed_s(self, choices: Sequence[int], arcs: Sequence[Sequence[int]]) -> float:
        """Seconds of what is sent beside something else that are exposed, by these choices and arcs of every flow."""
        if self.overlap is None:
            return 0.0
        sent = np.array(
            [
                0.0 if flow.arc_beside_s is None else math.fsum(flow.arc_beside_s[list(some)].tolist())
                for flow, some in zip(self.flows, arcs, strict=True)
            ]
        )
        computed = np.array(
            [0.0 if node.beside_s is None else node.beside_s[s] for node, s in zip(self.nodes, choices, strict=True)]
        )
        shares = self.overlap.shares(np.array([flow.count for flow in self.flows], dtype=np.float64))
        return max(0.0, float(np.max(shares @ sent - self.overlap.after @ computed, initial=0.0)))


@dataclass(frozen=True, slots=True)
class Solution:
    """`choices[v]`: strategy of node v. `arcs[u]`: arcs used of flow u, ascending: a tree from the made state.

    `status`: `optimal` (proven), `feasible` (a limit stopped the proof), `heuristic` (none was sought). `cost_s` and
    `bound_s`: seconds of this solution and a proven lower bound (0 where none); `gap` = (cost - bound) / cost.
    """

    choices: tuple[int, ...]
    arcs: tuple[tuple[int, ...], ...]
    cost_s: float
    memory_bytes: tuple[float, ...]
    status: str
    bound_s: float = 0.0
    gap: float = 1.0
    num_variables: int = 0
    notes: tuple[str, ...] = field(default=())
