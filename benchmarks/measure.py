"""One rank of the benchmark: build the contenders, check what they compute, and time them in turn."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from contenders.handwritten import handwritten
from contenders.model import Contender, Size, build, whole
from contenders.ours import ours
from contenders.peers import dtensor, hugging_face
from judge import DTENSOR, HANDWRITTEN, OURS_MEGATRON, OURS_OPTIMAL, TRANSFORMERS, WHOLE, Row
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from traffic import Traffic

FORWARD, TRAINING = "forward", "forward+backward"


@dataclass(frozen=True)
class Answer:
    """What a contender computes, and the collectives it uses for it."""

    logits: Tensor
    loss: Tensor
    gradients: Sequence[Tensor]
    traffic: dict[str, Traffic]


def contenders_for(
    ids: Tensor, size: Size, names: Sequence[str], device_mesh: DeviceMesh, checkpoint: Path
) -> list[Contender]:
    """These contenders, all with the weights that are also in `checkpoint`. The whole model comes first, always."""
    model = build(size).train()
    makers = {
        HANDWRITTEN: lambda: handwritten(model, size),
        OURS_MEGATRON: lambda: ours(model, device_mesh, ids, "megatron"),
        OURS_OPTIMAL: lambda: ours(model, device_mesh, ids, "optimal"),
        DTENSOR: lambda: dtensor(model, device_mesh),
        TRANSFORMERS: lambda: hugging_face(checkpoint, device_mesh.size()),
    }
    return [whole(WHOLE, model), *(makers[name]() for name in makers if name in names)]


def answer(contender: Contender, ids: Tensor) -> Answer:
    counts = {name: Traffic(dist.get_world_size()) for name in (FORWARD, "loss", "backward")}
    with torch.no_grad(), counts[FORWARD]:
        logits = contender.logits(ids)
    with counts["loss"]:
        loss = contender.loss(ids, ids)
    with counts["backward"]:
        loss.backward()
    gradients = contender.norm_gradients()
    contender.module.zero_grad()
    return Answer(logits, loss.detach(), gradients, counts)


def errors(found: Answer, expected: Answer) -> dict[str, float]:
    """Largest differences by kind of step, whatever rank has them; gradients relative to the largest one."""
    largest = max(float(gradient.abs().max()) for gradient in expected.gradients)
    pairs = zip(found.gradients, expected.gradients, strict=True)
    local = torch.stack([
        (found.logits - expected.logits).abs().max(),
        (found.loss - expected.loss).abs(),
        torch.stack([(a - b).abs().max() for a, b in pairs]).max() / largest,
    ])  # fmt: skip
    local = local.nan_to_num(nan=torch.inf)
    dist.all_reduce(local, dist.ReduceOp.MAX)
    logits, loss, gradient = local.tolist()
    return {FORWARD: logits, TRAINING: max(loss, gradient)}


def step(contender: Contender, kind: str, ids: Tensor) -> tuple[float, float]:
    """CPU and wall seconds of one step, begun by all ranks together."""
    dist.barrier()
    wall, cpu = time.perf_counter(), time.process_time()
    if kind == FORWARD:
        with torch.no_grad():
            contender.logits(ids)
    else:
        contender.loss(ids, ids).backward()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    contender.module.zero_grad()
    return cpu, wall


def interleave(
    contenders: Sequence[Contender], kind: str, ids: Tensor, *, max_rounds: int, max_seconds: float
) -> tuple[list[tuple[float, float]], int]:
    """The least CPU and wall seconds of every contender on the slowest rank, and how many rounds there were.

    In every round each takes one step, in an order drawn anew. The first round is not counted. The whole model runs on
    rank 0 alone.
    """
    order, draw = list(range(len(contenders))), random.Random(0)
    least = torch.full((len(contenders), 2), torch.inf)
    started, rounds = time.perf_counter(), 0
    for turn in range(max_rounds + 1):
        draw.shuffle(order)
        for index in order:
            if contenders[index].name == WHOLE and dist.get_rank() > 0:
                dist.barrier()
                least[index] = 0.0
                continue
            taken = torch.tensor(step(contenders[index], kind, ids))
            if turn:
                least[index] = torch.minimum(least[index], taken)
        rounds = turn
        is_over = torch.tensor(turn > 1 and time.perf_counter() - started > max_seconds)
        dist.broadcast(is_over, src=0)  # by one rank's clock
        if is_over:
            break
    dist.all_reduce(least, dist.ReduceOp.MAX)
    return [(cpu, wall) for cpu, wall in least.tolist()], rounds


def measure(
    contenders: Sequence[Contender], shape: str, ids: Tensor, *, max_rounds: int, max_seconds: float
) -> list[Row]:
    """Rows of all contenders for one shape of the inputs."""
    answers = [answer(contender, ids) for contender in contenders]
    wrong = [errors(found, answers[0]) for found in answers]
    rows = []
    for kind in (FORWARD, TRAINING):
        times, rounds = interleave(contenders, kind, ids, max_rounds=max_rounds, max_seconds=max_seconds)
        for contender, found, error, (cpu, wall) in zip(contenders, answers, wrong, times, strict=True):
            used = [found.traffic[name] for name in ((FORWARD,) if kind == FORWARD else ("loss", "backward"))]
            calls, sent = sum(count.num_calls for count in used), [count.num_bytes for count in used] + [0.0]
            rows.append(Row(contender.name, shape, kind, cpu, wall, rounds, error[kind], calls, sent[0], sent[1]))
    return rows
