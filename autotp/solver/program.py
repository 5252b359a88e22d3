"""A linear program as arrays, and a builder that appends whole blocks of variables, rows and entries at a time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autotp.solver.problem import Floats, Ints

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """Minimise cost·x, lower ≤ x ≤ upper, row_lower ≤ A·x ≤ row_upper; A by rows: entries starts[r]..starts[r+1]."""

    cost: Floats
    lower: Floats
    upper: Floats
    integer: Bools
    row_lower: Floats
    row_upper: Floats
    starts: Ints
    columns: Ints
    values: Floats

    @property
    def num_variables(self) -> int:
        return len(self.cost)

    @property
    def num_rows(self) -> int:
        return len(self.row_lower)


class Builder:
    """Collects a program. Entries of the same row and column are added up."""

    def __init__(self) -> None:
        self.num_variables = 0
        self.num_rows = 0
        self._variables: list[tuple[Floats, Floats, Floats, Bools]] = []
        self._rows: list[tuple[Floats, Floats]] = []
        self._entries: list[tuple[Ints, Ints, Floats]] = []

    def variables(self, cost: ArrayLike, *, lower: float = 0.0, upper: float = np.inf, integer: bool = False) -> Ints:
        """New variables within the bounds, one per cost; their indices."""
        costs = np.atleast_1d(np.asarray(cost, dtype=np.float64))
        n = len(costs)
        self._variables.append((costs, np.full(n, lower), np.full(n, upper), np.full(n, integer)))
        self.num_variables += n
        return np.arange(self.num_variables - n, self.num_variables)

    def rows(self, number: int, *, lower: float = -np.inf, upper: ArrayLike = np.inf) -> Ints:
        """New empty rows; their indices."""
        self._rows.append((np.full(number, lower), np.full(number, upper, dtype=np.float64)))
        self.num_rows += number
        return np.arange(self.num_rows - number, self.num_rows)

    def entries(self, rows: ArrayLike, columns: ArrayLike, values: ArrayLike) -> None:
        """A[rows, columns] += values; the three broadcast against each other."""
        r, c, v = np.broadcast_arrays(rows, columns, values)
        self._entries.append((r.ravel().astype(np.int64), c.ravel().astype(np.int64), v.ravel().astype(np.float64)))

    def build(self) -> Program:
        cost, lower, upper, integer = (np.concatenate(parts) for parts in zip(*self._variables, strict=True))
        row_lower, row_upper = (np.concatenate(parts) for parts in zip(*self._rows, strict=True))
        rows, columns, values = (np.concatenate(parts) for parts in zip(*self._entries, strict=True))
        places, where = np.unique(rows * len(cost) + columns, return_inverse=True)
        summed = np.bincount(where, weights=values, minlength=len(places))
        places, summed = places[summed != 0], summed[summed != 0]
        starts = np.searchsorted(places, np.arange(len(row_lower) + 1) * len(cost))
        # rows without entries say nothing, unless they say that nothing is possible
        kept = (np.diff(starts) > 0) | (row_lower > 0) | (row_upper < 0)
        starts = np.append(starts[:-1][kept], starts[-1])
        return Program(
            cost, lower, upper, integer, row_lower[kept], row_upper[kept], starts, places % len(cost), summed
        )
