"""In-place operators: random programs of views and writes give what they gave, gradients included."""

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from autotp.capture.export import capture
from autotp.errors import CaptureError
from autotp.verification import verify

VIEWS: list[Callable[[Tensor], Tensor]] = [
    lambda x: x[0],
    lambda x: x[..., 1:],
    lambda x: x[-1:],
    lambda x: x[..., None, :],
    lambda x: x.transpose(0, -1),
    lambda x: x.permute(*reversed(range(x.dim()))),
    lambda x: x.movedim(0, -1),
    lambda x: x.mT,
    lambda x: x.narrow(0, 0, 1),
    lambda x: x.unsqueeze(0),
    lambda x: x.flatten(),
    lambda x: x.view_as(x),
    lambda x: x.chunk(2, dim=0)[-1],
    lambda x: x.unbind(-1)[-1],
    lambda x: x.split(1, dim=0)[0],
    lambda x: x * 1.0,
]
WRITES: list[Callable[[Tensor, Tensor], object]] = [
    lambda x, y: x.add_(1.5), lambda x, y: x.mul_(y.mean()), lambda x, y: x.fill_(0.5), lambda x, y: x.copy_(y.sum()),
    lambda x, y: x.masked_fill_(x > 0.3, 0.25), lambda x, y: x.zero_(), lambda x, y: x.sub_(x.clone()),
    lambda x, y: x.clamp_(max=1.0).mul_(2.0), lambda x, y: x.copy_(x.flip(0)),
]  # fmt: skip


def values(seed: int) -> Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Program(nn.Module):
    """A random program of views and writes over two tensors, that returns everything it made."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(values(seed))
        self.seed = seed

    def forward(self, x: Tensor) -> list[Tensor]:
        choose = random.Random(self.seed)
        made = [self.weight * 2.0, x + self.weight]
        for _ in range(8):
            old = choose.choice(made)
            if choose.random() < 0.5 and old.dim() > 1:
                made.append(choose.choice(VIEWS)(old))
            else:
                result = choose.choice(WRITES)(old, choose.choice(made))
                if choose.random() < 0.3:
                    made.append(result)
        return [tensor * 1.0 for tensor in made]


def results(module: nn.Module, *inputs: Tensor) -> tuple[list[Tensor], Tensor | None]:
    module.zero_grad()
    outputs = list(module(*inputs))
    sum((x * (i + 1)).square().sum() for i, x in enumerate(outputs)).backward()
    weight = next(module.parameters())
    return [x.detach() for x in outputs], weight.grad


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_random_programs_compute_what_they_did(first: int) -> None:
    num_compared = 0
    for seed in range(first, first + 10):
        program, x = Program(seed), values(seed + 1)
        try:
            expected = results(program, x)
        except (RuntimeError, IndexError):  # a write that autograd refuses, a view of an empty tensor
            continue
        captured = capture(program, {"x": x}).module
        assert not writes(captured), seed
        torch.testing.assert_close(results(captured, x), expected, equal_nan=True)
        num_compared += 1
    assert num_compared >= 4


def writes(module: fx.GraphModule) -> list[fx.Node]:
    return [node for node in module.graph.nodes if getattr(getattr(node.target, "_schema", None), "is_mutable", False)]


class Shift(nn.Module):
    """Two writes into different parts of one tensor, as encoder-decoders shift their labels."""

    def forward(self, labels: Tensor) -> Tensor:
        shifted = labels.new_zeros(labels.shape)
        shifted[:, 1:] = labels[:, :-1].clone()
        shifted[:, 0] = 7
        shifted.masked_fill_(shifted == -100, 1)
        return shifted


def test_writes_into_parts_of_one_tensor_all_count() -> None:
    labels = torch.tensor([[1, -100, 3], [4, 5, 6]])
    captured = capture(Shift(), {"labels": labels}, mode="infer").module
    assert torch.equal(captured(labels)[0], torch.tensor([[7, 1, 1], [7, 4, 5]]))


class Copies(nn.Module):
    """A copy is a tensor of its own."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x = x * 1.0
        x.copy_(y)
        x.add_(1.0)
        return x, y * 1.0


def test_what_is_written_to_a_copy_does_not_show_in_the_original() -> None:
    x, y = values(0), values(1)
    found = capture(Copies(), {"x": x, "y": y}, mode="infer").module(x, y)
    torch.testing.assert_close(found, (y + 1.0, y))


class Counter(nn.Module):
    """Buffers are state: writes to them stay."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.steps[1] += 1
        self.steps.mul_(2.0)
        return x + self.steps


def test_buffers_are_written_in_place() -> None:
    model, x = Counter(), torch.ones(3)
    captured = capture(model, {"x": x}, mode="infer")
    assert writes(captured.module)
    assert torch.equal(captured.module(x)[0], torch.tensor([1.0, 3.0, 1.0]))
    assert torch.equal(model.steps, torch.tensor([0.0, 2.0, 0.0]))
    assert captured.graph.written()


class Overlapping(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x * 1.0
        x.as_strided((2, 2), (1, 1)).fill_(0.0)
        return x


def test_a_write_without_inverse_is_refused_with_its_place() -> None:
    with pytest.raises(CaptureError, match=r"test_capture_writes.py.*as_strided.*write to a new tensor"):
        capture(Overlapping(), {"x": values(0)}, mode="infer")


class Written(nn.Module):
    """In-place operators whose names, or arguments, are not those of the operator that returns a new tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 12)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.layer(x).abs() + 1.0
        y.pow_(2)
        z = y.clone()
        z[:, :3].pow_(0.5)
        z = z * y.clone().pow_(torch.full_like(y, 1.5)) + y.clone().float_power_(0.5)
        count = (x * 7).long()
        count.floor_divide_(2).floor_divide_(torch.full_like(count, 2))
        noise = torch.empty_like(y).normal_(0.0, 1.0)
        return y * z, count, (y * noise).sum()


@pytest.mark.parametrize("mesh", ["tp=2", "tp=3"])
def test_powers_quotients_and_draws_in_place(mesh: str) -> None:
    torch.manual_seed(0)
    model, inputs = Written().double(), {"x": values(3).repeat(1, 2)[:, :8].clone()}
    captured = capture(model, inputs)
    assert not writes(captured.module)
    torch.manual_seed(5)
    expected = model(**inputs)
    torch.manual_seed(5)
    torch.testing.assert_close(captured.module(**inputs), expected)
    result = verify(model, inputs, mesh=mesh)
    assert result["ok"] and not result["fallback_ops"], result["problems"]
