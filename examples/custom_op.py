"""A model with an operator of one's own, which autotp learns to split: its rule is one call.

    python examples/custom_op.py
    autotp plan examples/custom_op.py --mesh tp=2 --cluster cpu --objective memory

`head_norm` normalises every head of `[..., heads * width]` to unit mean square. Heads may be split, the elements of a
head may not.
"""

import torch
from torch import Tensor, nn

import autotp
from autotp.check.rule import check_rule

EPSILON = 1e-6


@torch.library.custom_op("example::head_norm", mutates_args=())
def head_norm(x: Tensor, scale: Tensor, num_heads: int) -> Tensor:
    heads = x.unflatten(-1, (num_heads, -1))
    return (heads * torch.rsqrt(heads.square().mean(-1, keepdim=True) + EPSILON) * scale).flatten(-2)


@head_norm.register_fake
def _(x: Tensor, scale: Tensor, num_heads: int) -> Tensor:
    return torch.empty_like(x)


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    x, scale, ctx.num_heads = inputs
    ctx.save_for_backward(x, scale)


def _backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
    x, scale = ctx.saved_tensors
    heads, given = (t.unflatten(-1, (ctx.num_heads, -1)) for t in (x, gradient))
    inverse = torch.rsqrt(heads.square().mean(-1, keepdim=True) + EPSILON)
    normal = heads * inverse
    scaled = given * scale
    into_x = (scaled - normal * (scaled * normal).mean(-1, keepdim=True)) * inverse
    return into_x.flatten(-2), (given * normal).flatten(0, -2).sum(0), None


head_norm.register_autograd(_backward, setup_context=_keep)

# h: heads, d: the elements of one. A rank that has some of the heads calls the operator with their number.
autotp.register_rule(
    head_norm,
    "x[... (h d)] scale[d] -> [... (h d)]",
    whole="d",
    linear=("scale",),
    sizes={"h": "num_heads"},
    local_sizes={"num_heads": "h"},
)


class Block(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.up = nn.Linear(width, 4 * width)
        self.scale = nn.Parameter(torch.ones(4 * width // num_heads))
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(head_norm(self.up(x), self.scale, self.num_heads))


class Model(nn.Module):
    def __init__(self, width: int, num_heads: int, layers: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(width, num_heads) for _ in range(layers)))

    def forward(self, x: Tensor, target: Tensor | None = None) -> Tensor:
        y = self.blocks(x)
        return y if target is None else nn.functional.mse_loss(y, target)


def build_model(width: int = 64, num_heads: int = 8, layers: int = 2) -> nn.Module:
    return Model(width, num_heads, layers)


def example_inputs(width: int = 64, batch: int = 4, seq: int = 16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(batch, seq, width, generator=generator) for name in ("x", "target")}


def main() -> None:
    x, scale = torch.randn(2, 3, 12, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    checked = check_rule(head_norm, x, scale, 3)
    print(f"{checked.num_strategies} strategies of {checked.rule} agree with the whole operator")
    torch.manual_seed(0)
    plan = autotp.plan(build_model(), example_inputs(), mesh="tp=2", cluster="cpu", objective="memory")
    result = autotp.verify(build_model(), example_inputs(), plan=plan)
    print(f"on 2 ranks: ok={result['ok']}, {result['coverage']['split_matmul_flops_fraction']:.0%} of the FLOPs split")


if __name__ == "__main__":
    main()
