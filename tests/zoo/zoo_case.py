"""What a model of the zoo is, and the inputs that many of them share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

VOCAB, WIDTH, HEADS, HIDDEN, LAYERS = 128, 64, 8, 128, 2
BATCH, SEQ = 4, 16

# Of the matmul FLOPs, the least part that must be split.
TRANSFORMER, EXPERTS, CONVOLUTION, OTHER = "transformer", "experts", "convolution", "other"
MIN_SPLIT = {TRANSFORMER: 0.95, EXPERTS: 0.95, CONVOLUTION: 0.95, OTHER: 0.90}


@dataclass(frozen=True)
class Case:
    """A small model with random weights and its inputs; both functions are importable, so that processes can call them.

    `dtype`: models are compared in float64, where rounding hides nothing, unless an operator of theirs has no such form.
    """

    name: str
    kind: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, Any] | tuple[Any, ...]]
    dtype: torch.dtype = torch.float64


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def floats(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator())


def integers(high: int, *shape: int) -> Tensor:
    return torch.randint(high, shape, generator=generator())


def padding(batch: int = BATCH, seq: int = SEQ) -> Tensor:
    """An attention mask, 1 where a token is: sequences of different lengths, the first one full."""
    lengths = torch.tensor([seq - 3 * (i % 4) for i in range(batch)])
    return (torch.arange(seq) < lengths[:, None]).long()


def labelled_tokens() -> dict[str, Tensor]:
    """Full sequences, trained to predict themselves."""
    ids = integers(VOCAB, BATCH, SEQ)
    return {"input_ids": ids, "labels": ids.clone()}


def padded_tokens() -> dict[str, Tensor]:
    """Sequences of different lengths: a mask, and labels that leave the padding out."""
    ids, mask = integers(VOCAB, BATCH, SEQ), padding()
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def classified_tokens() -> dict[str, Tensor]:
    """Padded sequences with one label each."""
    return {"input_ids": integers(VOCAB, BATCH, SEQ), "attention_mask": padding(), "labels": integers(2, BATCH)}
