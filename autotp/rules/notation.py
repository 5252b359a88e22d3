"""Rules as text: `input[... k] weight[n k] bias[n] -> [... n]`.

Operands are named as in the operator's schema; absent ones are skipped. A dim is a letter, a product `(h d)`, or a run
of dims `*s` (any number of them, letters `s0`, `s1`, ... counted from the right, so that operands broadcast); `...` is
`*i`.
Dims of size 1 carry no letter. An operand with fewer dims than its pattern matches the pattern's last dims.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from autotp.errors import RuleError
from autotp.graph import Operand
from autotp.rules.call import Call
from autotp.rules.rule import Dim, Inner, OpRule, Row

Tokens = tuple[tuple[str, ...], ...]  # one tuple of letters per dim
Shape = tuple[int, ...]


class Concat(tuple[str, ...]):
    """Letters of a dim that is a concatenation of parts; any other tuple is a product."""


def parse_row(text: str) -> tuple[tuple[str, ...] | str, ...]:
    """Dims of one pattern: tuples of letters, and `*name` for a run of dims."""
    tokens: list[tuple[str, ...] | str] = []
    for match in re.finditer(r"\(([^)]*)\)|(\.\.\.|\*\w+)|(\w+)", text):
        product, run, letter = match.groups()
        if run:
            tokens.append("*i" if run == "..." else run)
        else:
            tokens.append(tuple(product.split()) if product is not None else (letter,))
    return tuple(tokens)


def fit_row(text: str, num_dims: int) -> Tokens:
    """The letters of every dim of a tensor of so many dims. Raises RuleError where the pattern does not fit."""
    tokens = parse_row(text)
    fixed = sum(not isinstance(token, str) for token in tokens)
    if num_dims < fixed:
        tokens, fixed = tuple(token for token in tokens if not isinstance(token, str))[fixed - num_dims :], num_dims
    if num_dims > fixed and not any(isinstance(token, str) for token in tokens):
        raise RuleError(f"a tensor of {num_dims} dims does not fit the pattern [{text}]")
    result: list[tuple[str, ...]] = []
    for token in tokens:
        if isinstance(token, str):
            result += [(f"{token[1:]}{k}",) for k in reversed(range(num_dims - fixed))]
        else:
            result.append(token)
    return tuple(result)


def parse_signature(text: str) -> tuple[dict[str, str], list[str]]:
    """Patterns of the operands by argument name, and of the results."""
    left, arrow, right = text.partition("->")
    operands = dict(re.findall(r"(\w+)\s*\[([^\]]*)\]", left))
    results = re.findall(r"\[([^\]]*)\]", right)
    if not arrow or not results:
        raise RuleError(f"cannot read the rule {text!r}")
    return operands, results


def find_extents(rows: Sequence[Tokens], shapes: Sequence[Shape], sizes: Mapping[str, int]) -> dict[str, int]:
    """Extents of all letters. Raises RuleError where shapes contradict each other or leave a letter open."""
    extents = dict(sizes.items())
    dims = [pair for row, shape in zip(rows, shapes, strict=True) for pair in zip(row, shape, strict=True)]
    for letters, size in sorted((pair for pair in dims if pair[1] != 1), key=lambda pair: len(pair[0])):
        unknown = [letter for letter in letters if letter not in extents]
        join = sum if isinstance(letters, Concat) else math.prod
        known = join(extents[letter] for letter in letters if letter in extents)
        if len(unknown) == 1 and known and size % known == 0:
            extents[unknown[0]] = size // known
        elif unknown or known != size:
            raise RuleError(f"a dim of size {size} does not fit the factors {letters} with extents {extents}")
    for letters, _ in dims:
        for letter in letters:
            extents.setdefault(letter, 1)
    return extents


def build(
    call: Call,
    operands: Sequence[Tokens],
    results: Sequence[Tokens],
    *,
    sizes: Mapping[str, int] | None = None,
    summed: Iterable[str] = (),
    whole: Iterable[str] = (),
    inner: Mapping[str, tuple[Inner, ...]] | None = None,
    additive: frozenset[int] = frozenset(),
    linear: Iterable[frozenset[int]] = (),
    local: Mapping[str, str] | None = None,
    local_sizes: Mapping[str, str] | None = None,
    copied: Iterable[int] = (),
    work: tuple[float, Iterable[str]] = (0.0, ()),
) -> OpRule:
    """A rule from the letters of every dim; `*s` among `summed`, `whole` or `work` is every letter of that run."""
    shapes = [spec.shape for spec in call.specs] + list(call.results)
    extents = find_extents([*operands, *results], shapes, sizes or {})
    kept = {letter: extent for letter, extent in extents.items() if extent != 1}

    def row(letters: Tokens, shape: Shape) -> Row:
        return tuple(
            Dim(tuple(letter for letter in dim if letter in kept) if size != 1 else (), isinstance(dim, Concat))
            for dim, size in zip(letters, shape, strict=True)
        )

    def expand(names: Iterable[str]) -> tuple[str, ...]:
        found = [
            letter
            for name in names
            for letter in ((name,) if name[0] != "*" else kept)
            if letter in kept and (name[0] != "*" or re.fullmatch(rf"{name[1:]}\d+", letter))
        ]
        return tuple(dict.fromkeys(found))

    num_operands = len(call.specs)
    return OpRule(
        operands=tuple(row(dims, shape) for dims, shape in zip(operands, shapes[:num_operands], strict=True)),
        results=tuple(row(dims, shape) for dims, shape in zip(results, shapes[num_operands:], strict=True)),
        extents=kept,
        summed=frozenset(expand(summed)),
        whole=frozenset(expand(whole)),
        inner={letter: steps for name, steps in (inner or {}).items() for letter in expand((name,))},
        additive=additive,
        linear=tuple(linear),
        local={
            letter: op for name, op in (local or {}).items() for letter in (("*",) if name == "*" else expand((name,)))
        },
        local_sizes={argument: letter for argument, letter in (local_sizes or {}).items() if letter in kept},
        copied=frozenset(copied),
        work=(work[0], expand(work[1])),
    )


def rule(
    call: Call,
    text: str,
    *,
    summed: str = "",
    whole: str = "",
    additive: str = "",
    linear: Sequence[str] = (),
    sizes: Mapping[str, int] | None = None,
    inner: Mapping[str, tuple[Inner, ...]] | None = None,
    local: Mapping[str, str] | None = None,
    local_sizes: Mapping[str, str] | None = None,
    copied: Iterable[int] = (),
    work: tuple[float, str] = (0.0, ""),
) -> OpRule:
    """A rule from its text. Letters and argument names are separated by spaces; `linear` has one string per set.

    Raises RuleError where a tensor argument has no pattern or shapes do not fit.
    """
    patterns, results = parse_signature(text)
    rows: list[Tokens] = [()] * len(call.specs)
    for name, value in call.node.arguments.items():
        members = value if isinstance(value, tuple) else (value,)
        for operand in members:
            if isinstance(operand, Operand):
                if name not in patterns:
                    raise RuleError(
                        f"the rule of {call.node.op} ({call.node.name}) does not know the tensor argument {name!r}"
                    )
                rows[operand.index] = fit_row(patterns[name], len(call.specs[operand.index].shape))
    if len(results) != len(call.results):
        raise RuleError(f"{call.node.op} ({call.node.name}) has {len(call.results)} results, its rule {len(results)}")
    return build(
        call,
        rows,
        [fit_row(pattern, len(shape)) for pattern, shape in zip(results, call.results, strict=True)],
        sizes=sizes,
        summed=summed.split(),
        whole=whole.split(),
        inner=inner,
        additive=call.indices(*additive.split()),
        linear=[found for names in linear if (found := call.indices(*names.split()))],
        local=local,
        local_sizes=local_sizes,
        copied=copied,
        work=(work[0], work[1].split()),
    )


def letters_of(num_dims: int, name: str = "d") -> Tokens:
    """A letter of its own for every dim, numbered from the left."""
    return tuple((f"{name}{dim}",) for dim in range(num_dims))


def unread(call: Call, index: int) -> Tokens:
    """Letters, to be whole, of an operand of which only shape or dtype is read."""
    return letters_of(len(call.specs[index].shape), f"unread{index}_")
