"""The structure of dims: every dim is a term, and operators are equations between terms (design, section 6).

A term is an atom of some extent, a product of terms (major to minor) or a concatenation. Unifying two terms refines both
to what they have in common; it is refined wherever it occurs, since terms are shared by union-find. Unification that
contradicts what is known is undone as a whole.
"""

import math
from collections.abc import Sequence

Parts = tuple[str, tuple[int, ...]]  # ("product" | "concat", terms)


class _ClashError(Exception):
    """Two terms have no common structure."""


class Terms:
    """A forest of terms, addressed by integers."""

    def __init__(self) -> None:
        self._extent: list[int] = []
        self._parent: list[int] = []
        self._parts: list[Parts | None] = []
        self._undo: list[tuple[int, int, Parts | None]] = []

    def atom(self, extent: int) -> int:
        self._extent.append(extent)
        self._parent.append(len(self._parent))
        self._parts.append(None)
        return len(self._parent) - 1

    def extent(self, term: int) -> int:
        return self._extent[term]

    def find(self, term: int) -> int:
        while self._parent[term] != term:
            term = self._parent[term]
        return term

    def product(self, terms: Sequence[int]) -> int:
        """The product of terms, major to minor; factors of extent 1 vanish."""
        kept = [t for t in terms if self._extent[t] != 1]
        if len(kept) == 1:
            return kept[0]
        term = self.atom(math.prod(self._extent[t] for t in kept))
        if kept:
            self._parts[term] = ("product", tuple(kept))
        return term

    def concat(self, terms: Sequence[int]) -> int:
        """The concatenation of terms. Equal extents are one structure: `n + n + n` is the product `(3 n)`."""
        kept = [t for t in terms if self._extent[t]]
        if len(kept) <= 1:
            return kept[0] if kept else self.atom(0)
        if len({self._extent[t] for t in kept}) == 1:
            for other in kept[1:]:
                self._unify(kept[0], other)
            return self.product([self.atom(len(kept)), kept[0]])
        term = self.atom(sum(self._extent[t] for t in kept))
        self._parts[term] = ("concat", tuple(kept))
        return term

    def flat(self, term: int, kind: str) -> list[int]:
        """Members of a nest of products (or of concatenations); the term itself where it is neither."""
        root = self.find(term)
        parts = self._parts[root]
        if parts is None or parts[0] != kind:
            return [root]
        return [member for part in parts[1] for member in self.flat(part, kind)]

    def is_concat(self, term: int) -> bool:
        parts = self._parts[self.find(term)]
        return parts is not None and parts[0] == "concat"

    # ------------------------------------------------------------ equations

    def equate(self, term: int, letters: Sequence[int], *, is_concat: bool) -> bool:
        """Say that `term` is the product (or concatenation) of `letters`; False, and no change, on a contradiction."""
        mark = len(self._undo)
        try:
            self._unify(term, self.concat(letters) if is_concat else self.product(letters))
        except _ClashError:
            while len(self._undo) > mark:
                changed, parent, parts = self._undo.pop()
                self._parent[changed], self._parts[changed] = parent, parts
            return False
        return True

    def _set(self, term: int, parent: int, parts: Parts | None) -> None:
        self._undo.append((term, self._parent[term], self._parts[term]))
        self._parent[term], self._parts[term] = parent, parts

    def _unify(self, first: int, second: int) -> None:
        a, b = self.find(first), self.find(second)
        if a == b:
            return
        if self._extent[a] != self._extent[b]:
            raise _ClashError
        x, y = self._parts[a], self._parts[b]
        if x and y:
            if x[0] != y[0]:
                raise _ClashError
            align = self._align_products if x[0] == "product" else self._align_concats
            align(self.flat(a, x[0]), self.flat(b, y[0]))
            a, b = self.find(a), self.find(b)
            if a == b:
                return
        if self._parts[a] is None:
            a, b = b, a
        self._set(b, a, None)

    def _align_products(self, left: list[int], right: list[int]) -> None:
        """The common refinement of two mixed radices, from the minor end."""
        while left and right:
            x, y = self._expand(left), self._expand(right)
            small, big, rest = (x, y, right) if self._extent[x] <= self._extent[y] else (y, x, left)
            if self._extent[small] != self._extent[big]:
                quotient, remainder = divmod(self._extent[big], self._extent[small])
                if remainder or self._parts[big]:
                    raise _ClashError
                major = self.atom(quotient)
                self._set(big, big, ("product", (major, small)))
                rest.append(major)
            else:
                self._unify(x, y)
        if left or right:
            raise _ClashError

    def _expand(self, stack: list[int]) -> int:
        """Take the minor-most factor off a list, after replacing it by what it has been refined to meanwhile."""
        stack[-1:] = self.flat(stack[-1], "product")
        return stack.pop()

    def _align_concats(self, left: list[int], right: list[int]) -> None:
        """Boundaries must nest: a part of one side is a whole number of parts of the other."""
        while left and right:
            x, y = left.pop(), right.pop()
            big, parts, rest = (x, [y], right) if self._extent[x] >= self._extent[y] else (y, [x], left)
            while rest and sum(self._extent[p] for p in parts) < self._extent[big]:
                parts.insert(0, rest.pop())
            if sum(self._extent[p] for p in parts) != self._extent[big]:
                raise _ClashError
            self._unify(big, parts[0] if len(parts) == 1 else self.concat(parts))
        if left or right:
            raise _ClashError
