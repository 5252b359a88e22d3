"""Plans as other tools read them: PyTorch's `parallelize_module`, transformers' `tp_plan`, notes for Megatron-LM."""

import json
from collections.abc import Callable, Sequence

from autotp.errors import PlanError
from autotp.interchange.graphs import graphviz, node_link
from autotp.interchange.roles import Role, Roles, roles, wildcards
from autotp.plans import Plan
from autotp.report.answer import model_name

DTENSOR = {
    ("column", True): "ColwiseParallel()",
    ("column", False): "ColwiseParallel(output_layouts=Replicate())",
    ("row", True): "RowwiseParallel()",
    ("row", False): "RowwiseParallel(input_layouts=Replicate())",
    ("vocabulary", False): "RowwiseParallel(input_layouts=Replicate())",
    ("features", False): "ColwiseParallel(output_layouts=Replicate())",
}
TRANSFORMERS = {
    ("column", True): "colwise",
    ("column", False): "colwise_gather_output",
    ("row", True): "rowwise",
    ("row", False): "rowwise_split_input",
    ("vocabulary", False): "embedding_rowwise",
    ("features", False): "embedding_colwise",
}
MEGATRON = {
    ("column", True): ("ColumnParallelLinear", "gather_output=False"),
    ("column", False): ("ColumnParallelLinear", "gather_output=True"),
    ("row", True): ("RowParallelLinear", "input_is_parallel=True"),
    ("row", False): ("RowParallelLinear", "input_is_parallel=False"),
    ("vocabulary", False): ("VocabParallelEmbedding", ""),
}


def export(plan: Plan, target: str, *, partial: bool = False) -> str:
    """The text of a file for one of `TARGETS`.

    Raises PlanError where the target cannot express the plan, with the reason for every module; with `partial` these
    modules stay whole, and the file says so.
    """
    if target not in TARGETS:
        raise PlanError(f"there is no target {target!r}: choose one of {', '.join(TARGETS)}")
    return TARGETS[target](plan, partial)


def _expressible(plan: Plan, target: str, partial: bool, known: Sequence[tuple[str, bool]]) -> Roles:
    found = roles(plan)
    strange = [role for role in found.split if (role.kind, role.is_parallel) not in known]
    refused = [
        *found.refused,
        *(f"{role.module} is split by {role.kind}, which {target} does not have" for role in strange),
    ]
    if refused and not partial:
        more = f" (and {len(refused) - 3} more)" if len(refused) > 3 else ""
        raise PlanError(
            f"{target} cannot express this plan: {'; '.join(refused[:3])}{more}. --partial leaves these whole on every rank"
        )
    split = tuple(role for role in found.split if role not in strange)
    whole = (*found.whole, *(role.module for role in strange))
    notes = (*found.notes, *(f"left whole: {sentence}" for sentence in refused))
    return Roles(split, whole, tuple(refused), notes)


def _head(plan: Plan, found: Roles) -> list[str]:
    return [f"Made by autotp for {model_name(plan)}, mesh {plan.mesh}.", *(f"Note: {note}." for note in found.notes)]


def _dtensor(plan: Plan, partial: bool) -> str:
    found = _expressible(plan, "dtensor", partial, list(DTENSOR))
    rows = [f'    "{name}": {DTENSOR[_key(role)]},' for name, role in wildcards(found.split, found.whole).items()]
    return "\n".join(
        [
            '"""Tensor parallelism by PyTorch\'s parallelize_module.', "", *_head(plan, found), '"""', "",
            "from torch import nn",
            "from torch.distributed.device_mesh import DeviceMesh",
            "from torch.distributed.tensor import Replicate  # noqa: F401",
            "from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module",
            "", "PLAN = {", *rows, "}", "", "",
            "def parallelize(model: nn.Module, device_mesh: DeviceMesh) -> nn.Module:",
            f'    """Split `model` in place over a device mesh of one dimension with {plan.mesh.num_ranks} ranks."""',
            "    return parallelize_module(model, device_mesh, PLAN)", "",
        ]
    )  # fmt: skip


def _transformers(plan: Plan, partial: bool) -> str:
    found = _expressible(plan, "transformers", partial, list(TRANSFORMERS))
    plan_rows = {name: TRANSFORMERS[_key(role)] for name, role in wildcards(found.split, found.whole).items()}
    # transformers adds what a plan leaves out from its own plan for the model: what is whole must be said
    whole = {role.module: role for role in (Role(module, "whole", False) for module in found.whole) if role.module}
    rest = wildcards(tuple(whole.values()), [role.module for role in found.split])
    rows = {**plan_rows, **dict.fromkeys(rest, "replicate")}
    return json.dumps({"tp_plan": rows, "tp_size": plan.mesh.num_ranks, "notes": _head(plan, found)}, indent=2) + "\n"


def _megatron(plan: Plan, partial: bool) -> str:
    found = _expressible(plan, "megatron-notes", partial, list(MEGATRON))
    rows = [(name, *MEGATRON[_key(role)]) for name, role in wildcards(found.split, found.whole).items()]
    table = [f"| `{name}` | {kind} | {f'`{how}`' if how else ''} |" for name, kind, how in rows]
    return "\n".join(
        [
            f"# {model_name(plan)} in Megatron-LM", "", f"`--tensor-model-parallel-size {plan.mesh.num_ranks}`", "",
            *(f"- {line}" for line in _head(plan, found)), "",
            "| module | class | arguments |", "|---|---|---|", *table, "",
        ]
    )  # fmt: skip


def _key(role: Role) -> tuple[str, bool]:
    return role.kind, role.is_parallel


TARGETS: dict[str, Callable[[Plan, bool], str]] = {
    "dtensor": _dtensor,
    "transformers": _transformers,
    "megatron-notes": _megatron,
    "networkx": lambda plan, _: node_link(plan),
    "graphviz": lambda plan, _: graphviz(plan),
}
