"""One plan, several graphs: evaluation of a module planned for training, and inputs of other sizes."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autotp.capture.export import capture
from autotp.errors import AutoTPError, PlanError
from autotp.mesh import Mesh
from autotp.rewrite.parallelize import build_for_rank
from autotp.runtime.simulate import run_ranks
from autotp.variants import Source, with_variants
from autotp.verification import plan_for, subject_of, verify

WIDTH = 16


class Net(nn.Module):
    """Everything that is otherwise in evaluation: dropout of all kinds, running statistics, attention that drops."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(4, WIDTH, 3, padding=1), nn.BatchNorm1d(WIDTH)
        self.drop_channels = nn.Dropout1d(0.4)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.drop, self.head = nn.Dropout(0.3), nn.Linear(WIDTH, 5)

    def forward(self, x, target):
        y = self.drop_channels(F.relu(self.norm(self.conv(x)))).transpose(1, 2)
        q, k, v = (part.unflatten(-1, (4, 4)).transpose(1, 2) for part in self.drop(self.qkv(y)).chunk(3, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=0.2 if self.training else 0.0)
        logits = self.head(self.drop(self.out(y.transpose(1, 2).flatten(2))))
        return {"loss": F.cross_entropy(logits.flatten(0, 1), target.flatten()), "logits": logits}


def inputs(batch=4, seq=6):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 4, seq, generator=generator, dtype=torch.float64)
    return {"x": x, "target": torch.randint(5, (batch, seq), generator=generator)}


def on_ranks(model, example, function, mesh="tp=2", mode="train", dynamic=None):
    """`function(module)` on every simulated rank; what it returns."""
    subject = subject_of(model, example, mode, None)
    plan = plan_for(subject, model, mesh, dynamic=dynamic)
    origin = Source(model, subject.captured, plan)

    def run(rank, communicators):
        return function(with_variants(build_for_rank(subject.captured, plan, rank, communicators), origin))

    return run_ranks(Mesh.parse(mesh), run)


@pytest.mark.parametrize("mesh", ["tp=2", "dp=2"])
def test_a_module_that_was_planned_for_training_is_evaluated_and_trained_again(mesh):
    torch.manual_seed(0)
    model, example = Net().double(), inputs()
    whole = copy.deepcopy(model)

    def run(module):
        trained = [module(**example)["loss"].detach() for _ in range(2)]
        seen = module.get_buffer("norm.running_mean").clone()
        module.eval()
        with torch.no_grad():
            evaluated = [module(**example)["logits"] for _ in range(2)]
        assert torch.equal(seen, module.get_buffer("norm.running_mean"))
        module(**example)["loss"].backward()  # gradients in evaluation are those of the model too
        norm = module.gradient_norm()
        module.train()
        return trained, evaluated, norm, module(**example)["loss"].detach()

    for _ in range(2):
        whole(**example)  # which moves the running statistics; nothing is dropped before them
    expected = whole.eval()(**example)
    expected["loss"].backward()
    for trained, evaluated, norm, again in on_ranks(model, example, run, mesh=mesh):
        assert trained[0] != trained[1] != again  # dropout
        assert torch.equal(*evaluated)
        torch.testing.assert_close(evaluated[0], expected["logits"])
        total = torch.nn.utils.get_total_norm([p.grad for p in whole.parameters()])
        torch.testing.assert_close(norm, total.to(norm.dtype))


class Moody(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(x).square() if self.training else self.linear(x)


def test_a_model_that_does_more_than_that_says_where():
    x = torch.randn(2, 4)
    with pytest.raises(PlanError, match=r"cannot be evaluated: .*test_variants.py.*mode='infer'"):
        on_ranks(Moody(), {"x": x}, lambda module: module.eval())
    with pytest.raises(PlanError, match="mode='train', which does both"):
        on_ranks(Moody(), {"x": x}, lambda module: module.train(), mode="infer")


@pytest.mark.parametrize("mesh", ["tp=2", "dp=2"])
def test_inputs_of_other_sizes_give_what_the_model_gives(mesh):
    tokens = {"ids": torch.randint(20, (4, 8)), "labels": torch.randint(20, (4, 8))}
    result = verify(Words().double(), tokens, mesh=mesh, dynamic="batch,seq")
    assert result["ok"], result["problems"]


class Words(nn.Module):
    """A position table that is sliced, and a mask that is made, by length; heads are split from what is batch times."""

    def __init__(self):
        super().__init__()
        self.words, self.positions = nn.Embedding(20, WIDTH), nn.Embedding(12, WIDTH)
        self.qkv, self.out, self.head = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 20)

    def forward(self, ids, labels):
        batch, seq = ids.shape
        y = self.words(ids) + self.positions(torch.arange(seq))
        q, k, v = (part.view(batch, seq, 4, 4).transpose(1, 2) for part in self.qkv(y).chunk(3, dim=-1))
        q, k, v = (part.reshape(batch * 4, seq, 4) for part in (q, k, v))
        later = torch.ones(seq, seq, dtype=torch.bool).triu(1)
        scores = torch.baddbmm(torch.zeros(1, dtype=q.dtype), q, k.mT, alpha=0.5).masked_fill(later, float("-inf"))
        y = (scores.softmax(-1) @ v).view(batch, 4, seq, 4).transpose(1, 2).reshape(batch, seq, WIDTH)
        return F.cross_entropy(self.head(y + self.out(y)).view(-1, 20), labels.view(-1))


def test_sizes_come_and_go_while_one_module_is_trained():
    torch.manual_seed(0)
    model = Words().double()
    whole = copy.deepcopy(model)
    lengths = [(4, 8), (4, 5), (3, 8), (4, 5), (4, 8)]
    batches = [{name: torch.randint(20, shape) for name in ("ids", "labels")} for shape in lengths]

    def train(module):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        losses = []
        for batch in batches:
            loss = module(**batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        module.eval()
        return [*losses, module(**batches[1]).item()]

    expected = train(whole)
    for found in on_ranks(model, batches[0], train, dynamic=("batch", "seq")):
        assert found == pytest.approx(expected, rel=1e-9)


def test_sizes_that_may_not_differ_are_refused():
    tokens = {"ids": torch.randint(20, (4, 8)), "labels": torch.randint(20, (4, 8))}
    shorter = {name: ids[:, :5] for name, ids in tokens.items()}
    with pytest.raises(PlanError, match=r"\[4, 5\].*\[4, 8\]: only batch may differ"):
        on_ranks(Words(), tokens, lambda module: module(**shorter), dynamic="batch")
    with pytest.raises(AutoTPError, match="captured with"):
        on_ranks(Words(), tokens, lambda module: module(**shorter))
    with pytest.raises(PlanError, match="unknown dynamic dims heads: choose among batch, seq"):
        on_ranks(Words(), tokens, lambda module: None, dynamic="heads")


def test_a_capture_in_evaluation_leaves_the_model_as_it_was():
    model = Net()
    capture(
        model.float(), {k: v.float() if v.is_floating_point() else v for k, v in inputs().items()}, is_evaluated=True
    )
    assert all(module.training for module in model.modules())
