"""A device's profile out of measurements: what was made by a model of the device is found again, and priced so."""

from typing import Any

import pytest
import torch

from autotp.graph import ITEM_BYTES
from autotp.hardware.cluster import device_from_json, validate
from autotp.measuring import samples
from autotp.measuring.device_fit import Measured, device_json, predict
from autotp.measuring.items import Effort, effort_of, items_of

RATE, BANDWIDTH, LAUNCH = 1e11, 1e10, 2e-6
META = torch.device("meta")


def made_up(effort: Effort, facts: dict[str, Any]) -> Measured:
    """Products at one rate, all else by bytes, gelu three times as long, everything alone half as long."""
    found: dict[str, list[Any]] = {}
    for item in items_of(effort, 2, 2):
        if item.kind == "collective":
            found[item.key] = [1e-4]
            continue
        seconds = _seconds(item.kind, item.arguments) * (0.5 if item.alone else 1.0)
        found[item.key] = [[[seconds, 2 * seconds]] * 2 for _ in range(3)]
    return Measured.of("a device", [0, 1], facts, found)


def _seconds(kind: str, arguments: tuple[Any, ...]) -> float:
    if kind == "host":
        return 5e-6
    (dtype,) = (each for each in arguments if each in ("float32", "bfloat16", "float16", "tfloat32"))
    name, *sizes = (each for each in arguments if each not in ("float32", "bfloat16", "float16", "tfloat32"))
    if kind == "product":
        m, n, k = (name, *sizes)
        return LAUNCH + 2 * m * n * k / RATE
    if kind == "batched":
        batch, m, n, k = (name, *sizes)
        return LAUNCH + 2 * batch * m * n * k / RATE
    if kind == "attention":
        batch, heads, seq, width = (name, *sizes)
        return LAUNCH + 2 * batch * heads * seq * seq * width / (0.5 * RATE)
    if kind == "optimizer":
        count, numel = sizes
        return count * (10 * LAUNCH + numel * 28 / BANDWIDTH)
    moved = (3 if name in ("add", "mul") else 2) * sizes[0] * sizes[1] * ITEM_BYTES.get(dtype, 4)
    return LAUNCH + moved * (3 if name == "gelu" else 1) / BANDWIDTH


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_made_up_device_is_found_again(kind: str) -> None:
    effort = effort_of(kind, is_full=False)
    facts = {"type": kind, "memory_bytes": 10**10, "process_bytes": 10**8, "num_units": 1 if kind == "cpu" else 100}
    data = device_json(made_up(effort, facts), effort, "2026-11-24")
    validate(data, "device", "a test")
    device = device_from_json(data)
    first = effort.dtypes[0]
    assert device.matmul_flops_per_s[first] == pytest.approx(RATE, rel=0.05)
    assert device.memory_bytes_per_s == pytest.approx(BANDWIDTH, rel=0.05)
    assert device.attention_efficiency == pytest.approx(0.5, rel=0.1)
    assert device.together_factors == {name: pytest.approx(2.0) for name in ("product", "memory_bound", "attention")}
    assert device.operator_factors["adamw.launches"] == pytest.approx(10 * LAUNCH / device.launch_s, rel=0.1)
    assert device.host_operator_s == (0.0 if kind == "cpu" else 5e-6)
    gelu, relu = (samples.memory_bound(op, first, 512, 1024, META) for op in ("gelu", "relu"))
    assert predict(gelu, device)[0] == pytest.approx(3 * predict(relu, device)[0], rel=0.1)
    if kind == "cpu":
        shape = (128, 2048, 512)
        assert predict(samples.product(first, *shape, META), device)[0] == pytest.approx(
            _seconds("product", (first, *shape)), rel=0.1
        )


def test_what_a_rank_could_not_run_is_left_out() -> None:
    found = {"product/bfloat16/2/2/2": [[[1.0, 1.0], None]], "product/float32/2/2/2": [[[1.0, 2.0], [3.0, 4.0]]]}
    measured = Measured.of("a device", [0, 1], {}, found)
    assert measured.products("bfloat16") == {} and measured.products("float32") == {(2, 2, 2): (2.0, 3.0)}
    assert Measured.of("a device", [0], {}, found).products("bfloat16") == {(2, 2, 2): (1.0, 1.0)}
