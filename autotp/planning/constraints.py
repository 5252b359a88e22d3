"""What a user forces or forbids, as sets of strategies: constraints of the integer program.

`layers.*.mlp.down_proj=column` names modules, parameters, inputs or nodes by a pattern, and a way of splitting by its word;
`dp:dim 0` says on which mesh axis. Forced nodes use the word on some axis (or on that one), forbidden ones on none.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from autotp.cost.problem import PlanningProblem
from autotp.errors import AutoTPError, InfeasibleError
from autotp.graph import Node
from autotp.mesh import Mesh
from autotp.report.layer_rows import MAIN
from autotp.report.words import describe_strategy, words_of


@dataclass(frozen=True, slots=True)
class Constraint:
    """`kind`: force or forbid. `axis`: a mesh axis, or "" for any."""

    kind: str
    pattern: str
    axis: str
    word: str

    def __str__(self) -> str:
        return f"--{self.kind} {self.pattern}={self.axis + ':' if self.axis else ''}{self.word}"

    def allows(self, words: Sequence[str], mesh: Mesh) -> bool:
        """Whether a strategy that does `words` on the axes of a mesh keeps to it."""
        uses = any(
            self.word in words_of(each) for axis, each in zip(mesh.names, words, strict=True) if self.axis in ("", axis)
        )
        return uses == (self.kind == "force")


def parse_constraint(kind: str, text: str, mesh: Mesh) -> Constraint:
    """Raises AutoTPError where the text is not `PATTERN=WORD` or `PATTERN=AXIS:WORD`."""
    pattern, equals, word = text.rpartition("=")
    axis, colon, rest = word.partition(":")
    if not equals or not pattern.strip() or not word.strip():
        raise AutoTPError(
            f"cannot read --{kind} {text!r}: write it as pattern=word, as in layers.*.mlp.down_proj=column"
        )
    if colon and axis.strip() not in mesh.names:
        raise AutoTPError(f"--{kind} {text}: the mesh {mesh} has no axis {axis.strip()!r}")
    return Constraint(kind, pattern.strip(), axis.strip() if colon else "", (rest if colon else word).strip().lower())


def allowed_strategies(
    planning: PlanningProblem, mesh: Mesh, force: Iterable[str], forbid: Iterable[str]
) -> list[list[int]] | None:
    """Per node of the problem the strategies that keep to all constraints; None where there is none.

    Raises AutoTPError for a pattern or a word that nothing has, InfeasibleError where a node is left without a strategy.
    """
    constraints = [parse_constraint("force", text, mesh) for text in force]
    constraints += [parse_constraint("forbid", text, mesh) for text in forbid]
    if not constraints:
        return None
    index_of = {name: index for index, name in enumerate(planning.node_names)}
    allowed = [list(range(len(strategies))) for strategies in planning.strategies]
    for constraint in constraints:
        nodes = _matching(planning, constraint)
        representatives = dict.fromkeys(planning.classes[node.name] for node in nodes)
        _check_whole_classes(planning, constraint, {node.name for node in nodes}, representatives)
        found = {name: _words(planning, index_of[name]) for name in representatives}
        _check_word(constraint, found)
        for name, words in found.items():
            index = index_of[name]
            allowed[index] = [s for s in allowed[index] if constraint.allows(words[s], mesh)]
            if not allowed[index]:
                choices = ", ".join(dict.fromkeys(" / ".join(each) for each in words))
                raise InfeasibleError(
                    f"the constraints leave {name} without a strategy, at the latest {constraint}: it can be {choices}"
                )
    return allowed


def _words(planning: PlanningProblem, index: int) -> list[tuple[str, ...]]:
    op = planning.graph[planning.node_names[index]].short_op
    return [describe_strategy(op, strategy) for strategy in planning.strategies[index]]


def _matching(planning: PlanningProblem, constraint: Constraint) -> list[Node]:
    """Nodes of a module whose path matches (its main operators, where it has any), or that match themselves."""
    by_name = [node for node in planning.graph if matches(node.name, constraint.pattern) and node.kind != "output"]
    by_target = [node for node in planning.graph if node.target and matches(node.target, constraint.pattern)]
    inside = [node for node in planning.graph if node.kind == "op" and matches(node.module, constraint.pattern)]
    main = [node for node in inside if node.short_op in MAIN] or inside
    found = main or by_target or by_name
    if not found:
        names = [*dict.fromkeys(node.target or node.module for node in planning.graph if node.target or node.module)]
        close = difflib.get_close_matches(constraint.pattern.replace("*", "0"), names, n=3, cutoff=0.3) or names[:3]
        raise AutoTPError(f"{constraint}: no module, parameter or node is called so; there are {', '.join(close)}")
    return found


def matches(name: str, pattern: str) -> bool:
    """Whether a dotted name, or the end of it, fits a pattern in which * stands for anything."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _check_whole_classes(
    planning: PlanningProblem, constraint: Constraint, names: set[str], representatives: Iterable[str]
) -> None:
    wanted = set(representatives)
    others = [n for n, first in planning.classes.items() if first in wanted and n not in names]
    if others:
        raise AutoTPError(
            f"{constraint}: layers that are alike are decided together, and {others[0]} is like one of these; write "
            f"{re.sub(r'[0-9]+', '*', constraint.pattern)}, or decide for every layer by itself (--no-fold)"
        )


def _check_word(constraint: Constraint, found: dict[str, list[tuple[str, ...]]]) -> None:
    known = {word for words in found.values() for each in words for one in each for word in words_of(one)}
    if constraint.word not in known:
        close = difflib.get_close_matches(constraint.word, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        shown = dict.fromkeys(one for words in found.values() for each in words for one in each)
        raise AutoTPError(f"{constraint}: {hint}It can be {', '.join(shown)}")
