"""Train a small Llama, split over the ranks of torchrun; without torchrun, whole in one process.

    torchrun --nproc-per-node 2 examples/train.py
    python examples/train.py

Both print the same losses. The data is made up: every token follows from the one before it.
"""

import argparse
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from llama import build_model, example_inputs
from torch import Tensor, nn

import autotp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--max-norm", type=float, default=1.0, help="gradients are clipped to this norm")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the losses to a JSON file")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    model = build_model(size="tiny").train()
    num_elements = count(model)
    is_split = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if is_split:
        # A model this small runs fastest unsplit: ask for least memory, so that there is something to see.
        model = autotp.auto_shard(model, example_inputs(size="tiny"), cluster="cpu", objective="memory")
        clip = model.clip_grad_norm_  # torch's own would take the norm of this rank's shards alone
    else:
        clip = partial(nn.utils.clip_grad_norm_, list(model.parameters()))
    losses = train(model, arguments.steps, arguments.learning_rate, partial(clip, max_norm=arguments.max_norm))
    if not is_split or dist.get_rank() == 0:
        print(f"{count(model)} of {num_elements} parameters in this process")
        for step, loss in enumerate(losses):
            print(f"step {step:3d}  loss {loss:.6f}")
        if arguments.write:
            arguments.write.write_text(json.dumps(losses))
    if is_split:
        dist.destroy_process_group()


def train(model: nn.Module, steps: int, learning_rate: float, clip: Callable[[], Tensor]) -> list[float]:
    """The loss of every step: the same code for a whole and for a split model."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(steps):
        ids = batch(generator)
        loss = model(input_ids=ids, labels=ids)
        loss.backward()
        clip()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def batch(generator: torch.Generator) -> Tensor:
    """Sequences of the shape the model is captured with, each token five times the one before plus three."""
    like = example_inputs(size="tiny")["input_ids"]
    tokens = [torch.randint(512, like.shape[:1], generator=generator)]
    while len(tokens) < like.shape[1]:
        tokens.append((5 * tokens[-1] + 3) % 512)
    return torch.stack(tokens, dim=1)


if __name__ == "__main__":
    main()
