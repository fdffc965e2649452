"""`cavmae predict`: the most probable labels of video files."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from avprep import storage
from avprep.cli.common import Tolerance
from avprep.cli.flags import PATH, flags
from avprep.cli.progress import Bars, say
from avprep.csvfile import csv_bytes
from avprep.errors import Unreadable, UserError
from avprep.failures import check_failures, printable
from avprep.option import Options, option
from avprep.progress import Progress
from cavmae.cli.options import warn
from cavmae.evaluation.options import PredictOptions

if TYPE_CHECKING:  # imported for real inside the command, to keep --help quick
    from cavmae.evaluation.predict import Prediction


@dataclass(frozen=True)
class Rows(Options):
    """How predictions are printed."""

    top: int = option(5, "Labels per file.", at_least=1)
    as_json: bool = option(False, "Print one line of JSON per file.", flag="--json")
    similarity_csv: Path | None = option(
        None, "With --similarity: write path, frame, seconds and similarity, a row per frame."
    )

    def shown(self, path: str, outcome: Prediction | Unreadable, with_similarity: bool) -> str:
        """A file and what was found, for a program or for a person."""
        return (as_json if self.as_json else as_text)(path, outcome, self.top, with_similarity)


@click.command()
@click.argument("videos", nargs=-1, required=True, type=PATH)
@flags(
    options=PredictOptions,
    tolerance=Tolerance,
    rows=Rows,
    # Those of shards are for shards, and those of the model are its own.
    without=(
        *("frames", "frame_size", "pixels", "max_audio", "incomplete"),
        *("missing_audio", "missing_video", "scratch_size"),
    ),
)
def predict(
    videos: tuple[Path, ...], options: PredictOptions, tolerance: Tolerance, rows: Rows
) -> None:
    """The most probable labels of each of VIDEOS, which are files or folders.

    A file without video, or without audio, is classified by what it has. A file that cannot be
    decoded is listed with its cause; the exit code is 1 when that is every file, or more than
    --max-failures.

    \b
    Example:
      cavmae predict --checkpoint runs/finetune holiday.mp4 videos/
    """
    from cavmae.evaluation.predict import Predictor, find_files

    if rows.similarity_csv is not None and not options.similarity:
        raise UserError("--similarity-csv writes similarities: give --similarity, too.")
    files = find_files(videos)
    failed = 0
    compared: list[tuple[object, ...]] = [("path", "frame", "seconds", "similarity")]
    with Predictor(options) as predictor, Bars("predict") as bars:
        warn(*predictor.notes)
        bars(Progress("file", 0, len(files)))
        for done, (path, outcome) in enumerate(predictor.predict_many(files), start=1):
            failed += isinstance(outcome, Unreadable)
            say(rows.shown(path, outcome, options.similarity), sys.stdout)
            bars(Progress("file", done, len(files), failed))
            if not isinstance(outcome, Unreadable):
                compared += [
                    (path, one.frame, one.seconds, one.cosine) for one in outcome.similarity
                ]
    if rows.similarity_csv is not None:
        storage.make_folder(rows.similarity_csv.parent)
        storage.write_atomic(rows.similarity_csv, csv_bytes(compared))
    check_failures(failed, len(files), tolerance.max_failures)


def as_json(path: str, outcome: Prediction | Unreadable, top: int, with_similarity: bool) -> str:
    """One line of JSON."""
    if isinstance(outcome, Unreadable):
        return json.dumps({"path": path, "cause": outcome.cause, "detail": outcome.detail})
    labels = [dataclasses.asdict(label) for label in outcome.top(top)]
    facts = {"path": path, "mode": outcome.mode, "labels": labels}
    if with_similarity:
        facts["similarity"] = [dataclasses.asdict(one) for one in outcome.similarity]
    return json.dumps(facts)


def as_text(path: str, outcome: Prediction | Unreadable, top: int, with_similarity: bool) -> str:
    """A line for the file, and one for each label."""
    shown = printable(path)
    if isinstance(outcome, Unreadable):
        return f"{shown}\n{'':>9}  {outcome.cause}: {printable(outcome.detail)}"
    labels = [f"{label.score:9.4f}  {label.name}" for label in outcome.top(top)]
    mode = "" if outcome.mode == "multimodal" else f"  ({outcome.mode})"
    lines = [f"{shown}{mode}", *labels]
    if with_similarity:
        found = [f"{one.cosine:.3f} ({one.seconds:.1f} s)" for one in outcome.similarity]
        lines.append(f"{'':9}  sound and frame: {', '.join(found) or 'one of them is missing'}")
    return "\n".join(lines)
