"""`autotp verify`: run the split model and the whole one, and compare."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from autotp.errors import AutoTPError
from autotp.report.units import size

from . import options as opt
from .lazy import load
from .output import Answer
from .stages import progress

DIFFERENT = 1


def verify(
    model: opt.Model,
    settings: opt.Settings = None,
    batch: opt.Batch = None,
    seq: opt.Seq = None,
    plan: Annotated[
        str | None,
        typer.Option(metavar="PLAN", help="A plan of `autotp plan -o`; else one is made that splits all it can."),
    ] = None,
    devices: opt.Devices = None,
    mesh: opt.MeshText = None,
    cluster: opt.Cluster = None,
    mode: Annotated[
        str | None,
        typer.Option(metavar="train|infer", help="The plan's mode if not given, else train.", show_default=False),
    ] = None,
    dtype: opt.Dtype = None,
    backend: Annotated[
        str, typer.Option(metavar="local|gloo|nccl", help="Simulated ranks in one process, or real processes.")
    ] = "local",
    dynamic: opt.Dynamic = None,
    json: opt.Json = False,
) -> Answer:
    """Compare outputs, every gradient, and parameters after an SGD step, of MODEL split and whole.

    Exit code 0 when they agree, 1 when they differ, 2 on an error.

    Example:

      autotp verify examples/llama.py --devices 2 --backend gloo
    """
    axes = opt.parse_mesh(devices, mesh)
    chosen = opt.parse_settings(settings)
    if plan is not None and (axes is not None or cluster is not None):
        raise AutoTPError(
            "a plan says its mesh and cluster: give --plan alone, or --devices, --mesh and --cluster without it"
        )
    with progress("loading"):
        made = load("plan_file").load(plan) if plan is not None else None
        if made is not None and mode is not None and made.mode != mode:
            raise AutoTPError(f"{plan} was made for --mode {made.mode}, not {mode}: plan again, or leave out --mode")
        source = load("capture.model_file").load_model(model, chosen, batch, seq)
        verification = load("verification")
    with progress("verifying"):
        found = verification.verify(
            source, plan=made, mesh=axes, cluster=cluster, mode=made.mode if made else mode or "train", dtype=dtype,
            backend=backend, dynamic=dynamic,
        )  # fmt: skip
    return Answer(dict(found), lambda: _text(model, backend, found), 0 if found["ok"] else DIFFERENT)


def _text(model: str, backend: str, found: Mapping[str, Any]) -> Iterable[RenderableType]:
    yield Text.assemble(
        ("ok" if found["ok"] else "DIFFERENT", "bold green" if found["ok"] else "bold red"),
        f": {model} on {found['ranks']} ranks ({backend}) ",
        "computes what the whole model does" if found["ok"] else "does not compute what the whole model does",
    )
    table = Table(box=None, show_header=False)
    for name, error in found["max_relative_error"].items():
        table.add_row(f"largest relative error of {name}", "not compared" if error is None else f"{error:.2e}")
    local, whole = found["parameter_bytes_per_rank"], found["whole_parameter_bytes"]
    table.add_row("parameters per rank", f"{size(min(local))} to {size(max(local))} of {size(whole)}")
    table.add_row("matmul FLOPs split over every axis", f"{found['coverage']['split_matmul_flops_fraction']:.1%}")
    yield table
    if not found["ok"]:
        yield Text("A plan that does not verify is a bug in autotp: please report it with the model.", style="yellow")
