"""`cavmae predict`: print what each file shows and sounds like."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import Any

from avprep.cli.progress import ProgressBar
from avprep.errors import Unreadable, UserError
from avprep.failures import FailureLimit, check_failures
from avprep.labels import read_label_csv
from avprep.options import DecodeOptions, IsolationOptions
from cavmae.checkpoints.usage import warn
from cavmae.evaluate.features import one_feature
from cavmae.evaluate.predict import Prediction, PredictOptions, Predictor, find_files


def run_prediction(values: dict[str, Any]) -> None:
    """Classify files and print a row for each as soon as it is known.

    Raises:
        UserError: no classifier, a folder without videos, or an empty segment.
        WorkFailed: not one file could be decoded, or too many could not.
    """
    limit = (
        FailureLimit.parse(values["max_failures"]) if values["max_failures"] is not None else None
    )
    options = PredictOptions(
        mode=values["mode"],
        criterion=values["criterion"],
        frames=one_feature(values["frames"]),
        start=values["start"],
        end=values["end"],
        decode=DecodeOptions(channels=values["channels"], decoder=values["decoder"]),
        limits=IsolationOptions(values["time_limit"], values["memory_limit"]),
    )
    if options.end is not None and options.end <= (options.start or 0.0):
        raise UserError(f"--end {options.end:g} is not after --start {options.start or 0.0:g}.")
    labels = read_label_csv(values["labels"]) if values["labels"] is not None else None
    files = find_files(values["videos"])
    show = as_json if values["as_json"] else as_text
    failed = 0
    with (
        Predictor.open(values["checkpoint"], options, values["device"], labels) as predictor,
        ProgressBar("predict", "file", len(files), initial=0) as bar,
    ):
        warn(predictor.notes)
        outcomes = predictor.predict_many(files, values["workers"])
        for done, (path, outcome) in enumerate(outcomes, start=1):
            failed += isinstance(outcome, Unreadable)
            bar.say(show(path, outcome, values["top"]), sys.stdout)
            bar.reach(done, failed=failed)
    check_failures(failed, len(files), limit)


def as_json(path: str, outcome: Prediction | Unreadable, top: int) -> str:
    """One line of JSON."""
    if isinstance(outcome, Unreadable):
        return json.dumps({"path": path, "cause": outcome.cause, "detail": outcome.detail})
    labels = [dataclasses.asdict(label) for label in outcome.top(top)]
    return json.dumps({"path": path, "mode": outcome.mode, "labels": labels})


def as_text(path: str, outcome: Prediction | Unreadable, top: int) -> str:
    """A line for the file, and one for each label."""
    shown = _printable(path)
    if isinstance(outcome, Unreadable):
        return f"{shown}\n{'':>9}  {outcome.cause}: {_printable(outcome.detail)}"
    rows = [f"{label.score:9.4f}  {label.name}" for label in outcome.top(top)]
    mode = "" if outcome.mode == "multimodal" else f"  ({outcome.mode})"
    return "\n".join([f"{shown}{mode}", *rows])


def _printable(text: str) -> str:
    """A path may hold bytes that are no text, which no terminal takes."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")
