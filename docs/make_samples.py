"""Sample reports in reports/samples/ from the examples, and pictures of them in docs/pictures/ where Chromium is found."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
SAMPLES = {
    "llama-8b-8xh100": ["examples/llama.py", "--set", "size=8b", "--cluster", "dgx-h100", "--devices", "8"],
    "llama-70b-two-nodes": ["examples/llama.py", "--set", "size=70b", "--cluster", "dgx-h100-x2", "--mesh", "dp=2,tp=8"],
    "resnet-4xrtx4090": ["examples/resnet.py", "--set", "width=128", "--set", "blocks=3", "--batch", "256", "--cluster",
                         "pcie-4xrtx4090", "--devices", "4"],
    "mixed-box": ["examples/llama.py", "--set", "size=8b", "--set", "layers=8", "--cluster", "examples/mixed-box.json",
                  "--devices", "4"],
}  # fmt: skip
WIDTH, HEIGHT = 1100, 1000  # of a picture, in pixels
COLOURS = 200  # so that it stays small


def main() -> None:
    """Make all samples, or those named on the command line."""
    samples, pictures = ROOT / "reports" / "samples", ROOT / "docs" / "pictures"
    for name in sys.argv[1:] or SAMPLES:
        page = samples / f"{name}.html"
        command = [str(Path(sys.executable).parent / "autotp"), "plan", *SAMPLES[name], "--report", str(page), "--json"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        print(f"{page.relative_to(ROOT)}: {page.stat().st_size / 1e6:.2f} MB")
    sys.path.insert(0, str(ROOT / "tests"))
    from browser import CHROMIUM, browser  # noqa: PLC0415  # lies with the tests

    if CHROMIUM is None:
        print("no Chromium here: no pictures are made")
        return
    with browser() as page:
        for name, dark in (("llama-8b-8xh100", False), ("mixed-box", True)):
            page.open(samples / f"{name}.html", width=WIDTH, dark=dark)
            take(page, pictures / f"{name}.png", "header")
            take(page, pictures / f"{name}-block.png", "svg.block")


def take(page, path: Path, selector: str) -> None:
    """A picture of the page from where an element begins."""
    code = f"(() => {{ const b = document.querySelector('{selector}').getBoundingClientRect();"
    x, y, width, height = page.evaluate(code + " return [b.x, b.y + window.scrollY, b.width, b.height]; })()")
    if selector == "header":
        x, y, width, height = 0, 0, WIDTH, HEIGHT
    page.screenshot(path, clip=(x, y, width, height))
    Image.open(path).convert("RGB").quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main()
