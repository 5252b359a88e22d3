"""`autotp plan`: how to split a model, and what it takes."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from autotp.errors import AutoTPError
from autotp.report.units import parse_bytes

from . import options as opt
from .describe import describe_plan, summary_json
from .lazy import load
from .output import Answer
from .remaining import stages_of_plan
from .stages import progress


def plan(
    model: opt.Model,
    settings: opt.Settings = None,
    batch: opt.Batch = None,
    seq: opt.Seq = None,
    devices: opt.Devices = None,
    mesh: opt.MeshText = None,
    cluster: opt.Cluster = None,
    mode: Annotated[str, typer.Option(metavar="train|infer", help="Training step or inference.")] = "train",
    dtype: opt.Dtype = None,
    optimizer: Annotated[str, typer.Option(metavar="none|sgd|adamw", help="Whose state takes memory.")] = "adamw",
    checkpointing: Annotated[
        str, typer.Option(metavar="none|selective|full", help="What is computed again in backward instead of kept.")
    ] = "none",
    accumulation: Annotated[int, typer.Option(metavar="N", help="Micro-batches per optimizer step.")] = 1,
    overlap: Annotated[
        bool, typer.Option("--overlap", help="Parameters' gradients are added up beside the rest of the backward pass.")
    ] = False,
    reduce_once: Annotated[
        bool, typer.Option("--reduce-once", help="And once per step, not per micro-batch: by module.no_sync().")
    ] = False,
    compiled: Annotated[bool, typer.Option("--compiled", help="Prices under torch.compile.")] = False,
    reduce_dtype: Annotated[
        str | None,
        typer.Option(
            metavar="fp32", help="Add up partial sums of halves over ranks in it: exact, and twice the bytes."
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Limit per device, as in 70GiB; what the device has if not given."),
    ] = None,
    objective: Annotated[str, typer.Option(metavar="time|memory", help="What to minimise.")] = "time",
    strategy: Annotated[
        str,
        typer.Option(
            metavar="optimal|greedy|replicated|megatron", help="Who decides: the integer program, or a baseline."
        ),
    ] = "optimal",
    force: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN=WORD", help="Split what matches so, as in layers.*.mlp.down_proj=column. Repeatable."
        ),
    ] = None,
    forbid: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN=WORD", help="Never split what matches so. Repeatable.")
    ] = None,
    what_if: Annotated[
        list[str] | None,
        typer.Option(
            "--what-if", metavar="CHANGE", help="Change the cluster first: link.intra.bandwidth*=2. Repeatable."
        ),
    ] = None,
    no_fold: Annotated[bool, typer.Option("--no-fold", help="Decide for every layer by itself.")] = False,
    time_limit: Annotated[
        float, typer.Option(metavar="S", help="Seconds after which the solver gives the best plan it has, and its gap.")
    ] = 60.0,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time the operators that strategies would run here; kept for other plans.")
    ] = False,
    dynamic: opt.Dynamic = None,
    strict: Annotated[bool, typer.Option("--strict", help="An operator without a rule is an error.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the plan here.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="FILE", help="Write a report as an HTML page here, with a sweep over degrees."
        ),
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Try tp=1, 2, 4, ... up to --devices; the plan is the fastest that fits.")
    ] = False,
    prices: Annotated[
        bool, typer.Option("--prices", help="Also say what a GiB more memory and 10% more bandwidth would save.")
    ] = False,
    keep_order: Annotated[
        bool, typer.Option("--keep-order", help="Rank r is on device r of the cluster, whatever would be faster.")
    ] = False,
    memory_curve: Annotated[
        bool, typer.Option("--memory-curve", help="Also plan within less memory: what a tighter limit costs.")
    ] = False,
    json: opt.Json = False,
) -> Answer:
    """Plan how to split MODEL over a mesh of a cluster: the fastest plan that fits.

    Examples:

      autotp plan examples/llama.py --set size=8b --cluster dgx-h100 --devices 8 -o llama.plan.json

      autotp plan config.json --batch 2 --seq 2048 --mesh dp=2,tp=8 --cluster dgx-h100-x2 --report report.html

      autotp plan examples/mlp.py --devices 8 --cluster pcie-8xl4 --sweep --what-if "link.intra.bandwidth*=2"
    """
    axes = opt.parse_mesh(devices, mesh)
    if sweep and mesh is not None:
        raise AutoTPError(f"--sweep and --mesh {mesh} exclude each other: give the most devices by --devices")
    if sweep and dynamic:
        raise AutoTPError("--sweep and --dynamic exclude each other: sweep first, then plan the mesh that was found")
    if sweep and memory_curve:
        raise AutoTPError("--sweep and --memory-curve exclude each other: a curve is of one mesh")
    if sweep and measure:
        raise AutoTPError("--sweep and --measure exclude each other: operators are measured for one degree at a time")
    chosen = opt.parse_settings(settings)
    memory_bytes = parse_bytes(memory) if memory is not None else None
    opt.check_folder(output)
    opt.check_folder(report)
    if not json:  # the answer begins with it
        warnings.filterwarnings("ignore", message="the plan does not fit")
    with progress("loading") as status:
        planner, cost, api = load("planning.planner"), load("cost.training"), load("api")
        asked = planner.Options(
            training=cost.Training(
                mode, optimizer, checkpointing=checkpointing, accumulation=accumulation, is_compiled=compiled,
                overlap=overlap, reduce_once=reduce_once,
                reduce_dtype=reduce_dtype and api.DTYPES.get(reduce_dtype, reduce_dtype),
            ), memory_bytes=memory_bytes, objective=objective, strategy=strategy,
            is_folded=not no_fold, time_limit_s=time_limit, is_strict=strict, force=tuple(force or ()),
            forbid=tuple(forbid or ()), keeps_order=keep_order,
        )  # fmt: skip
        source = load("capture.model_file").load_model(model, chosen, batch, seq)
        profile = load("analysis.what_if").changed(api.as_cluster(cluster), what_if or ())
        sweeps, pricing = load("analysis.sweeps"), load("analysis.prices")
        num_degrees = len(sweeps.degrees(api.as_mesh(axes, profile).num_ranks))
        status.expect(
            stages_of_plan(num_degrees, is_sweep=sweep, has_curve=memory_curve, has_report=report is not None)
        )
        counts = {}
        if measure:
            measured = load("measuring.operators").measured_cluster(source, axes, profile, asked, dtype, status.update)
            profile, counts = measured.cluster, measured.counts()
        common = {"cluster": profile, "dtype": dtype, "options": asked}
        common["progress"] = status.update
        if sweep:
            planned = sweeps.timed_sweep(source, None, devices=devices, **common)
        else:
            planned = api.timed_plan(source, mesh=axes, dynamic=dynamic, memory_curve=memory_curve, **common)
        if report is not None and not sweep:  # a report says what other degrees would do
            free = replace(asked, force=(), forbid=())
            swept = sweeps.timed_sweep(source, None, devices=planned.plan.mesh.num_ranks, **{**common, "options": free})
            planned = sweeps.beside(planned, swept.plan)
        if prices:

            def again(better: Any) -> Any:
                return api.timed_plan(source, mesh=planned.plan.mesh, **{**common, "cluster": better}).plan

            again_for = ["capturing", "planning"] * len(pricing.used_links(planned.plan))
            status.expect([*again_for, *["drawing"] * (report is not None)])
            planned = replace(planned, plan=pricing.with_prices(planned.plan, profile, again))
        if report is not None:
            status.update("drawing")
            load("report.files").write_page(planned.plan, report)
    if output is not None:
        load("plan_file").save(planned.plan, output)
    data = {
        **summary_json(planned.plan),
        "timing": dict(planned.timing),
        "output": output and str(output),
        "report": report and str(report),
        **({"measured_operators": counts} if measure else {}),
    }
    return Answer(data, lambda: describe_plan(planned.plan, planned.timing, output, report))
