"""`autotp profile`: what this machine can do, measured; `autotp profile import`: what logs of nccl-tests say."""

import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from autotp.errors import AutoTPError
from autotp.report.units import rate, seconds, size

from . import options as opt
from .lazy import load
from .output import Answer
from .tables import plain_table

app = typer.Typer(rich_markup_mode=None, add_completion=False)

Output = Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Write the cluster profile here.")]


@app.callback(invoke_without_command=True)
def profile(
    context: typer.Context,
    output: Output = Path("cluster.json"),
    nproc: Annotated[
        int | None, typer.Option(metavar="N", help="Ranks to start: one per GPU, or per CPU core, if not given.")
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(metavar="cpu|cuda|0,1", help="What to measure: all GPUs if there are any, else the CPU."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full/--quick", help="Every group, size and dtype, many times; or what plans need most.")
    ] = False,
    budget: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds after which no further round is begun.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Of the cluster; the file's if not given.")] = None,
    json: opt.Json = False,
) -> Answer | None:
    """Measure this machine, or all machines of torchrun, and write a cluster profile that plans can be made for.

    Finished measurements are kept beside the output: after an interruption the same command goes on from there.

    Example:

      autotp profile -o mine.json --nproc 2

      autotp plan model.py --cluster mine.json
    """
    if context.invoked_subcommand is not None:
        return None
    if budget is not None and not budget > 0:
        raise AutoTPError(f"--budget {budget:g}: a positive number of seconds is needed")
    found = load("measuring.profile").profile(
        output, num_ranks=nproc, devices=devices, is_full=full, budget_s=budget, name=name
    )
    if found is None:  # another rank answers
        return None
    data = {
        "output": str(output), "cluster": found.cluster.name, "identity": found.cluster.identity(),
        "num_rounds": found.num_rounds, "num_resumed": found.num_resumed, "seconds": found.seconds,
        "warnings": list(found.warnings), "devices": list(found.cluster.devices),
    }  # fmt: skip
    return Answer(data, lambda: _text(found.cluster, output, found))


@app.command("import")
def import_(
    logs: Annotated[list[str], typer.Argument(metavar="FILE...", help="Logs of nccl-tests, as text or JSON.")],
    output: Output = Path("cluster.json"),
    collective: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of logs that do not say it, as in all_gather.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", help="The cluster that says what the logs do not, as the link inside a node."
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Device of the catalogue, where the logs' name is not known there."),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Of the cluster; the file's if not given.")] = None,
    json: opt.Json = False,
) -> Answer:
    """Make a cluster profile from logs of nccl-tests: links as measured, devices as in the catalogue.

    Example:

      autotp profile import all_reduce.txt all_gather.json -o mine.json
    """
    opt.check_folder(output)
    reader, maker = load("hardware.nccl_tests"), load("hardware.import_nccl")
    found = [log for path in logs for log in reader.read_log(path, collective)]
    known = load("hardware.catalogue").load_cluster(base) if base is not None else None
    today = datetime.date.today().isoformat()
    cluster = maker.import_logs(found, name or output.stem, today, base=known, device=device)
    load("plan_file").write_atomically(output, cluster.dumps())
    data = {"output": str(output), "cluster": cluster.name, "identity": cluster.identity(), "num_logs": len(found)}
    return Answer(data, lambda: _text(cluster, output, None))


def _spread(measured: Any) -> str:
    return f"{measured.spread:.0%}" if measured.spread else ""


def _text(cluster: Any, output: Path, found: Any) -> Iterable[RenderableType]:
    yield Text.assemble(("ok", "bold green"), f": {cluster.name}: {cluster.max_ranks} ranks; written to {output}")
    table = plain_table("Devices", "device", "ranks", "matmul", "memory", "bandwidth", "launch", "spread")
    for name, device in cluster.device_profiles.items():
        rates = ", ".join(f"{dtype} {rate(best, 'flop')}" for dtype, best in device.matmul_flops_per_s.items())
        table.add_row(
            name, str(cluster.devices.count(name)), rates, size(device.memory_bytes),
            rate(device.memory_bytes_per_s, "B"), seconds(device.launch_s), _spread(device),
        )  # fmt: skip
    yield table
    table = plain_table("Links", "link", "kind", "collective", "ranks", "latency", "bandwidth", "spread")
    for place, link in (*cluster.links.items(), *cluster.groups.items()):
        for kind, numbers in link.collectives.items():
            for count in numbers.num_ranks:
                latency_s, bandwidth = numbers.at(count)
                table.add_row(
                    place, link.kind, kind, str(count), seconds(latency_s), rate(bandwidth, "B"), _spread(link)
                )
    yield table
    if found is not None:
        resumed = f", {found.num_resumed} measurements from before" if found.num_resumed else ""
        yield Text(f"{found.num_rounds} rounds in {found.seconds:.0f} s{resumed}")
        for warning in found.warnings:
            yield Text.assemble(("warning: ", "yellow"), warning)
    yield Text(f"plan with it: autotp plan MODEL --cluster {output}")
