"""Plans that the tests of reports and commands look at, each made once."""

from functools import cache
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import autotp
from autotp.capture.model_file import load_model
from autotp.plans import Plan

ROOT = Path(__file__).parent.parent


@cache
def small_plan(name: str = "nanogpt", mesh: str = "tp=2", cluster: str = "dgx-h100", layers: int | None = None) -> Plan:
    """A plan of one of the examples, which splits all it can."""
    options = {} if layers is None else {"layers": layers}
    model = load_model(str(ROOT / "examples" / f"{name}.py"), options)
    return autotp.plan(model, mesh=mesh, cluster=cluster, objective="memory")


CONFIG = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48,
    "vocab_size": 64, "max_position_embeddings": 32, "use_cache": False,
}  # fmt: skip


def tiny_llama() -> LlamaForCausalLM:
    """The same weights every time."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**CONFIG)).eval()


def llama_ids() -> torch.Tensor:
    return torch.arange(16).reshape(2, 8) * 3 % 64


@cache
def llama_plan(mesh: str = "tp=2") -> Plan:
    """Megatron's plan of a tiny Llama."""
    inputs = {"input_ids": llama_ids()}
    return autotp.plan(tiny_llama(), inputs, mesh=mesh, cluster="dgx-h100", strategy="megatron")
