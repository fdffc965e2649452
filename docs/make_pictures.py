"""Make the pictures of README and docs from what `make demo` left in runs/demo. Needs Chromium.

    python docs/make_pictures.py

They are drawn with few colours, so that a clone of the repository stays small.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

RUNS = Path("runs/demo")
OUT = Path(__file__).with_name("pictures")
WIDTH, COLOURS = 900, 128


def main() -> None:
    """The report page, the curves of pretraining, one inpainted clip, the page of retrieval."""
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "report.html")
        avprep = Path(sys.executable).with_name("avprep")
        subprocess.run([avprep, "report", RUNS / "shards/train", "--out", page], check=True)
        photograph(page, "report.png")
    photograph((RUNS / "retrieval/retrieval.html").resolve(), "retrieval.png")
    save(RUNS / "pretrain/curves.png", "curves.png")
    save(next(iter(sorted((RUNS / "inpaint").glob("*.png")))), "inpainting.png")


def photograph(page: Path, name: str) -> None:
    """The top of an HTML page, as a browser shows it."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"
    command = (browser, "--headless", "--no-sandbox", "--hide-scrollbars")
    size = ("--window-size=1280,1000", "--virtual-time-budget=5000")
    with tempfile.TemporaryDirectory() as folder:
        screen = Path(folder, "screen.png")
        subprocess.run([*command, *size, f"--screenshot={screen}", page.as_uri()], check=True)
        save(screen, name)


def save(source: Path, name: str) -> None:
    """Copy a picture, smaller."""
    with Image.open(source) as picture:
        scale = min(WIDTH / picture.width, 1.0)
        size = round(picture.width * scale), round(picture.height * scale)
        small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        small.quantize(COLOURS).save(OUT / name, optimize=True)


if __name__ == "__main__":
    main()
