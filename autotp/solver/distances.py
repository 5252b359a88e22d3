"""Cheapest paths between all states of a flow: what can be reached, which arcs matter, and where a split pays."""

import numpy as np

from autotp.solver.problem import Floats, Flow, Ints
from autotp.solver.program import Bools
from autotp.solver.steiner import tie_broken


class Distances:
    """All cheapest paths of one flow's graph of states, by Floyd and Warshall.

    `seconds[i, j]`: the cheapest path, infinite where there is none. `first[i, j]`: its first arc, -1 where none. Equally
    cheap paths are told apart as `tie_broken` does, so that one path per pair stands for all. Where less than all of what is
    sent beside something else may be exposed, `least_share` of it, what matters at either price matters.
    """

    def __init__(self, flow: Flow, least_share: float = 1.0, share: float = 1.0) -> None:
        n = flow.num_states
        self.seconds: Floats = np.full((n, n), np.inf)
        self.first: Ints = np.full((n, n), -1)
        cost = tie_broken(flow.weighed_s(share))
        for arc in np.argsort(-cost, kind="stable"):  # the cheapest of parallel arcs is written last
            if np.isfinite(cost[arc]):
                self.seconds[flow.arc_source[arc], flow.arc_target[arc]] = cost[arc]
                self.first[flow.arc_source[arc], flow.arc_target[arc]] = arc
        np.fill_diagonal(self.seconds, 0.0)
        np.fill_diagonal(self.first, -1)
        for middle in range(n):
            longer = self.seconds[:, middle, None] + self.seconds[middle]
            better = longer < self.seconds
            self.seconds = np.where(better, longer, self.seconds)
            self.first = np.where(better, self.first[:, middle, None], self.first)
        self._target = flow.arc_target
        is_both = flow.arc_beside_s is not None and least_share < share
        self._hidden = Distances(flow, least_share, least_share) if is_both else None

    @property
    def reaches(self) -> Bools:
        return np.isfinite(self.seconds)

    def arcs_between(self, pairs: Bools) -> Ints:
        """The arcs of the cheapest paths between all pairs (i, j) that are marked, ascending."""
        at, to = np.nonzero(pairs & self.reaches)
        used: set[int] = set()
        while at.size:
            arcs = self.first[at, to]
            at, to, arcs = at[arcs >= 0], to[arcs >= 0], arcs[arcs >= 0]
            used.update(np.unique(arcs).tolist())
            at = self._target[arcs]
        if self._hidden is not None:
            used.update(self._hidden.arcs_between(pairs).tolist())
        return np.array(sorted(used), dtype=np.int64)

    def connects(self, flow: Flow) -> bool:
        """Whether every state that is made leads to every state that is wanted, for a flow of this graph."""
        wanted = np.unique(np.concatenate([c.wants for c in flow.consumers]))
        return bool(self.reaches[np.ix_(np.unique(flow.makes), wanted)].all())

    def shared_ends(self, wanted: list[Ints]) -> Bools:
        """Pairs (i, b): going from i to b once for several consumers, and only then apart, can be cheaper than from i apart.

        Of two consumers, k saves at most gain_k = max over the t it wants of d(i, t) - d(b, t), and going there costs
        d(i, b). With more consumers those that go on together from b may save more, so nothing is excluded.
        """
        if len(wanted) > 2:
            return self.reaches
        gain = np.zeros_like(self.seconds)
        with np.errstate(invalid="ignore"):
            for states in wanted:
                saved = self.seconds[:, None, states] - self.seconds[None, :, states]
                gain += np.where(np.isnan(saved), -np.inf, saved).max(axis=2)
            found = np.asarray(self.reaches & (gain > self.seconds))
        return found if self._hidden is None else found | self._hidden.shared_ends(wanted)
