"""The one look of all figures: colours by meaning, in a light and a dark tone, and text that stays text."""

import io
import re
from importlib.resources import files

import matplotlib as mpl
from matplotlib.figure import Figure

# Light tones are what matplotlib draws with; in the page each becomes a CSS variable, which has a dark tone too.
LIGHT = {
    "ink": "#1d2733",
    "line": "#cfd6de",
    "muted": "#6b7785",
    "forward": "#2c6fb7",
    "backward": "#7a55b5",
    "optimizer": "#2f8a5b",
    "communication": "#d9812a",
    "limit": "#bf3f38",
    "parameters": "#2c6fb6",
    "gradients": "#7a55b4",
    "state": "#2f8a5a",
    "activations": "#cf9a1d",
    "transient": "#b3628f",
    "process": "#8a939d",
    "other": "#2795a0",
}
DARK = {
    "ink": "#e4e9ef",
    "line": "#3a444f",
    "muted": "#97a3b0",
    "forward": "#6caaea",
    "backward": "#ab8fe6",
    "optimizer": "#63bb8c",
    "communication": "#eea658",
    "limit": "#ec7a72",
    "parameters": "#6caae9",
    "gradients": "#ab8fe5",
    "state": "#63bb8b",
    "activations": "#e5bb55",
    "transient": "#d98fb8",
    "process": "#87929e",
    "other": "#5cc3cd",
}
_RC = {
    "svg.fonttype": "none",
    "svg.hashsalt": "autotp",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib: equal sizes, and so equal bytes, on every machine
    "font.size": 9,
    "text.color": LIGHT["ink"],
    "axes.labelcolor": LIGHT["ink"],
    "axes.edgecolor": LIGHT["line"],
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "grid.color": LIGHT["line"],
    "grid.linewidth": 0.6,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, in the report's style."""
    with mpl.rc_context(styled()):
        return Figure(figsize=(width, height))


def styled() -> "mpl.RcParams":
    """The settings under which axes must be made and drawn: use as `with mpl.rc_context(styled())`."""
    return mpl.RcParams(_RC)


def svg(fig: Figure) -> str:
    """The figure as a complete SVG file; equal figures give equal bytes."""
    buffer = io.StringIO()
    with mpl.rc_context(styled()):
        fig.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def png(fig: Figure) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context(styled()):
        fig.savefig(buffer, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def standalone(element: str) -> str:
    """An element of the page that uses its colours as an SVG file of its own, in light tones."""
    css = files("autotp.reports").joinpath("report.css").read_text()
    rules = "\n".join(line for line in css.splitlines() if line.startswith("svg.block") and line.endswith("}"))
    colours = "".join(
        f"--{name}: {colour}; " for name, colour in {**LIGHT, "page": "#ffffff", "card": "#f5f7f9"}.items()
    )
    look = f"<style>svg {{ {colours} font-family: sans-serif; background: #ffffff; }}\n{rules}</style>"
    return element.replace(">", ">" + look, 1)


def inline(text: str, prefix: str = "") -> str:
    """An SVG file as an element of the page: as wide as its place, in the page's colours and font.

    `prefix`: of all ids in it, which must be unique in the page.
    """
    text = text[text.index("<svg") :]
    text = re.sub(r'<svg ([^>]*?)width="[\d.]+pt" ([^>]*?)height="[\d.]+pt"', r"<svg \1\2", text, count=1)
    text = re.sub(r'<svg ([^>]*?)height="[\d.]+pt" ([^>]*?)width="[\d.]+pt"', r"<svg \1\2", text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{prefix}", text)
    for name, colour in LIGHT.items():
        text = text.replace(colour, f"var(--{name})")
    return text.replace("'DejaVu Sans', sans-serif", "inherit").replace("'DejaVu Sans'", "inherit").strip()
