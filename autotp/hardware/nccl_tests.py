"""Reads the logs of nccl-tests: the text of every version, and the JSON of its option -J.

A row has the size in bytes as nccl-tests counts it, and the times of the out-of-place and of the in-place run. Old
builds print no `root`, and an error in place of `#wrong`; option `-I 1` adds four columns to each run; MPI may put a tag
before every line; the name of the collective stands in newer logs only.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotp.errors import ProfileError

COLLECTIVES = {
    "all_reduce": "all_reduce", "allreduce": "all_reduce",
    "all_gather": "all_gather", "allgather": "all_gather",
    "reduce_scatter": "reduce_scatter", "reducescatter": "reduce_scatter",
    "alltoall": "all_to_all", "all_to_all": "all_to_all",
    "broadcast": "broadcast", "sendrecv": "send_recv", "send_recv": "send_recv",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Log:
    """One run of one collective. `hosts`, `devices`: by rank; `times_s`: out-of-place seconds by bytes, ascending."""

    collective: str
    hosts: tuple[str, ...]
    devices: tuple[str, ...]
    times_s: Mapping[int, float]
    version: str

    @property
    def num_nodes(self) -> int:
        return len(set(self.hosts))


def read_log(path: str | Path, collective: str | None = None) -> list[Log]:
    """The runs in a file: several where nccl-tests split the ranks into groups.

    `collective` is needed where neither log nor file name says it. Raises ProfileError, naming the file.
    """
    path = Path(path)
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise ProfileError(f"cannot read the log {path}: {error.strerror}") from error
    if text.lstrip().startswith("{"):
        return _read_json(text, path, collective)
    return _read_text(text, path, collective)


def _collective(said: str, path: Path, given: str | None) -> str:
    """What the log says, else what the user says, else what the file is called."""
    for name in (said, given or "", path.stem):
        word = re.sub(r"[^a-z]+", "_", name.lower())
        found = sorted((known for known in COLLECTIVES if known in word), key=len)
        if found:
            return COLLECTIVES[found[-1]]
    known = ", ".join(dict.fromkeys(COLLECTIVES.values()))
    raise ProfileError(f"{path} does not say which collective it is of: add --collective with one of {known}")


# ---------------------------------------------------------------- text

_TAG = re.compile(r"^\s*(?:\[[^\]]*\]\s*(?:<\w+>:?)?:?)?\s?")  # `[0] `, `[1,0]<stdout>:`
_RANK = re.compile(r"#\s*Rank\s+(\d+)\s+(?:Group\s+(\d+)\s+)?Pid\s+\d+\s+on\s+(\S+)\s+device\s+\d+\s+\[[^\]]*\]\s+(.+)")
_VERSION = re.compile(r"nccl-tests version (\S+)|NCCL version (\S+)")
_NAME = re.compile(r"Collective test starting:\s*(\S+)")
_OPS = ("sum", "prod", "max", "min", "avg", "mulsum", "none", "all")


def _read_text(text: str, path: Path, given: str | None) -> list[Log]:
    lines = [_TAG.sub("", line, count=1) for line in text.splitlines()]
    groups: dict[str, list[tuple[int, str, str]]] = {}
    times: dict[int, float] = {}
    for line in lines:
        rank = _RANK.search(line)
        if rank:
            groups.setdefault(rank[2] or "0", []).append((int(rank[1]), rank[3], rank[4].strip()))
            continue
        row = _row(line)
        if row:
            times.setdefault(*row)
    version = next((" ".join(filter(None, found.groups())) for found in map(_VERSION.search, lines) if found), "")
    name = next((found[1] for found in map(_NAME.search, lines) if found), "")
    return _logs(_collective(name, path, given), list(groups.values()), times, version, path)


def _row(line: str) -> tuple[int, float] | None:
    """(bytes, out-of-place seconds) of a row of results."""
    fields = line.split()
    if len(fields) < 11 or not fields[0].isdigit() or not fields[1].isdigit() or fields[2].isdigit():
        return None
    at = 4 if fields[3] in _OPS else 3
    if re.fullmatch(r"-?\d+", fields[at]) and len(fields) - at > 8:  # the root; old builds have none
        at += 1
    try:
        microseconds = float(fields[at])
    except ValueError:
        return None
    return int(fields[0]), microseconds / 1e6


# ---------------------------------------------------------------- JSON


def _read_json(text: str, path: Path, given: str | None) -> list[Log]:
    try:
        data: Any = json.loads(text)
        groups: dict[str, list[tuple[int, str, str]]] = {}
        for each in data["devices"]:
            name = str(each["device_info"])
            row = (int(each["rank"]), str(each["hostname"]), re.sub(r"^\[[^\]]*\]\s*", "", name))
            groups.setdefault(str(each.get("group", 0)), []).append(row)
        times: dict[int, float] = {}
        for each in data["results"]:
            times.setdefault(int(each["size"]), float(each["out_of_place"]["time"]) / 1e6)
        said = str(data.get("config", {}).get("collective", "")) or " ".join(map(str, data.get("args", ())))
        version = str(data.get("nccl_version", data.get("version", "")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProfileError(f"{path} is no JSON of nccl-tests ({type(error).__name__}: {error})") from error
    return _logs(_collective(said, path, given), list(groups.values()), times, version, path)


def _logs(
    collective: str,
    groups: Sequence[Sequence[tuple[int, str, str]]],
    times: Mapping[int, float],
    version: str,
    path: Path,
) -> list[Log]:
    useful = {num_bytes: seconds for num_bytes, seconds in sorted(times.items()) if num_bytes and seconds > 0}
    if not groups or not useful:
        missing = "lines of ranks" if not groups else "rows of results"
        raise ProfileError(f"{path} has no {missing}: is it the whole log of one of nccl-tests' programs?")
    found = []
    for rows in groups:
        ordered = sorted(rows)
        if len(ordered) < 2:
            raise ProfileError(f"{path} is of one rank: a collective needs two")
        hosts, devices = tuple(host for _, host, _ in ordered), tuple(device for _, _, device in ordered)
        found.append(Log(collective, hosts, devices, useful, version))
    return found
