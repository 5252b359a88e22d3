"""Llama 3 from transformers, by size: tiny (runs anywhere), 8b, 70b, 405b (dimensions of the published models)."""

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

SIZES = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4,
             "intermediate_size": 176, "vocab_size": 512, "max_position_embeddings": 128},
    "8b": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
           "intermediate_size": 14336},
    "70b": {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
            "intermediate_size": 28672},
    "405b": {"hidden_size": 16384, "num_hidden_layers": 126, "num_attention_heads": 128, "num_key_value_heads": 8,
             "intermediate_size": 53248},
}  # fmt: skip


class LossOnlyLlamaForCausalLM(LlamaForCausalLM):
    """LlamaForCausalLM whose forward returns the loss alone where labels are given."""

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> object:
        result = super().forward(input_ids=input_ids, labels=labels)
        return result if labels is None else result.loss


def config(size: str = "tiny", layers: int | None = None) -> LlamaConfig:
    if size not in SIZES:
        raise ValueError(f"size={size!r} is not one of {', '.join(SIZES)}")
    large = {
        "vocab_size": 128256,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    }
    changes = {"num_hidden_layers": layers} if layers else {}
    return LlamaConfig(**{**(large if size != "tiny" else {}), **SIZES[size], **changes}, use_cache=False)


def build_model(size: str = "tiny", layers: int | None = None) -> nn.Module:
    default = torch.get_default_dtype()
    torch.set_default_dtype(default if size == "tiny" else torch.bfloat16)
    try:
        return LossOnlyLlamaForCausalLM(config(size, layers))
    finally:
        torch.set_default_dtype(default)


def example_inputs(size: str = "tiny", batch: int | None = None, seq: int | None = None) -> dict[str, Tensor]:
    vocab = config(size).vocab_size
    shape = (batch or (4 if size == "tiny" else 2), seq or (32 if size == "tiny" else 2048))
    ids = torch.randint(vocab, shape, generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "labels": ids.clone()}
