"""Tensor parallelism as PyTorch and transformers offer it today, both on DTensor."""

import copy
from pathlib import Path

from judge import DTENSOR, TRANSFORMERS
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from transformers.distributed.configuration_utils import DistributedConfig

from contenders.model import Contender, Llama, whole


def dtensor(model: Llama, device_mesh: DeviceMesh) -> Contender:
    """`parallelize_module` with the plan of PyTorch's tutorial, without its sequence-parallel variation."""
    layers = {
        name: style
        for i in range(model.config.num_hidden_layers)
        for name, style in (
            *((f"model.layers.{i}.self_attn.{linear}_proj", ColwiseParallel()) for linear in "qkv"),
            (f"model.layers.{i}.self_attn.o_proj", RowwiseParallel()),
            *((f"model.layers.{i}.mlp.{linear}_proj", ColwiseParallel()) for linear in ("gate", "up")),
            (f"model.layers.{i}.mlp.down_proj", RowwiseParallel()),
        )
    }
    ends = {
        "model.embed_tokens": RowwiseParallel(input_layouts=Replicate()),
        "lm_head": ColwiseParallel(output_layouts=Replicate()),
    }
    return whole(DTENSOR, parallelize_module(copy.deepcopy(model), device_mesh, {**ends, **layers}))


def hugging_face(checkpoint: Path, num_ranks: int) -> Contender:
    """transformers' own plan for Llama, which it applies while it loads a checkpoint."""
    config = DistributedConfig(tp_size=num_ranks, tp_plan="auto")
    return whole(TRANSFORMERS, Llama.from_pretrained(checkpoint, distributed_config=config).train())
