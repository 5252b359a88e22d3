"""Options that several commands share, and how their text is read."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from autotp.errors import AutoTPError
from autotp.mesh import Mesh

MODEL_HELP = "A Python model file (build_model, example_inputs), or a Hugging Face config.json or a folder with one."

Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]
PlanFile = Annotated[
    Path, typer.Argument(metavar="PLAN", help="A file that `autotp plan -o` wrote.", show_default=False)
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="K=V", help="Option of the model file; JSON, or else text. Repeatable."),
]
Batch = Annotated[int | None, typer.Option("--batch", metavar="B", help="Batch size of the example inputs.")]
Seq = Annotated[int | None, typer.Option("--seq", metavar="S", help="Sequence length of the example inputs.")]
Devices = Annotated[int | None, typer.Option("--devices", metavar="N", help="Number of devices: the mesh tp=N.")]
MeshText = Annotated[
    str | None,
    typer.Option(
        "--mesh", metavar="M", help="Axes outermost first, as in dp=2,tp=4; all devices of the cluster if not given."
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option("--cluster", metavar="NAME|FILE", help="See `autotp clusters`; cpu where there is no GPU."),
]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", metavar="fp32|bf16|fp16", help="Of the parameters; the model's own if not given."),
]
Dynamic = Annotated[
    str | None,
    typer.Option(
        "--dynamic", metavar="batch,seq", help="Dims that may have other sizes than the example's when the module runs."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on standard output.")]


def parse_settings(settings: list[str] | None) -> dict[str, Any]:
    """`["size=8b", "layers=4"]` to `{"size": "8b", "layers": 4}`: values are JSON, or else text. Raises AutoTPError."""
    found: dict[str, Any] = {}
    for setting in settings or ():
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise AutoTPError(f"cannot read --set {setting!r}: write it as name=value, for example --set size=tiny")
        if name in found:
            raise AutoTPError(f"--set {name} is given twice: once is enough")
        found[name] = _value(text)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text


def _refuse(constant: str) -> None:
    raise ValueError(constant)  # NaN and Infinity are not JSON, and a plan could not store them: they stay text


def check_folder(path: Path | None) -> None:
    """Raises AutoTPError where a file cannot be written since its folder is missing: before any work is done."""
    if path is not None and not path.absolute().parent.is_dir():
        raise AutoTPError(f"cannot write {path}: there is no folder {path.parent}")


def parse_mesh(devices: int | None, mesh: str | None) -> Mesh | None:
    """The mesh of `--devices` or `--mesh`; None where neither is given. Raises AutoTPError."""
    if devices is not None and mesh is not None:
        raise AutoTPError(f"--devices {devices} and --mesh {mesh} exclude each other: --devices N means --mesh tp=N")
    if devices is not None:
        if devices < 1:
            raise AutoTPError(f"--devices {devices}: at least 1 device is needed")
        return Mesh((("tp", devices),))
    return Mesh.parse(mesh) if mesh is not None else None
