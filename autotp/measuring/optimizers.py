"""Seconds of an optimizer's step, as the cost model prices it: per element that a rank holds."""

import torch

from autotp.measuring.clock import seconds_of

MAKERS = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def optimizer_s(name: str, dtype: str, num_tensors: int, numel: int, *, device: torch.device, least_s: float) -> float:
    """Seconds of one step over so many parameters of so many elements each."""
    parameters = [
        torch.nn.Parameter(torch.ones(numel, dtype=getattr(torch, dtype), device=device)) for _ in range(num_tensors)
    ]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    return seconds_of(MAKERS[name](parameters, lr=1e-3).step, device, least_s)
