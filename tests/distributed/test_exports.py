"""Exports in the libraries that they are for: on two ranks the model computes what it computes whole."""

import json
import warnings
from fnmatch import fnmatchcase
from typing import Any

import pytest
import torch
from report_plans import llama_ids, llama_plan, tiny_llama
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from transformers.distributed.tensor_parallel import apply_tensor_parallelism

from autotp.interchange.targets import export
from autotp.runtime.spawn import run_processes

NUM_RANKS = 2

pytestmark = pytest.mark.distributed


def difference(model: torch.nn.Module) -> float:
    with torch.no_grad():
        found, expected = model(llama_ids()).logits, tiny_llama()(llama_ids()).logits
    return float((found - expected).abs().max() / expected.abs().max())


def run_both(rank: int, python: str, tp_plan: str) -> list[tuple[float, tuple[int, ...]]]:
    """Error and a shard's shape of the model under `parallelize_module`, and under transformers' own layers."""
    warnings.simplefilter("ignore")
    names: dict[str, Any] = {}
    exec(compile(python, "exported.py", "exec"), names)
    device_mesh = init_device_mesh("cpu", (NUM_RANKS,), mesh_dim_names=("tp",))
    return [looked_at(names["parallelize"](tiny_llama(), device_mesh)), looked_at(hugging_face(device_mesh, tp_plan))]


def looked_at(model: torch.nn.Module) -> tuple[float, tuple[int, ...]]:
    return difference(model), tuple(model.get_parameter("model.layers.1.mlp.down_proj.weight").to_local().shape)


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


def test_exported_plans_reproduce_llama() -> None:
    plan = llama_plan()
    texts = export(plan, "dtensor"), export(plan, "transformers")
    for found in run_processes(run_both, NUM_RANKS, texts, timeout_s=250):
        for error, shape in found:
            assert error < 1e-5
            assert shape == (32, 24)
