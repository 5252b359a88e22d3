"""A measurement: what a plan predicted beside what was measured when it ran. Frozen, versioned JSON, as a plan is."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from autotp.errors import AutoTPError
from autotp.plan_file import write_atomically

VERSION = 1


@dataclass(frozen=True, slots=True)
class Compared:
    """One amount, predicted and measured, in the same unit."""

    predicted: float
    measured: float

    @property
    def error(self) -> float | None:
        """How much more was predicted than measured, as a share of what was measured; None where that is nothing."""
        return self.predicted / self.measured - 1 if self.measured > 0 else None


@dataclass(frozen=True, slots=True)
class Directions:
    """Seconds of one node or of one value's moves in one step: forward, and backward."""

    forward_s: Compared
    backward_s: Compared


@dataclass(frozen=True, slots=True)
class Measurement:
    """A plan that ran over real processes for `num_steps` steps after those that warm up.

    - `plan_identity`: `plan_identity` of the plan's text; `fingerprint`, `model`, `mode`, `mesh` are the plan's,
      `cluster` its cluster's name. `environment`: versions and device names, in words.
    - `rank_steps_s`: by rank, seconds of every step. `step_s`: the median over steps of the slowest rank's seconds;
      `spread_s`: the distance between their quartiles.
    - `parts_s`: the same step by kind of cost: `forward`, `backward` and `optimizer` compute, `communication`, and
      `other` (measured only: between operators, in Python and in autograd).
    - `communication_s`: by action of `redistribute.TABLE`, and `inside_operators`. `operators_s`: by operator, forward
      and backward together. `nodes`, `moves`: by graph node; of `moves`, the node whose value moves.
    - `memory_bytes`: by rank, the peak of tensor storage (the predicted peak less what a process costs).
      `memory_parts_bytes`: of the rank that holds most, by what the bytes are for, as far as it can be told.
    - `bound`: the share by which `step_s` and `memory_bytes` may be off.

    The breakdown is of the slowest rank's profiled steps, scaled to `step_s`.
    """

    plan_identity: str
    fingerprint: str
    model: Mapping[str, Any]
    mode: str
    mesh: str
    cluster: str
    date: str
    environment: Mapping[str, str]
    num_steps: int
    bound: float
    rank_steps_s: tuple[tuple[float, ...], ...]
    step_s: Compared
    spread_s: float
    parts_s: Mapping[str, Compared]
    communication_s: Mapping[str, Compared]
    operators_s: Mapping[str, Compared]
    nodes: Mapping[str, Directions]
    moves: Mapping[str, Directions]
    memory_bytes: tuple[Compared, ...]
    memory_parts_bytes: Mapping[str, Compared]
    autotp_measurement: int = VERSION

    def misses(self) -> list[str]:
        """What is off by more than `bound`, one sentence each; empty where the predictions hold."""
        found = [("the step", "s", self.step_s)]
        found += [(f"memory of rank {rank}", "bytes", each) for rank, each in enumerate(self.memory_bytes)]
        return [
            f"{what}: predicted {each.predicted:.4g} {unit}, measured {each.measured:.4g} {unit}, off by {each.error:+.1%}"
            for what, unit, each in found
            if each.error is not None and abs(each.error) > self.bound
        ]

    def to_json(self) -> dict[str, Any]:
        """A dictionary for json.dump; `from_json` gives an equal measurement."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]  # tuples become lists, as in a file

    @classmethod
    def from_json(cls, data: Any, where: str = "measurement") -> "Measurement":
        """Build from JSON data after validating it; `where` names the file in messages. Raises AutoTPError."""
        error = best_match(Draft202012Validator(_schema()).iter_errors(data))
        if error is not None:
            place = ".".join(map(str, error.absolute_path))
            raise AutoTPError(f"{where} is no measurement: {place + ': ' if place else ''}{error.message}")
        by_name = ("parts_s", "communication_s", "operators_s", "memory_parts_bytes")
        return cls(
            **{
                **data,
                "rank_steps_s": tuple(map(tuple, data["rank_steps_s"])),
                "step_s": Compared(**data["step_s"]),
                "memory_bytes": tuple(Compared(**each) for each in data["memory_bytes"]),
                **{key: {name: Compared(**each) for name, each in data[key].items()} for key in by_name},
                **{key: _directions(data[key]) for key in ("nodes", "moves")},
            }
        )


def _directions(rows: Mapping[str, Any]) -> dict[str, Directions]:
    return {
        name: Directions(Compared(**each["forward_s"]), Compared(**each["backward_s"])) for name, each in rows.items()
    }


@cache
def _schema() -> dict[str, Any]:
    text = files("autotp.reports").joinpath("measurement.schema.json").read_text()
    return json.loads(text)  # type: ignore[no-any-return]


def save(measurement: Measurement, path: str | Path) -> None:
    """Write a measurement. Raises AutoTPError where the file cannot be written; nothing half-written is left."""
    write_atomically(path, json.dumps(measurement.to_json(), indent=1, allow_nan=False) + "\n")


def load(path: str | Path) -> Measurement:
    """Read a measurement. Raises AutoTPError on a missing, corrupt or foreign file."""
    try:
        data = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise AutoTPError(f"cannot read the measurement {path}: {error}") from error
    return Measurement.from_json(data, str(path))
