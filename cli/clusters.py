"""`autotp clusters`: the clusters that plans can be made for, and what is known of each."""

from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from autotp.report.units import rate, seconds, size

from . import options as opt
from .lazy import load
from .output import Answer
from .tables import plain_table


def clusters(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A cluster, or a JSON file of one: show all its numbers.")
    ] = None,
    json: opt.Json = False,
) -> Answer:
    """List the known clusters, or show one of them: its numbers, and where each is from.

    Example:

      autotp clusters dgx-h100
    """
    catalogue = load("hardware.catalogue")
    if name is not None:
        cluster = catalogue.load_cluster(name)
        return Answer(cluster.to_json(), lambda: _one(cluster))
    known = [catalogue.load_cluster(each) for each in catalogue.list_clusters()]
    return Answer({"clusters": [_row(cluster) for cluster in known]}, lambda: _list(known))


def _row(cluster: Any) -> dict[str, Any]:
    return {
        "name": cluster.name,
        "num_devices": cluster.max_ranks,
        "num_nodes": -(-cluster.max_ranks // cluster.ranks_per_node),
        "devices": list(dict.fromkeys(cluster.devices)),
        "memory_bytes": min(device.memory_bytes for device in cluster.device_profiles.values()),
        "links": {place: link.kind for place, link in cluster.links.items()},
        "is_measured": _is_measured(cluster),
    }


def _is_measured(cluster: Any) -> bool:
    parts = [*cluster.device_profiles.values(), *cluster.links.values()]
    return all(part.is_measured for part in parts)


def _list(known: Iterable[Any]) -> Iterable[RenderableType]:
    table = plain_table("Clusters", "name", "devices", "nodes", "memory each", "links", "numbers")
    for row in map(_row, known):
        table.add_row(
            row["name"], f"{row['num_devices']} × {', '.join(row['devices'])}", str(row["num_nodes"]),
            size(row["memory_bytes"]), ", ".join(f"{kind} {place}" for place, kind in row["links"].items()),
            "measured" if row["is_measured"] else "datasheet in part",
        )  # fmt: skip
    yield table
    yield "autotp clusters NAME shows one of them with the source of every number."


def _one(cluster: Any) -> Iterable[RenderableType]:
    row = _row(cluster)
    yield Text.assemble(
        (cluster.name, "bold"),
        f"  {row['num_devices']} devices on {row['num_nodes']} node(s); {cluster.source} ({cluster.date})",
    )
    for device in cluster.device_profiles.values():
        yield from _device(device)
    for place, link in cluster.links.items():
        yield from _link(place, link)


def _device(device: Any) -> Iterable[RenderableType]:
    table = plain_table(f"device {device.name}: {_provenance(device)}", "what", "value", "source")
    facts = {
        "memory_bytes": size(device.memory_bytes),
        "memory_bytes_per_s": rate(device.memory_bytes_per_s, "B"),
        "matmul_flops_per_s": "\n".join(f"{name} {rate(v, 'flop')}" for name, v in device.matmul_flops_per_s.items()),
        "peak_flops_per_s": "\n".join(f"{name} {rate(v, 'flop')}" for name, v in device.peak_flops_per_s.items()),
        "matmul_efficiency": f"{device.matmul_efficiency:.0%}",
        "attention_efficiency": f"{device.attention_efficiency:.0%}",
        "launch_s": seconds(device.launch_s),
        "process_bytes": size(device.process_bytes),
        "overlap_efficiency": f"{device.overlap_efficiency:.0%}" if device.overlap_efficiency else "",
        "together_factors": "\n".join(f"{name} ×{factor:.2f}" for name, factor in device.together_factors.items()),
    }
    for field, value in facts.items():
        if value:
            table.add_row(field, value, device.source.get(field, ""))
    yield table


def _link(place: str, link: Any) -> Iterable[RenderableType]:
    where = {"intra": "inside a node", "inter": "between nodes"}.get(place, place)
    table = plain_table(
        f"link {where}: {link.kind}, {_provenance(link)}",
        "collective",
        "ranks",
        "latency",
        "bus bandwidth",
    )
    for kind, profile in link.collectives.items():
        for index, num_ranks in enumerate(profile.num_ranks):
            table.add_row(
                kind if index == 0 else "", str(num_ranks), seconds(profile.latency_s[index]),
                rate(profile.bus_bytes_per_s[index], "B"),
            )  # fmt: skip
    yield table
    yield f"source: {link.source}"


def _provenance(part: Any) -> str:
    return f"{'measured' if part.is_measured else 'datasheet'}, {part.date}"
