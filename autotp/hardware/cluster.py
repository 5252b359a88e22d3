"""A cluster: which device every rank runs on, and the links between them. JSON in and out."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from autotp.errors import ProfileError
from autotp.hardware.curves import CollectivePoints, MatmulCurve
from autotp.hardware.patterns import Pattern
from autotp.hardware.profile import CollectiveProfile, DeviceProfile, LinkProfile
from autotp.mesh import Mesh

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Island:
    """Ranks of one node that talk to each other over a link of their own, by its name in `links`: NVLink in a PCIe box."""

    link: str
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ClusterProfile:
    """Devices by rank, nodes of `ranks_per_node` neighbouring ranks, and the links inside a node and between nodes.

    `islands`: ranks joined by a link of their own. `groups`: by `Pattern` of a mesh axis, `4x2` for four ranks two apart,
    a link that was measured in just these groups.
    """

    name: str
    devices: tuple[str, ...]
    device_profiles: Mapping[str, DeviceProfile]
    ranks_per_node: int
    links: Mapping[str, LinkProfile]
    source: str
    date: str
    groups: Mapping[str, LinkProfile] = field(default_factory=dict)
    islands: tuple[Island, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def max_ranks(self) -> int:
        return len(self.devices)

    def device(self, rank: int) -> DeviceProfile:
        return self.device_profiles[self.devices[rank]]

    def device_names(self, mesh: Mesh) -> tuple[str, ...]:
        """The distinct devices that a mesh runs on, in rank order."""
        return tuple(dict.fromkeys(self.devices[: mesh.num_ranks]))

    def check(self, mesh: Mesh) -> None:
        """Raise ProfileError where the mesh has more ranks than the cluster."""
        if mesh.num_ranks > self.max_ranks:
            raise ProfileError(
                f"mesh {mesh} has {mesh.num_ranks} ranks, cluster {self.name} only {self.max_ranks}: "
                f"use a smaller mesh or another cluster"
            )

    def link(self, mesh: Mesh, axis: int) -> LinkProfile:
        """The link that the groups of a mesh axis talk over: the one measured in such groups, else the one between nodes
        where any group spans nodes, else the slowest of those inside: a group that lies on an island has the island's.

        A group with k ranks on a node has k ranks' share of the node's network. Raises ProfileError where the mesh is
        larger than the cluster.
        """
        self.check(mesh)
        measured = self.groups.get(str(Pattern(mesh.sizes[axis], mesh.stride(axis))))
        if measured is not None:
            return measured
        rails = []
        for group in mesh.groups(axis):
            nodes = [rank // self.ranks_per_node for rank in group]
            if len(set(nodes)) > 1:
                rails.append(min(map(nodes.count, nodes)))
        if not rails:
            inside = [self._inside(group) for group in mesh.groups(axis)]
            return min(inside, key=lambda link: link.collective("all_reduce").at(max(2, mesh.sizes[axis]))[1])
        if "inter" not in self.links:
            raise ProfileError(
                f"cluster {self.name} has no link between nodes, which mesh axis {mesh.names[axis]} needs"
            )
        return self.links["inter"].joined(min(rails), self.links["intra"])

    def _inside(self, group: Sequence[int]) -> LinkProfile:
        islands = [island.link for island in self.islands if set(group) <= set(island.ranks)]
        return self.links[islands[0] if islands else "intra"]

    def arranged(self, order: Sequence[int]) -> "ClusterProfile":
        """The cluster with rank r on what was device `order[r]`: another numbering of the same machine.

        Links that were measured in groups of certain ranks are of other devices then, and are left out.
        """
        if list(order) == list(range(self.max_ranks)):
            return self
        place = {device: rank for rank, device in enumerate(order)}
        islands = tuple(Island(one.link, tuple(sorted(place[rank] for rank in one.ranks))) for one in self.islands)
        return replace(self, devices=tuple(self.devices[i] for i in order), islands=islands, groups={})

    def to_json(self) -> dict[str, Any]:
        """A dictionary for json.dump, complete in itself: `from_json` gives an equal cluster."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]  # tuples become lists, as in a file

    def dumps(self) -> str:
        """The text of its file, which `load_cluster` reads."""
        return json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, data: Any, where: str = "cluster") -> "ClusterProfile":
        """Build from JSON data after validating it; `where` names the file in messages. Raises ProfileError."""
        validate(data, "cluster", where)
        devices = {name: device_from_json(fields) for name, fields in data["device_profiles"].items()}
        links = {name: _link(fields, f"{where}: links.{name}") for name, fields in data["links"].items()}
        groups = {name: _link(fields, f"{where}: groups.{name}") for name, fields in data.get("groups", {}).items()}
        missing = sorted(set(data["devices"]) - set(devices))
        if missing:
            raise ProfileError(f"{where}: no device_profiles for {', '.join(missing)}")
        wrong = sorted(key for key, device in devices.items() if device.name != key)
        if wrong:
            raise ProfileError(f"{where}: device_profiles.{wrong[0]} holds a device named {devices[wrong[0]].name}")
        if len(data["devices"]) > data["ranks_per_node"] and "inter" not in links:
            raise ProfileError(f"{where}: more ranks than ranks_per_node, but no link called inter")
        islands = tuple(Island(one["link"], tuple(one["ranks"])) for one in data.get("islands", ()))
        for island in islands:
            if island.link not in links or max(island.ranks) >= len(data["devices"]):
                raise ProfileError(
                    f"{where}: the island {list(island.ranks)} needs a link {island.link!r} and its ranks"
                )
            if len({rank // data["ranks_per_node"] for rank in island.ranks}) > 1:
                raise ProfileError(f"{where}: the island {list(island.ranks)} spans nodes: islands lie inside of one")
        made = {
            "devices": tuple(data["devices"]),
            "device_profiles": devices,
            "links": links,
            "groups": groups,
            "islands": islands,
        }
        return cls(**{**data, **made})

    def identity(self) -> str:
        """A hash of everything in the profile: equal clusters, equal identities, on every machine."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]


def _link(fields: Mapping[str, Any], where: str) -> LinkProfile:
    collectives = {}
    for kind, numbers in fields["collectives"].items():
        lists = {key: tuple(value) for key, value in numbers.items() if isinstance(value, list)}
        points = {int(size): _points(given, f"{where}.collectives.{kind}") for size, given in _items(numbers)}
        ranks = lists["num_ranks"]
        if len({len(values) for values in lists.values()}) > 1:
            raise ProfileError(f"{where}.collectives.{kind}: the lists must have equal lengths")
        if list(ranks) != sorted(set(ranks)):
            raise ProfileError(f"{where}.collectives.{kind}: num_ranks must ascend, not {list(ranks)}")
        collectives[kind] = CollectiveProfile(**lists, added_rank_s=numbers["added_rank_s"], points=points)
    return LinkProfile(**{**fields, "collectives": collectives})


def _items(numbers: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return list(numbers.get("points", {}).items())


def _points(given: Mapping[str, Any], where: str) -> CollectivePoints:
    sizes, seconds = tuple(given["num_bytes"]), tuple(given["time_s"])
    if len(sizes) != len(seconds) or list(sizes) != sorted(set(sizes)):
        raise ProfileError(f"{where}.points: num_bytes must ascend, with one time_s for each")
    return CollectivePoints(sizes, seconds)


def device_from_json(fields: Mapping[str, Any]) -> DeviceProfile:
    """A device from JSON data that `validate` accepts as one."""
    curves = {}
    for dtype, curve in fields.get("matmul_curves", {}).items():
        tiles = tuple(tuple(tile) for tile in curve["tiles"])
        scales = tuple((name, tuple(sizes), tuple(factors)) for name, sizes, factors in curve.get("scales", ()))
        curves[dtype] = MatmulCurve(**{**curve, "tiles": tiles, "scales": scales})
    times = {
        key: (forward_s, backward_s) for key, (forward_s, backward_s) in fields.get("operator_times_s", {}).items()
    }
    return DeviceProfile(**{**fields, "matmul_curves": curves, "operator_times_s": times})


@cache
def _schema() -> dict[str, Any]:
    return json.loads(files("autotp.profiles").joinpath("schema.json").read_text())  # type: ignore[no-any-return]


def validate(data: Any, definition: str, where: str) -> None:
    """Check JSON data against a definition of profiles/schema.json. Raises ProfileError saying what is wrong where."""
    schema = {**_schema(), "$ref": f"#/$defs/{definition}"}
    error = best_match(Draft202012Validator(schema).iter_errors(data))
    if error is not None:
        place = ".".join(map(str, error.absolute_path))
        raise ProfileError(f"{where}: {place + ': ' if place else ''}{error.message}")
