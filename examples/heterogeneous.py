"""Unlike devices: a plan whose shards follow what each can do, and training that moves shards off a rank that slows down.

    python examples/heterogeneous.py                               # plans for unlike GPUs; nothing runs on them
    torchrun --nproc-per-node 2 examples/heterogeneous.py          # trains on two CPU processes, the second one slowed

The second prints the same losses with and without `--slow 0`: moving shards changes no number.
"""

import argparse
import os
import time
import warnings

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

import autotp
from autotp.rebalancing import Rebalancer

WIDTH, HIDDEN, BATCH = 256, 1024, 256
HETEROGENEOUS = "pcie-2xa100-2xrtx4090"


class Regression(nn.Module):
    """A network that learns to reverse its input."""

    def __init__(self, width: int = WIDTH, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return nn.functional.mse_loss(self.down(nn.functional.gelu(self.up(x))), target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument(
        "--slow", type=float, default=0.1, help="seconds by which rank 1 would be slower in a step of the whole model"
    )
    arguments = parser.parse_args()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        train(arguments.steps, arguments.slow)
    else:
        show_plans()


def show_plans() -> None:
    x = torch.zeros(8192, 4096, dtype=torch.bfloat16, device="meta")
    model = Regression(4096, 16384).to(torch.bfloat16)
    plan = autotp.plan(model, (torch.zeros_like(x, device="cpu"),) * 2, mesh="tp=4", cluster=HETEROGENEOUS)
    balance, predicted = plan.summary["balance"], plan.summary["predicted"]
    print(f"{HETEROGENEOUS}: {', '.join(plan.cluster['devices'])}")
    print(f"shares of the ranks       {balance['shares']['tp']}")
    print(f"a step                    {predicted['step_s'] * 1e3:.1f} ms")
    print(f"with even shares          {balance['even_step_s'] * 1e3:.1f} ms")
    print(f"no shares are faster than {balance['bound_s'] * 1e3:.1f} ms")


def train(steps: int, slow_s: float) -> None:
    dist.init_process_group("gloo")
    if dist.get_rank():
        warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, size = Regression(), dist.get_world_size()
    x = torch.randn(BATCH, WIDTH, generator=torch.Generator().manual_seed(1))
    inputs = {"x": x, "target": x.flip(1)}
    plan = autotp.plan(model, inputs, mesh=size, cluster="cpu")  # deterministic: the same on every rank
    module = autotp.parallelize(model, plan, init_device_mesh("cpu", (size,), mesh_dim_names=("tp",)))
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    num_elements = sum(p.numel() for p in model.parameters())
    balancer = Rebalancer(module, optimizer, plan, every=10)
    for number in range(steps):
        loss = module(**inputs)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if dist.get_rank() == 1:
            time.sleep(slow_s * sum(p.numel() for p in module.parameters()) / num_elements)  # for its part of the work
        event = balancer.step()
        if dist.get_rank() == 0:
            if number % 10 == 0:
                print(f"step {number:3d}  loss {loss.item():.6f}", flush=True)
            if event is not None:
                shares = (
                    "the plan stays" if event.plan is None else f"now {event.plan.summary['balance']['shares']['tp']}"
                )
                times = ", ".join(f"{one:.1f}" for one in event.slowdowns)
                print(f"step {number:3d}  times slower than planned: {times}; {shares}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
