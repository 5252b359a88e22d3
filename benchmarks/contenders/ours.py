"""autotp's module: one capture and plan for the forward alone, one for training."""

import torch.distributed as dist
from judge import OURS_MEGATRON, OURS_OPTIMAL
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from autotp import api, plan_file
from contenders.model import Contender, Llama


def ours(model: Llama, device_mesh: DeviceMesh, ids: Tensor, strategy: str) -> Contender:
    """The plan of a strategy for inputs shaped like `ids`, and whole inputs and outputs on every rank."""
    modules = {}
    for mode, inputs in (("infer", {"input_ids": ids}), ("train", {"input_ids": ids, "labels": ids})):
        text = [None]
        if dist.get_rank() == 0:
            plan = api.plan(model, inputs, mesh=dist.get_world_size(), cluster="cpu", mode=mode, strategy=strategy)
            text = [plan_file.dumps(plan)]
        dist.broadcast_object_list(text, src=0)
        modules[mode] = api.parallelize(model, plan_file.loads(text[0]), device_mesh)
    infer, train = modules["infer"], modules["train"]
    name = {"megatron": OURS_MEGATRON, "optimal": OURS_OPTIMAL}[strategy]
    return Contender(
        name, lambda ids: infer(input_ids=ids), lambda ids, labels: train(input_ids=ids, labels=labels), train
    )
