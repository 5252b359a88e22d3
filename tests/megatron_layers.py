"""Megatron-LM's parallel layers as its notes describe them, in plain torch: what a table of `export` is executed with.

The library itself is not installed here, so these follow its documented meaning: a column layer holds output features and
gathers them or leaves them split, a row layer holds input features and adds up its results, a vocabulary layer looks up the
ids it holds. Forward only.
"""

import re

import torch
import torch.distributed as dist
from torch import Tensor, nn

ROW = re.compile(
    r"^\| `(?P<module>[^`]+)` \| (?P<kind>\w+) \| (?:`(?P<name>\w+)=(?P<value>True|False)`)? ?\|$", re.MULTILINE
)


def mine(whole: Tensor, dim: int) -> Tensor:
    """This rank's part of a tensor in equal parts."""
    return whole.detach().chunk(dist.get_world_size(), dim)[dist.get_rank()].clone()


class ColumnParallelLinear(nn.Module):
    def __init__(self, whole: nn.Linear, *, gather_output: bool) -> None:
        super().__init__()
        self.weight, self.gather_output = nn.Parameter(mine(whole.weight, 0)), gather_output
        self.bias = None if whole.bias is None else nn.Parameter(mine(whole.bias, 0))

    def forward(self, x: Tensor) -> Tensor:
        part = nn.functional.linear(x, self.weight, self.bias)
        if not self.gather_output:
            return part
        parts = [torch.empty_like(part) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts, -1)


class RowParallelLinear(nn.Module):
    def __init__(self, whole: nn.Linear, *, input_is_parallel: bool) -> None:
        super().__init__()
        self.weight, self.input_is_parallel = nn.Parameter(mine(whole.weight, 1)), input_is_parallel
        self.bias = whole.bias

    def forward(self, x: Tensor) -> Tensor:
        total = nn.functional.linear(x if self.input_is_parallel else mine(x, -1), self.weight)
        dist.all_reduce(total)
        return total if self.bias is None else total + self.bias


class VocabParallelEmbedding(nn.Module):
    def __init__(self, whole: nn.Embedding) -> None:
        super().__init__()
        self.weight = nn.Parameter(mine(whole.weight, 0))

    def forward(self, ids: Tensor) -> Tensor:
        local = ids - dist.get_rank() * len(self.weight)
        held = (local >= 0) & (local < len(self.weight))
        found = nn.functional.embedding(torch.where(held, local, 0), self.weight) * held[..., None]
        dist.all_reduce(found)
        return found


CLASSES = {cls.__name__: cls for cls in (ColumnParallelLinear, RowParallelLinear, VocabParallelEmbedding)}


def apply_notes(model: nn.Module, notes: str) -> list[str]:
    """Replace every module that a table names, as it says; the names of those replaced."""
    size = re.search(r"`--tensor-model-parallel-size (\d+)`", notes)
    assert size is not None and int(size[1]) == dist.get_world_size()
    rows = list(ROW.finditer(notes))
    assert len(rows) == notes.count("\n| `"), "a row that is not understood"
    replaced = []
    for row in rows:
        pattern = re.compile(re.escape(row["module"]).replace(r"\*", r"\d+"))
        found = [name for name, _ in model.named_modules() if pattern.fullmatch(name)]
        assert found, f"no module is called {row['module']}"
        options = {row["name"]: row["value"] == "True"} if row["name"] else {}
        for name in found:
            model.set_submodule(name, CLASSES[row["kind"]](model.get_submodule(name), **options))
        replaced += found
    return replaced
