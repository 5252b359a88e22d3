"""How much of a command's work is left: from what its stages took so far, and what such stages took elsewhere."""

from collections.abc import Sequence

# Seconds of a stage of `autotp plan` for Llama 8B on eight H100s, on one core, 2026-11-24: only ratios are used. Loading is
# not among them, since it does not depend on the model and says nothing of the rest.
WEIGHTS = {"capturing": 7.1, "planning": 5.1, "pricing": 15.0, "drawing": 5.2}
PART_OF = {"counting": "planning"}


class Remaining:
    """Follows the stages of a command; `expect` says which ones there will be.

    A stage of a kind that has ended before will take as long as those did on average; one of another kind is weighted by
    `WEIGHTS` against those that have ended. Before any has ended nothing is known.
    """

    def __init__(self, stage: str, now_s: float) -> None:
        self._stage, self._kind, self._began_s = stage, _kind(stage), now_s
        self._took_s: dict[str, list[float]] = {}
        self._left: list[str] | None = None
        self._number = 1

    def expect(self, kinds: Sequence[str]) -> None:
        """The kinds (first words) of all stages that follow the present one."""
        self._left = list(kinds)

    def begin(self, stage: str, now_s: float) -> None:
        """The next stage. The same one once more, or a part of it, is no other one; `planning tp=4` after tp=2 is."""
        kind = _kind(stage)
        if stage == self._stage or PART_OF.get(kind) == self._kind:
            return
        self._took_s.setdefault(self._kind, []).append(now_s - self._began_s)
        self._stage, self._kind, self._began_s = stage, kind, now_s
        self._number += 1
        if self._left and kind in self._left:
            self._left.remove(kind)

    @property
    def place(self) -> tuple[int, int] | None:
        """(number of this stage, of how many); None where nobody said how many there will be."""
        return None if self._left is None else (self._number, self._number + len(self._left))

    def done_share(self, now_s: float) -> float | None:
        """The part of all stages that is done, each counting alike; None where their number is not known."""
        if self.place is None:
            return None
        number, of = self.place
        estimate_s = self._estimate_s(self._kind)
        present = min(1.0, (now_s - self._began_s) / estimate_s) if estimate_s else 0.0
        return (number - 1 + present) / of

    def left_s(self, now_s: float) -> float | None:
        """Seconds until the last stage ends; None where nothing is known, or the present one takes longer than expected."""
        if self._left is None:
            return None
        each = [self._estimate_s(kind) for kind in (self._kind, *self._left)]
        known = [one for one in each if one is not None]
        present_s = known[0] - (now_s - self._began_s) if len(known) == len(each) else 0.0
        return sum(known[1:]) + present_s if present_s > 0 else None

    def _estimate_s(self, kind: str) -> float | None:
        before = self._took_s.get(kind)
        if before:
            return sum(before) / len(before)
        weighed = {name: some for name, some in self._took_s.items() if name in WEIGHTS}
        if not weighed or kind not in WEIGHTS:
            return None
        weight = sum(WEIGHTS[name] * len(some) for name, some in weighed.items())
        return WEIGHTS[kind] * sum(map(sum, weighed.values())) / weight


def stages_of_plan(num_degrees: int, *, is_sweep: bool, has_curve: bool, has_report: bool) -> list[str]:
    """The kinds of the stages of `autotp plan` after loading: a report sweeps over all degrees once the plan is made."""
    found = ["capturing", *["planning"] * (num_degrees if is_sweep else 1), *["pricing"] * has_curve]
    if has_report and not is_sweep:
        found += ["capturing", *["planning"] * num_degrees]
    return [*found, *["drawing"] * has_report]


def _kind(stage: str) -> str:
    return stage.partition(" ")[0]
