"""Rules and local operators broken on purpose, one at a time: the execution check must find every one.

A mutation replaces a piece of a file's text; the tables made from the changed text stand in for the true ones while its
samples are checked. Nothing on disk changes.
"""

import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rules_samples import SAMPLES
from samples_of_reductions import SAMPLES as OF_REDUCTIONS

from autotp.check.rule import check_sample
from autotp.errors import VerificationError
from autotp.graph import Node
from autotp.rewrite import arguments, constants
from autotp.rules import registry
from autotp.runtime import local_ops

ROOT = Path(__file__).parents[2] / "autotp"


@dataclass(frozen=True)
class Mutation:
    """`old` must occur once in the file (below autotp/). `op`: the operator whose samples must fail."""

    name: str
    file: str
    old: str
    new: str
    op: str


MUTATIONS = [
    Mutation(
        "softmax may be cut where it normalises",
        "rules/normalise.py",
        'whole=[f"d{call.dim()}"])\n\n\ndef layer',
        "whole=[])\n\n\ndef layer",
        "softmax",
    ),
    Mutation(
        "layer_norm may be cut where it normalises",
        "rules/normalise.py",
        'bias[{n}] -> [... {n}]", whole=n)\n\n\ndef group',
        'bias[{n}] -> [... {n}]")\n\n\ndef group',
        "layer_norm",
    ),
    Mutation(
        "queries of causal attention may be cut",
        "rules/attention.py",
        '" q" * causal',
        '""',
        "scaled_dot_product_attention",
    ),
    Mutation(
        "keys of attention may be cut", "rules/attention.py", 'whole="k d"', 'whole="d"', "scaled_dot_product_attention"
    ),
    Mutation(
        "space of pooling may be cut", "rules/convolution.py", 'whole=f"{before} {after}"', "whole=before", "max_pool2d"
    ),
    Mutation(
        "an indexed dim may be cut",
        "rules/indexing.py",
        'whole=[f"d{dim}"], linear=[frozenset((0,))])\n\n\ndef gather',
        "linear=[frozenset((0,))])\n\n\ndef gather",
        "index_select",
    ),
    Mutation(
        "a linear's bias is added on every rank",
        "rules/matmul.py",
        'text, summed="k", additive="bias", linear',
        'text, summed="k", linear',
        "linear",
    ),
    Mutation(
        "a matrix product forgets to sum",
        "rules/matmul.py",
        'mat2[k n] -> [m n]", summed="k", linear=("self", "mat2"), work=(2.0, "m n k"))',
        'mat2[k n] -> [m n]", linear=("self", "mat2"), work=(2.0, "m n k"))',
        "mm",
    ),
    Mutation(
        "a literal term is added to partial sums on every rank",
        "rules/pointwise.py",
        "if other is not None and len(call.specs) == 2 else []",
        "if other is not None else [frozenset((0,))]",
        "add",
    ),
    Mutation("partial sums pass through a rounding", "rules/pointwise.py", "and not rounds else []", "else []", "div"),
    Mutation(
        "the vocabulary's offset is forgotten",
        "runtime/local_ops_embedding.py",
        "indices - start + offset",
        "indices",
        "embedding",
    ),
    Mutation(
        "rows of other ranks are not masked",
        "runtime/local_ops_embedding.py",
        "found.masked_fill(~is_held.unsqueeze(-1), 0.0)",
        "found",
        "embedding",
    ),
    Mutation(
        "padding keeps its place in the whole vocabulary",
        "runtime/local_ops_embedding.py",
        "padding = padding_idx - start + offset",
        "padding = padding_idx",
        "embedding",
    ),
    Mutation(
        "a mean divides by the local count",
        "runtime/local_ops_loss.py",
        "x.sum(dims, keepdim, dtype=wide) / self.count",
        "x.mean(dims, keepdim, dtype=wide)",
        "mean",
    ),
    Mutation(
        "a mean loss divides by the count of one rank",
        "runtime/local_ops_loss.py",
        'return total / self.count\n\n    def extra_repr(self) -> str:\n        return f"{self.op}',
        'return total / args[0].numel()\n\n    def extra_repr(self) -> str:\n        return f"{self.op}',
        "mse_loss",
    ),
    Mutation(
        "ignored targets count",
        "runtime/local_ops_loss.py",
        "return is_used.sum().to(like.dtype)",
        "return torch.ones_like(is_used).sum().to(like.dtype)",
        "cross_entropy_loss",
    ),
    Mutation(
        "the largest logit is that of one rank",
        "runtime/local_ops_loss.py",
        'all_reduce(torch.cat([wide, low], -1).amax(-1), op._communicators, op.class_axes, "max")',
        "torch.cat([wide, low], -1).amax(-1)",
        "cross_entropy_loss",
    ),
    Mutation(
        "statistics of a batch are those of one rank",
        "runtime/local_ops_norm.py",
        "total = all_reduce(local, ctx.op._communicators, ctx.op.axes) / ctx.op.count",
        "total = local / ctx.op.count",
        "batch_norm",
    ),
    Mutation(
        "ranks draw the same for different parts",
        "rewrite/constants.py",
        '"coordinates": tuple(cut)}, ()',
        '"coordinates": ()}, ()',
        "dropout",
    ),
    Mutation(
        "ranks draw differently for the same part",
        "rewrite/constants.py",
        '"coordinates": tuple(cut)}, ()',
        '"coordinates": share.coordinates}, ()',
        "dropout",
    ),
    Mutation(
        "groups of a convolution are those of all ranks",
        "rules/convolution.py",
        'local_sizes={"groups": "g"},\n        work=(2.0, f"n g o c {space} *t")',
        'work=(2.0, f"n g o c {space} *t")',
        "conv2d",
    ),
    Mutation(
        "a view keeps the sizes of the whole",
        "rewrite/arguments.py",
        '(*RESHAPES, "reshape"), _result_shape("shape")',
        '("none",), _result_shape("shape")',
        "view",
    ),
    Mutation(
        "parts of a concatenation are cut alone",
        "rules/parts.py",
        "joined, whole = Concat(parts), []",
        'joined, whole = ("joined",), []',
        "split_with_sizes",
    ),
    Mutation(
        "ties on other ranks do not share the gradient",
        "runtime/local_ops_reduce.py",
        "count = op.over_ranks(is_best.sum(op.dims, True).to(gradient.dtype))",
        "count = is_best.sum(op.dims, True).to(gradient.dtype).clamp(min=1)",
        "amax",
    ),
    Mutation(
        "a part without NaN hides that of another",
        "runtime/local_ops_reduce.py",
        "value.masked_fill(num_nan > 0, torch.nan)",
        "value.masked_fill(is_nan.any(), torch.nan)",
        "max",
    ),
    Mutation(
        "places are those in the part",
        "runtime/local_ops_reduce.py",
        "torch.arange(start, start + length, device=x.device)",
        "torch.arange(length, device=x.device)",
        "argmax",
    ),
    Mutation(
        "the mean is that of one rank",
        "runtime/local_ops_reduce.py",
        "mean = op.over_ranks(wide.sum(op.dims, True)) / op.count",
        "mean = wide.mean(op.dims, True)",
        "var",
    ),
    Mutation(
        "the gradient of a norm of zero is not a number",
        "runtime/local_ops_reduce.py",
        "/ norm).masked_fill(norm == 0, 0.0)",
        "/ norm)",
        "linalg_vector_norm",
    ),
    Mutation(
        "a least is a largest",
        "runtime/local_ops_reduce.py",
        'in ("amin", "min", "argmin")',
        'in ("amin", "min")',
        "argmin",
    ),
]


@contextmanager
def broken(mutation: Mutation) -> Iterator[None]:
    """The tables of rules and local operators, with one file changed."""
    path = ROOT / mutation.file
    text = path.read_text()
    assert text.count(mutation.old) == 1, f"{mutation.name}: not once in {mutation.file}: {mutation.old!r}"
    module = types.ModuleType(f"broken_{path.stem}")
    exec(compile(text.replace(mutation.old, mutation.new), str(path), "exec"), module.__dict__)
    tables: list[tuple[dict[str, Any], dict[str, Any]]] = []
    if mutation.file.startswith("rules/"):
        tables.append((registry.TABLE, module.RULES))
    elif mutation.file.startswith("runtime/"):
        found = {name: getattr(module, op.__name__, op) for name, op in local_ops.LOCAL_OPERATORS.items()}
        tables.append((local_ops.LOCAL_OPERATORS, found))
    elif path.stem == "constants":
        tables.append((constants.LOCAL, module.LOCAL))
    else:
        tables.append((arguments.ARGUMENTS, module.ARGUMENTS))
    (table, changed), *_ = tables
    with patch.dict(table, changed, clear=mutation.file.startswith("rewrite/")):
        yield


def survives(mutation: Mutation) -> bool:
    """Whether every sample of the operator passes although it is broken."""
    samples = [sample for sample in (*SAMPLES, *OF_REDUCTIONS) if Node("", "op", sample.op).short_op == mutation.op]
    assert samples, f"{mutation.name}: no samples of {mutation.op}"
    with broken(mutation):
        for sample in samples:
            torch.manual_seed(0)
            try:
                check_sample(sample)
            except VerificationError:
                return False
    return True
