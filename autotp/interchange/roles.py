"""What other tools call the split of a module: column, row, vocabulary, features; and what they have no word for."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from autotp.errors import AutoTPError
from autotp.placement import State
from autotp.plans import Plan
from autotp.report.words import short_op

LINEARS = ("linear", "addmm")


@dataclass(frozen=True, slots=True)
class Role:
    """`kind`: column, row, vocabulary or features. `is_parallel`: of a column its result, of a row its input stays split."""

    module: str
    kind: str
    is_parallel: bool


@dataclass(frozen=True, slots=True)
class Roles:
    """`split`: roles of modules in the order of the model; `whole`: modules with parameters that every rank has whole.

    `refused`: a sentence for every module whose split other tools cannot express. `notes`: what they do otherwise.
    """

    split: tuple[Role, ...]
    whole: tuple[str, ...]
    refused: tuple[str, ...]
    notes: tuple[str, ...]


def roles(plan: Plan) -> Roles:
    """Raises AutoTPError for a plan over more than one axis."""
    axes = [axis for axis, size in enumerate(plan.mesh.sizes) if size > 1]
    if len(axes) > 1:
        raise AutoTPError(
            f"the plan splits over {len(axes)} axes ({plan.mesh}), and these targets know one: make a plan for tp alone, "
            "and add data parallelism (FSDP, DDP) around it"
        )
    return _Reader(plan, axes[0] if axes else 0).roles()


class _Reader:
    def __init__(self, plan: Plan, axis: int) -> None:
        self.plan, self.axis = plan, axis
        self.readers: dict[str, list[tuple[str, int]]] = {}
        for name, node in plan.nodes.items():
            for index, value in enumerate(node.inputs):
                self.readers.setdefault(value.node, []).append((name, index))

    def roles(self) -> Roles:
        split: dict[str, Role] = {}
        refused: dict[str, str] = {}
        whole: dict[str, None] = {}
        for node, parameter in self.plan.parameters.items():
            if self.plan.nodes[node].kind != "parameter":
                continue
            module, _, leaf = parameter.names[0].rpartition(".")
            state = parameter.placement[self.axis]
            if state.kind != "S":
                whole[module] = None
                continue
            reason = self._reason(node, parameter.names, state)
            if reason and (leaf == "weight" or module not in refused):
                refused[module] = f"{module or 'the model'}.{leaf} {reason}"
            elif leaf == "weight" and not reason:
                split[module] = self._role(node, module, state)
        for module in refused:
            split.pop(module, None)
        others = tuple(module for module in whole if module not in split and module not in refused)
        return Roles(tuple(split.values()), others, tuple(refused.values()), tuple(self._notes(others)))

    def _reason(self, node: str, names: Sequence[str], state: State) -> str | None:
        """Why other tools cannot express a split parameter; None where they can."""
        readers = self.readers.get(node, [])
        ops = {short_op(self.plan.nodes[name].op) for name, _ in readers}
        if len(names) > 1:
            return f"is tied with {names[1]}, and a split tied weight has no style"
        if any(self.plan.strategies[name].operands[index][self.axis] != state for name, index in readers):
            return "is kept in shards and gathered for use, which is ZeRO and no tensor parallelism"
        if not ops <= {*LINEARS, "embedding"}:
            return f"is split for {', '.join(sorted(ops))}, for which there is no style"
        if "addmm" in ops:
            return "is stored as [in, out] (Conv1D), for which there is no style"
        if len(state.blocks) > 1:
            number = len(state.blocks)
            return f"is split in {number} blocks (a fused projection, or within heads), and styles cut in one piece"
        if len(set(state.blocks[0])) > 1:
            sizes = ", ".join(map(str, state.blocks[0]))
            return (
                f"has unequal shards ({sizes}), and styles cut evenly: choose a degree that divides, or use parallelize"
            )
        return None

    def _role(self, node: str, module: str, state: State) -> Role:
        reader, _ = self.readers[node][0]
        if short_op(self.plan.nodes[reader].op) == "embedding":
            return Role(module, "vocabulary" if state.dim == 0 else "features", False)
        if state.dim == 0:
            return Role(module, "column", self._ends_in_rows(reader))
        source = self.plan.nodes[reader].inputs[0]
        made = self.plan.strategies[source.node].results[source.index][self.axis]
        return Role(module, "row", made.kind == "S")

    def _ends_in_rows(self, name: str) -> bool:
        """Whether all that reads a result, however far, stays split until a row linear adds it up."""
        waiting, seen = [name], {name}
        while waiting:
            for reader, index in self.readers.get(waiting.pop(), []):
                if reader in seen:
                    continue
                seen.add(reader)
                node, strategy = self.plan.nodes[reader], self.plan.strategies[reader]
                if node.kind != "op" or strategy.choices[self.axis].kind != "cut":
                    return False
                if short_op(node.op) not in LINEARS or not self._is_row(reader, index):
                    if short_op(node.op) in ("cross_entropy_loss", "nll_loss", *LINEARS):
                        return False
                    waiting.append(reader)
        return True

    def _is_row(self, name: str, index: int) -> bool:
        weight = self.plan.strategies[name].operands[1][self.axis]
        return index == 0 and weight.kind == "S" and weight.dim == 1

    def _notes(self, whole: Sequence[str]) -> Iterator[str]:
        inside = [
            name
            for name, node in self.plan.nodes.items()
            if node.kind == "op"
            and node.module in whole
            and self.plan.strategies[name].choices[self.axis].kind == "cut"
        ]
        if inside:
            modules = list(dict.fromkeys(self.plan.nodes[name].module for name in inside))
            yield (
                f"autotp splits what {len(modules)} modules compute between these (as {modules[0]}); here every rank does "
                "it whole, so collectives are all_reduces where the plan has reduce_scatter and all_gather"
            )
        losses = [n for n, node in self.plan.nodes.items() if short_op(node.op) == "cross_entropy_loss"]
        if any(self.plan.strategies[n].operands[0][self.axis].kind == "S" for n in losses):
            yield "autotp computes the loss from split logits; here the logits are gathered first"


def wildcards(split: Sequence[Role], others: Sequence[str]) -> dict[str, Role]:
    """Roles by pattern: equal ones of numbered layers as one `*`, unless a module of another role would match too."""
    groups: dict[str, list[Role]] = {}
    for role in split:
        groups.setdefault(_shape(role.module), []).append(role)
    taken = {_shape(module) for module in others}
    found: dict[str, Role] = {}
    for shape, group in groups.items():
        if shape not in taken and len({(role.kind, role.is_parallel) for role in group}) == 1 and len(group) > 1:
            found[shape] = group[0]
        else:
            found.update({role.module: role for role in group})
    return found


def _shape(module: str) -> str:
    return re.sub(r"(?:(?<=\.)|^)\d+(?=\.|$)", "*", module)
