"""GPT-2 from transformers, by size: tiny (runs anywhere), small, xl (as published), 175b (the dimensions of GPT-3)."""

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

SIZES = {
    "tiny": {
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 8,
        "n_positions": 64,
        "vocab_size": 512,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
    "small": {"n_embd": 768, "n_layer": 12, "n_head": 12},
    "xl": {"n_embd": 1600, "n_layer": 48, "n_head": 25},
    "175b": {"n_embd": 12288, "n_layer": 96, "n_head": 96, "n_positions": 2048},
}


class LossOnlyGPT2ForCausalLM(GPT2LMHeadModel):
    """GPT2LMHeadModel whose forward returns the loss alone where labels are given."""

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> object:
        result = super().forward(input_ids=input_ids, labels=labels)
        return result if labels is None else result.loss


def config(size: str = "tiny", layers: int | None = None, dropout: float = 0.0) -> GPT2Config:
    if size not in SIZES:
        raise ValueError(f"size={size!r} is not one of {', '.join(SIZES)}")
    changes = {"n_layer": layers} if layers else {}
    dropouts = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    return GPT2Config(**{**SIZES[size], **changes, **dropouts}, use_cache=False)


def build_model(size: str = "tiny", layers: int | None = None, dropout: float = 0.0) -> nn.Module:
    default = torch.get_default_dtype()
    torch.set_default_dtype(default if size == "tiny" else torch.bfloat16)
    try:
        return LossOnlyGPT2ForCausalLM(config(size, layers, dropout))
    finally:
        torch.set_default_dtype(default)


def example_inputs(size: str = "tiny", batch: int | None = None, seq: int | None = None) -> dict[str, Tensor]:
    dims = config(size)
    shape = (batch or (4 if size == "tiny" else 2), seq or (32 if size == "tiny" else min(2048, dims.n_positions)))
    ids = torch.randint(dims.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "labels": ids.clone()}
