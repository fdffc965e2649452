"""The picture of a run: what the rows of its log say, over the steps."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]  # see `RunRecords`

LATEST = ("lr", "grad_norm")  # of the last step; the others are means
_NO_QUANTITY = {"step", "epoch", "split"}
_STYLES: dict[str, dict[str, Any]] = {
    "epoch so far": {"label": "training, mean of the epoch so far", "color": "#9bbcdc", "lw": 1.0},
    "train": {"label": "training, epoch", "color": "#1f5f99", "lw": 1.8, "marker": "."},
    "validation": {"label": "validation", "color": "#d1611b", "lw": 1.8, "marker": "."},
}
_PANEL = 4.2, 2.8  # inches
_COLUMNS = 3
_FEW = 10  # points that get a marker, as a single one has no line
_LOG_RATIO = 20  # of a loss's highest value to its lowest, from which small ones would look alike


def draw_curves(rows: Sequence[Row], skipped: Sequence[str] = ()) -> bytes:
    """PNG of `curve_figure`."""
    picture = io.BytesIO()
    curve_figure(rows, skipped).savefig(picture, format="png", dpi=100)
    return picture.getvalue()


def curve_figure(rows: Sequence[Row], skipped: Sequence[str] = ()) -> Figure:
    """A panel for each quantity, in a grid: losses, then metrics, then gradient norm and rate.

    Args:
        rows: of the log.
        skipped: quantities that are left out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = dict.fromkeys(name for row in rows for name in row)
    names = sorted((n for n in found if n not in {*_NO_QUANTITY, *skipped}), key=_place)
    columns = min(_COLUMNS, math.ceil(math.sqrt(max(len(names), 1))))
    lines = math.ceil(max(len(names), 1) / columns)
    width, height = _PANEL[0] * columns, _PANEL[1] * lines + 0.4
    figure = Figure(figsize=(width, height))
    # Fixed margins: measuring the labels would take Matplotlib as long as drawing everything.
    left, right, bottom, top = 0.6 / width, 1 - 0.2 / width, 0.5 / height, 1 - 0.75 / height
    figure.subplots_adjust(left, bottom, right, top, wspace=0.25, hspace=0.55)
    FigureCanvasAgg(figure)
    shown: dict[str, Artist] = {}
    for number, name in enumerate(names):
        axes = figure.add_subplot(lines, columns, number + 1)
        _draw(axes, name, rows)
        handles, labels = axes.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    if shown:
        figure.legend(list(shown.values()), list(shown), loc="upper center", ncols=len(shown))
    return figure


def _place(name: str) -> int:
    """Where a quantity stands among the others; equals stay in the order of the log."""
    if name == "loss":
        return 0
    return {"grad_norm": 3, "lr": 4}.get(name, 1 if name.startswith("loss") else 2)


def _draw(axes: Axes, name: str, rows: Sequence[Row]) -> None:
    having = [row for row in rows if name in row]
    if name in LATEST:
        points = [(row["step"], row[name]) for row in having]
        marker = "." if len(points) < _FEW else ""
        color = _STYLES["train"]["color"]
        axes.plot(*zip(*points, strict=True), color=color, marker=marker, label="_")
    else:
        for split, style in _STYLES.items():
            if points := list(_points(name, split, having)):
                axes.plot(*zip(*points, strict=True), **style)
    values = [row[name] for row in having if math.isfinite(row[name])]
    if name.startswith("loss") and 0 < min(values, default=0) * _LOG_RATIO < max(values):
        axes.set_yscale("log")
    if name == "lr":
        axes.ticklabel_format(axis="y", scilimits=(0, 0))
    axes.set(title="learning rate" if name == "lr" else name.replace("_", " "), xlabel="step")
    axes.grid(alpha=0.3)


def _points(name: str, split: str, rows: Sequence[Row]) -> Iterator[tuple[int, float]]:
    """The quantity over the steps. A mean of the epoch so far begins again with each epoch."""
    chosen = [row for row in rows if row["split"] == split]
    for _, epoch in itertools.groupby(chosen, lambda row: row["epoch"]):
        for row in epoch:
            yield row["step"], row[name]
        if split == "epoch so far":
            yield row["step"], math.nan
