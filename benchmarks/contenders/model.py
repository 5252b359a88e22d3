"""The model that every contender runs, and what a contender is."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig, LlamaForCausalLM


@dataclass(frozen=True)
class Size:
    """Dimensions of the Llama under test; the defaults are the benchmark's."""

    hidden: int = 512
    layers: int = 8
    heads: int = 8
    kv_heads: int = 4
    ffn: int = 1408
    vocabulary: int = 8192

    def config(self) -> LlamaConfig:
        return LlamaConfig(
            hidden_size=self.hidden, num_hidden_layers=self.layers, num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads, intermediate_size=self.ffn, vocab_size=self.vocabulary,
            max_position_embeddings=512, use_cache=False, attn_implementation="sdpa",
        )  # fmt: skip


class Llama(LlamaForCausalLM):
    """Returns the loss alone where labels are given, else the logits alone."""

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Tensor:
        result = super().forward(input_ids=input_ids, labels=labels)
        return result.logits if labels is None else result.loss


def build(size: Size) -> Llama:
    """The whole model in float32, with the same weights on every rank."""
    torch.manual_seed(0)
    return Llama(size.config())


@dataclass(frozen=True)
class Contender:
    """`logits(ids)` and `loss(ids, labels)`, whole on every rank; `module` holds the gradients of the loss."""

    name: str
    logits: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    module: nn.Module

    def norm_gradients(self) -> list[Tensor]:
        """Gradients of the norms' weights, from the first layer to the last: nobody splits these."""
        gradients = [p.grad for name, p in self.module.named_parameters() if "norm" in name]
        return [g.full_tensor() if isinstance(g, DTensor) else g for g in gradients if g is not None]


def whole(name: str, model: nn.Module) -> Contender:
    """A model with the signature of `Llama`."""
    return Contender(
        name, lambda ids: model(input_ids=ids), lambda ids, labels: model(input_ids=ids, labels=labels), model
    )
