"""When would an alternative be the best choice? Solved again for other links and other limits of memory, never guessed."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from autotp.errors import AutoTPError
from autotp.plans import Plan
from autotp.report.units import size
from autotp.solver.baselines import solve_restricted
from autotp.solver.problem import Floats, Problem, Solution

LADDER = (2.0, 4.0, 8.0, 16.0)  # how many times faster or slower sending is tried
TIGHTER = (
    1.25,
    1.5,
    1.75,
    2.0,
)  # limits that are tried: from 1, what the plan needs, to 2, the least that any plan needs
BISECTIONS = 3  # of the step of a ladder on which an alternative begins to win
ROUNDING = 1e-9  # relative: a limit is so much above what must fit
LIMIT_S = 10.0  # for a solution under a tighter limit of memory; one without a proof says nothing


class Wins:
    """Collects, per way of splitting a node, what would make it part of the best plan."""

    def __init__(self, plan: Plan, problem: Problem, allowed: Sequence[Sequence[int]], index: int, chosen: str) -> None:
        self._plan, self._problem, self._allowed, self._index, self._chosen = plan, problem, allowed, index, chosen
        self._found: dict[str, list[str]] = {}

    def add(self, words: str, condition: str) -> None:
        if words != self._chosen:
            self._found.setdefault(words, []).append(condition)

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def words_of(self, words: str) -> str:
        """All conditions of a way of splitting; "" where it never was the best choice."""
        return ", or ".join(self._found.get(words, ()))

    def over_links(self) -> None:
        """Communication that is so many times faster or slower, on all links alike."""
        for is_faster in (True, False):

            def best(factor: float, is_faster: bool = is_faster) -> str | None:
                return self._best(sped_up(self._problem, factor if is_faster else 1 / factor))

            words_for = (
                "communication at least {:.2g} times as fast" if is_faster else "communication at most 1/{:.2g} as fast"
            )
            for words, factor in _ladder(best, LADDER, self._chosen):
                self.add(words, words_for.format(factor))

    def over_memory(self, base: Solution) -> None:
        """Limits that bind less, or more; `base` is the best solution within the present ones."""
        limits = self._problem.limit_bytes
        needed = np.asarray(base.memory_bytes, dtype=np.float64)
        if np.isfinite(limits).any():
            free = self._solve(replace(self._problem, limit_bytes=np.full_like(limits, np.inf)))
            if free is not None and self._words(free) != self._chosen:
                most = float((np.asarray(free.memory_bytes) / limits).max()) * (1 + ROUNDING)
                for words, factor in _ladder(lambda f: self._best(self._limited(limits * f)), (most,), self._chosen):
                    self.add(words, f"at least {size(float((limits * factor).max()))} of memory per device")
        if self._plan.summary["solver"]["objective"] != "time" or not self._plan.summary["solver"]["fits"]:
            return
        own = needed - self._problem.fixed_bytes  # what the model takes, without its process

        def tighter(step: float) -> Floats:
            return needed - (1 - 1 / step) * own

        for words, step in _ladder(lambda s: self._best(self._limited(tighter(s))), TIGHTER, self._chosen):
            self.add(words, f"at most {size(float(tighter(step).max()))} of memory per device")

    def _limited(self, limit_bytes: Floats) -> Problem:
        return replace(self._problem, limit_bytes=limit_bytes)

    def _best(self, problem: Problem) -> str | None:
        """How the best solution splits the node; None where there is none, or none that is proven."""
        found = self._solve(problem)
        return None if found is None else self._words(found)

    def _solve(self, problem: Problem) -> Solution | None:
        objective = self._plan.summary["solver"]["objective"]
        try:
            found = solve_restricted(problem, self._allowed, objective=objective, time_limit_s=LIMIT_S)
        except AutoTPError:
            return None
        return found if found.status == "optimal" else None

    def _words(self, found: Solution) -> str:
        stored, choice = self._plan.problem, found.choices[self._index]
        return " / ".join(stored["words"][stored["strategies"][self._index][choice]])


def _ladder(best: Callable[[float], str | None], factors: Sequence[float], chosen: str) -> list[tuple[str, float]]:
    """(words, the least factor found at which they are best), for everything that is best on one of the steps."""
    found: dict[str, float] = {}
    last, low = chosen, 1.0
    for high in factors:
        words = best(high)
        if words is None:
            break
        if words != last and words != chosen and words not in found:
            found[words] = _first(best, words, low, high)
        last, low = words, high
    return list(found.items())


def _first(best: Callable[[float], str | None], words: str, low: float, high: float) -> float:
    """The least factor between two at which `words` is best, nearly."""
    for _ in range(BISECTIONS):
        middle = math.sqrt(low * high)
        if best(middle) == words:
            high = middle
        else:
            low = middle
    return high


def sped_up(problem: Problem, factor: float) -> Problem:
    """The problem where everything that is sent between devices takes 1 / factor of its time."""
    flows = tuple(
        replace(
            flow,
            arc_cost_s=flow.arc_cost_s / factor,
            arc_beside_s=None if flow.arc_beside_s is None else flow.arc_beside_s / factor,
        )
        for flow in problem.flows
    )
    return replace(problem, flows=flows)
