"""`cavmae eval`: how good a classifier is on a shard set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

import cavmae
from avprep.cli.flags import flags
from avprep.cli.progress import Bars
from avprep.wording import lacking_words
from cavmae.cli.options import RecipeCommand, is_from_recipe, warn
from cavmae.cli.results import OneLine, covered
from cavmae.evaluation.options import EvaluateOptions
from cavmae.options import MODE_WORDS, StatedUsage, frames_given

if TYPE_CHECKING:  # imported for real inside the command, to keep --help quick
    from cavmae.evaluation.bootstrap import Interval
    from cavmae.evaluation.evaluate import ModeResult
    from cavmae.evaluation.metrics import Scores


@click.command("eval", cls=RecipeCommand)
@flags(options=EvaluateOptions, printed=OneLine)
def evaluate(options: EvaluateOptions, printed: OneLine) -> None:
    """Accuracy, mAP, AUC and d′ of a classifier.

    Under torchrun the processes share the clips. --modes all evaluates the classifier with
    sound and picture, and with either of them alone.

    \b
    Example:
      cavmae eval --shards shards/test --checkpoint runs/finetune
    """
    recipe = StatedUsage()  # counts where the checkpoint says nothing; a flag counts always
    if is_from_recipe("mode"):
        recipe, options = replace(recipe, mode=options.mode), replace(options, mode=None)
    if is_from_recipe("criterion"):
        recipe = replace(recipe, criterion=options.criterion)
        options = replace(options, criterion=None)
    with Bars("eval") as bars:
        result = cavmae.evaluate(options, recipe, bars, warn)
    printed.show(facts_of(result), "\n".join([*described(result), *score_files(result, options)]))


def score_files(result: cavmae.EvaluateResult, options: EvaluateOptions) -> list[str]:
    """What was written with `--scores`."""
    from cavmae.evaluation.evaluate import score_file

    modes = result.modes if options.scores is not None else ()
    return [str(score_file(options, one.mode)) for one in modes]


def facts_of(result: cavmae.EvaluateResult) -> dict[str, Any]:
    """The result for a program."""
    first, *others = result.modes
    return {
        **_measures(first),
        "clips": result.clips,
        "clips_selected": result.clips_selected,
        "clips_unreadable": result.clips_unreadable,
        "clips_lacking": result.clips_lacking,
        "clips_in_manifest": result.clips_in_manifest,
        "clips_never_sharded": result.clips_never_sharded,
        **(result.coverage.facts() if result.coverage else {}),
        "classes": len(result.labels),
        "classes_without_positives": first.scores.left_out,
        "mode": first.mode,
        "criterion": result.criterion,
        "frames": frames_given(first.mode, result.frames),
        "fbank_mean": result.fbank_mean,
        "fbank_std": result.fbank_std,
        "checkpoint": str(result.checkpoint),
        "shards": result.shards,
        "shards_fingerprint": result.fingerprint,
        "warnings": result.notes,
        **({"confusion": result.confusion} if result.confusion else {}),
        **({"modes": {one.mode: _of_mode(one, result) for one in result.modes}} if others else {}),
    }


def _of_mode(one: ModeResult, result: cavmae.EvaluateResult) -> dict[str, Any]:
    frames = frames_given(one.mode, result.frames)
    return {"given": MODE_WORDS[one.mode], "frames": frames, **_measures(one)}


def _measures(one: ModeResult) -> dict[str, Any]:
    return {
        **_figures_of(one.scores),
        **{f"{name}_interval": [found.low, found.high] for name, found in one.intervals.items()},
        **({"each_frame": list(map(_figures_of, one.each_frame))} if one.each_frame else {}),
        **({"vggsounder": one.vggsounder} if one.vggsounder else {}),
    }


def _figures_of(scores: Scores) -> dict[str, float]:
    return {name: getattr(scores, name) for name in ("accuracy", "map", "auc", "d_prime")}


def described(result: cavmae.EvaluateResult) -> Iterator[str]:
    """The result for a person: on what the figures stand, the figures, how they were made."""
    yield from covered(result.coverage)
    if len(result.modes) > 1:
        yield from mode_table(result)
    else:
        for number, one in enumerate(result.each_frame):
            yield f"frame {number}   {_figures(one)}"
        together = _figures(result.scores, result.modes[0].intervals)
        yield f"{'together  ' if result.each_frame else ''}{together}"
    for measured in result.modes if result.modes[0].vggsounder else ():
        yield from vggsounder_table(measured)
    if result.confusion:
        a, v, av = (f"{result.confusion[name]:.2%}" for name in ("a", "v", "av"))
        yield f"right with one modality and wrong with both: sound {a}, picture {v}, either {av}"
    clips = f"{result.clips} of {result.clips_selected} clips"
    if result.clips_unreadable:
        clips += f" ({result.clips_unreadable} unreadable)"
    if result.clips_lacking:
        clips += f"; {lacking_words(result.clips_lacking)}"
    if result.clips_never_sharded:
        clips += (
            f"; {result.clips_never_sharded} of the manifest's {result.clips_in_manifest} "
            "clips could not be decoded and are in no shard"
        )
    mode = ""
    if len(result.modes) == 1:
        mode = f"Mode {result.mode}, frames {frames_given(result.mode, result.frames)}, "
    how = (
        f"{clips}. {mode}fbank mean {result.fbank_mean:.3f} std {result.fbank_std:.3f}, "
        f"criterion {result.criterion}."
    )
    if empty := result.scores.left_out:
        how += (
            f" {empty} of {len(result.labels)} classes have no clip and are left out of the means."
        )
    yield how[0].upper() + how[1:]
    yield str(result.checkpoint)


def mode_table(result: cavmae.EvaluateResult) -> Iterator[str]:
    """A line per mode, with what the classifier is given in words."""
    given = max(map(len, MODE_WORDS.values())) + 2
    yield f"{'mode':18}{'given':{given}}frames"
    for one in result.modes:
        frames = frames_given(one.mode, frame_words(result))
        yield f"{one.mode:18}{MODE_WORDS[one.mode]:{given}}{frames}"
        yield f"  {_figures(one.scores, one.intervals)}"


def vggsounder_table(one: ModeResult) -> Iterator[str]:
    """Every kind of truth on all clips, and all labels on every subset of the clips."""
    columns = ("hit_rate@1", "hit_rate@5", "f1@1", "f1_macro@1", "jaccard@1", "auc_pr", "auc_roc")
    title = f"VGGSounder, {one.mode} ({MODE_WORDS[one.mode]})"
    yield title
    yield f"{'subset':24}{'labels':8}{'clips':>7}{''.join(f'{name:>12}' for name in columns)}"
    for place, (subset, truths) in enumerate(one.vggsounder.items()):
        for name, found in truths.items():
            if place and name != "all":
                continue
            figures = "".join(f"{found.get(column, float('nan')):12.4f}" for column in columns)
            yield f"{subset:24}{name:8}{found['clips']:7.0f}{figures}"


def frame_words(result: cavmae.EvaluateResult) -> str:
    """Which frames of a clip were looked at."""
    if result.frames in ("all", "each"):
        return f"{result.stored_frames}, their probabilities averaged"
    return f"number {result.stored_frames // 2 if result.frames == 'middle' else result.frames}"


def _figures(scores: Scores, intervals: Mapping[str, Interval] = {}) -> str:
    def figure(name: str, value: float) -> str:
        found = intervals.get(name)
        return f"{value:.4f}" + (f" [{found.low:.4f}, {found.high:.4f}]" if found else "")

    return (
        f"accuracy {figure('accuracy', scores.accuracy)}   mAP {figure('map', scores.map)}   "
        f"AUC {scores.auc:.4f}   d' {scores.d_prime:.3f}"
    )
