"""The same code over real process groups: two gloo ranks that run everything once, and tests that look at what they say."""

import os
import time

import pytest
import torch
import torch.distributed as dist
from placed import cuts, distribute, recombine, table_of
from random_plans import random_plan
from torch import nn
from torch.nn import functional as F

from autotp.capture.export import capture
from autotp.errors import AutoTPError, VerificationError
from autotp.mesh import Mesh
from autotp.placement import B, P, R, shard
from autotp.redistribute import Step
from autotp.rewrite.parallelize import build_module
from autotp.runtime.communicator import GroupCommunicator, communicators_of, init_mesh
from autotp.runtime.moves import Redistribute
from autotp.runtime.simulate import run_ranks
from autotp.runtime.spawn import keep_to_own_cores, run_processes
from autotp.runtime.verify import reference_of, summarise, verify_rank

pytestmark = pytest.mark.distributed
MESH = Mesh((("tp", 2),))
SHAPE = (6, 8)
DTYPES = (
    torch.float64,
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.bool,
    torch.uint8,
)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(6), nn.Linear(6, 10), nn.Linear(10, 6)

    def forward(self, x, target):
        y = x + self.down(F.gelu(self.up(self.norm(x))))
        return F.mse_loss(y, target)


def captured_block():
    torch.manual_seed(3)
    model = Block().double()
    inputs = {name: torch.randn(5, 6, dtype=torch.float64) for name in ("x", "target")}
    return model, inputs, capture(model, inputs)


def plans(captured, mesh=MESH):
    return [random_plan(captured, mesh, seed) for seed in range(4)]


def rows():
    """One step for every row of the table, over uneven shards and shards with an empty one."""
    uneven, other = shard(0, cuts(6, 2)[1]), shard(1, cuts(8, 2)[3])
    several, empty = shard(0, cuts(6, 2)[3]), shard(0, cuts(6, 2)[2])
    return [
        *[(a, b) for a in (R, B, P, uneven) for b in (R, B, P, uneven) if a != b and (a, b) != (B, B)],
        *[(uneven, other), (uneven, several), (empty, other), (empty, R), (P, empty), (R, empty)],
    ]  # fmt: skip


def move_rows(rank, communicator):
    found = []
    for a, b in rows():
        whole = torch.arange(48, dtype=torch.float64).reshape(SHAPE) / 7
        step = Step(0, (a,), (b,))
        x = distribute(whole, (a,), MESH)[rank].requires_grad_()
        y = Redistribute(step, *table_of(step), SHAPE, MESH, rank, communicator)(x)
        y.backward(distribute(whole * whole, (b,), MESH, "gradient")[rank])
        found.append((y.detach(), x.grad))
    return found


def every_dtype(rank, communicator):
    found = {}
    for dtype in DTYPES:
        x = (torch.arange(4).reshape(2, 2) + rank).to(dtype)
        sizes = [(1, 2), (2, 2)]
        results = [communicator.all_gather(x), *communicator.all_to_all([x[:1], x], [sizes[rank]] * 2)]
        if dtype != torch.bool:
            results += [communicator.all_reduce(x), communicator.all_reduce(x, "max"), communicator.reduce_scatter(x)]
        found[dtype] = results
        assert torch.equal(x, (torch.arange(4).reshape(2, 2) + rank).to(dtype)), "an input was written to"
    return found


def train(module, inputs, steps=3):
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = module(**inputs)
        loss.backward()
        losses.append(loss.item())
        norm = module.clip_grad_norm_(0.05) if hasattr(module, "clip_grad_norm_") else None
        if norm is None:
            norm = torch.nn.utils.clip_grad_norm_(module.parameters(), 0.05)
        losses.append(norm.item())
        optimizer.step()
    return losses


def rank_main(rank):
    device_mesh = init_mesh(MESH)
    communicator = communicators_of(device_mesh)["tp"]
    _, inputs, captured = captured_block()
    flat = captured.flatten_inputs((), inputs)
    result = {"dtypes": every_dtype(rank, communicator), "rows": move_rows(rank, communicator)}
    whole = reference_of(captured.module, lambda module: module(*flat), "train")
    result["reports"], result["traces"], result["compiled"], result["losses"] = [], [], [], []
    for index, plan in enumerate(plans(captured)):
        module = build_module(captured, plan, device_mesh)
        module.communicators["tp"].trace = trace = []
        result["reports"].append(verify_rank(module, lambda m: [m(**inputs)], whole))
        module.communicators["tp"].trace = None
        result["traces"].append(trace)
        result["losses"].append(train(build_module(captured, plan, device_mesh), inputs))
        if index < 2:
            module = build_module(captured, plan, device_mesh)
            compiled = torch.compile(module, backend="aot_eager")
            result["compiled"].append(verify_rank(module, lambda m, c=compiled: [c(**inputs)], whole))
    data = Mesh((("dp", 2),))
    data_mesh = init_mesh(data)
    module = build_module(captured, random_plan(captured, data, 1), data_mesh, inputs="local")
    part = {name: x[:3] if rank == 0 else x[3:] for name, x in inputs.items()}
    result["local"] = module(**part).item()
    print("a child's standard output")
    return result


@pytest.fixture(scope="module")
def results():
    return run_processes(rank_main, 2, timeout_s=120)


def test_collectives_take_every_dtype(results):
    simulated = run_ranks(MESH, lambda rank, c: every_dtype(rank, c["tp"]))
    for real, expected in zip(results, simulated, strict=True):
        for dtype in DTYPES:
            for a, b in zip(real["dtypes"][dtype], expected[dtype], strict=True):
                assert a.dtype == b.dtype and torch.equal(a, b), dtype


def test_every_row_of_the_table(results):
    whole = torch.arange(48, dtype=torch.float64).reshape(SHAPE) / 7
    for (a, b), *pairs in zip(rows(), *(result["rows"] for result in results), strict=True):
        values, gradients = zip(*pairs, strict=True)
        torch.testing.assert_close(recombine(values, SHAPE, (b,), MESH), whole, rtol=1e-12, atol=1e-12)
        got = recombine(gradients, SHAPE, (a,), MESH, "gradient")
        torch.testing.assert_close(got, whole * whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("which", ["reports", "compiled"])
def test_random_plans_verify(results, which):
    _, inputs, captured = captured_block()
    flat = captured.flatten_inputs((), inputs)
    whole = reference_of(captured.module, lambda module: module(*flat), "train")
    for reports in zip(*(result[which] for result in results), strict=True):
        summary = summarise(reports, whole, captured.module)
        assert summary["ok"] and max(summary["max_relative_error"].values()) < 1e-13, summary


def test_ranks_issue_the_same_collectives(results):
    for a, b in zip(*(result["traces"] for result in results), strict=True):
        assert a and [call[:3] for call in a] == [call[:3] for call in b]
        fixed = [[call.shape for call in trace if call.collective != "all_to_all"] for trace in (a, b)]
        assert fixed[0] == fixed[1]


def test_training_with_clipping_follows_the_whole_model(results):
    model, inputs, _ = captured_block()
    expected = torch.tensor(train(model, inputs), dtype=torch.float64)
    for result in results:
        for losses in result["losses"]:
            torch.testing.assert_close(torch.tensor(losses, dtype=torch.float64), expected, rtol=1e-9, atol=0)


def test_local_inputs_give_the_loss_of_the_whole_batch(results):
    model, inputs, _ = captured_block()
    for result in results:
        assert result["local"] == pytest.approx(model(**inputs).item(), rel=1e-12)


def fail_on_one(rank):
    if rank == 1:
        raise ValueError("rank 1 cannot go on")
    dist.barrier()


def die(rank):
    os._exit(7 if rank == 0 else 0)


def sleep(rank):
    time.sleep(60)


def whoami(rank, text):
    print("not on standard output")
    return f"{text} {rank} {torch.get_num_threads()}"


def cores_of(rank):
    return sorted(os.sched_getaffinity(0))


def wrong_mesh(rank):
    with pytest.raises(AutoTPError, match="needs 4 processes, but 1"):
        init_mesh(Mesh((("tp", 4),)))
    with pytest.raises(AutoTPError, match="no axis names"):
        communicators_of(dist.init_device_mesh("cpu", (1,)))
    communicator = communicators_of(init_mesh(Mesh((("tp", 1),))))["tp"]
    assert isinstance(communicator, GroupCommunicator)
    return communicator.all_reduce(torch.ones(2)).tolist()


def test_the_failing_rank_is_named_with_its_traceback_and_soon():
    started = time.monotonic()
    with pytest.raises(VerificationError, match=r"rank 1 failed(.|\n)*rank 1 cannot go on"):
        run_processes(fail_on_one, 2, timeout_s=60)
    assert time.monotonic() - started < 40


def test_a_dead_rank_is_an_error():
    with pytest.raises(VerificationError, match="exit code 7"):
        run_processes(die, 1, timeout_s=60)


def test_time_is_limited():
    with pytest.raises(VerificationError, match="not done after 6 s"):
        run_processes(sleep, 1, timeout_s=6)


def test_children_print_to_standard_error_and_run_one_thread(capfd):
    assert run_processes(whoami, 2, ("rank",), timeout_s=60) == ["rank 0 1", "rank 1 1"]
    out, err = capfd.readouterr()
    assert out == "" and "not on standard output" in err


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux binds processes to cores")
def test_ranks_have_cores_of_their_own_where_there_are_enough():
    own = sorted(os.sched_getaffinity(0))
    few = min(2, len(own))
    parts = run_processes(cores_of, few, timeout_s=200)
    assert len(set().union(*parts)) == sum(map(len, parts)) == len(own) // few * few


def test_fewer_cores_than_ranks_are_shared_by_all(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3}, raising=False)
    chosen = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: chosen.append(cores), raising=False)
    keep_to_own_cores(2, 3)
    assert chosen == []
    keep_to_own_cores(1, 2)
    assert chosen == [[3]]


def test_meshes_that_do_not_fit():
    assert run_processes(wrong_mesh, 1, timeout_s=60) == [[1.0, 1.0]]
