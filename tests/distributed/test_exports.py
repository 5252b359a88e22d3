"""Exports in the libraries that they are for: on two ranks the model computes what it computes whole."""

import json
import warnings
from fnmatch import fnmatchcase
from typing import Any

import pytest
import torch
from megatron_layers import apply_notes
from report_plans import llama_ids, llama_plan, tiny_llama
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from transformers.distributed.tensor_parallel import apply_tensor_parallelism

from autotp.interchange.targets import export
from autotp.runtime.spawn import run_processes

NUM_RANKS = 2

pytestmark = pytest.mark.distributed


def difference(model: torch.nn.Module) -> float:
    with torch.no_grad():
        found, expected = model(llama_ids()).logits, tiny_llama()(llama_ids()).logits
    return float((found - expected).abs().max() / expected.abs().max())


def run_all(rank: int, python: str, tp_plan: str, notes: str) -> list[tuple[float, tuple[int, ...]]]:
    """Error and a shard's shape under `parallelize_module`, transformers' own layers, and Megatron's written by hand."""
    warnings.simplefilter("ignore")
    names: dict[str, Any] = {}
    exec(compile(python, "exported.py", "exec"), names)
    device_mesh = init_device_mesh("cpu", (NUM_RANKS,), mesh_dim_names=("tp",))
    models = (names["parallelize"](tiny_llama(), device_mesh), hugging_face(device_mesh, tp_plan), by_hand(notes))
    return [looked_at(model) for model in models]


def looked_at(model: torch.nn.Module) -> tuple[float, tuple[int, ...]]:
    weight = model.get_parameter("model.layers.1.mlp.down_proj.weight")
    return difference(model), tuple((weight.to_local() if isinstance(weight, DTensor) else weight).shape)


def hugging_face(device_mesh: DeviceMesh, tp_plan: str) -> torch.nn.Module:
    """What from_pretrained does with a tp_plan, without a checkpoint."""
    model, styles = tiny_llama(), json.loads(tp_plan)["tp_plan"]
    found = {}
    for name, module in model.named_modules():
        for pattern, style in styles.items():
            if fnmatchcase(name, pattern):
                found[name] = style
                found.update({f"{name}.{leaf}": style for leaf, _ in module.named_parameters(recurse=False)})
    return apply_tensor_parallelism(model, device_mesh, found)


def by_hand(notes: str) -> torch.nn.Module:
    """What a table for Megatron-LM says, in plain torch: the library itself is not run."""
    model = tiny_llama()
    replaced = apply_notes(model, notes)
    assert {"lm_head", "model.embed_tokens", "model.layers.0.self_attn.q_proj"} <= set(replaced)
    return model


def test_exported_plans_reproduce_llama() -> None:
    plan = llama_plan()
    texts = export(plan, "dtensor"), export(plan, "transformers"), export(plan, "megatron-notes")
    for found in run_processes(run_all, NUM_RANKS, texts, timeout_s=250):
        for error, shape in found:
            assert error < 1e-5
            assert shape == (32, 24)
